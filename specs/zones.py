"""Time zones by their IANA names."""

from __future__ import annotations

import zoneinfo
from functools import lru_cache

from specs.reading import Fields, shown


def read_zone(fields: Fields) -> zoneinfo.ZoneInfo | None:
    """`timezone`, if it is given and there is one of that name."""
    name = fields.text("timezone")
    if name is None:
        return None
    if name not in _zones():
        fields.problem(
            "timezone",
            "bad_timezone",
            f"There is no time zone {shown(name)}; {fields.report.guess(name, _zones())}"
            "use a name such as `Europe/Berlin` or `UTC`.",
        )
        return None
    return zoneinfo.ZoneInfo(name)


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(zoneinfo.available_timezones())
