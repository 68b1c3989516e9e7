"""What Debezium writes for a value that it was not given: an unchanged TOAST value.

PostgreSQL leaves large values out of an update that does not change them. Debezium then writes
`unavailable.value.placeholder` in the column's own type: as text, as bytes (base64 or hex), as a
UUID made of it, as the element of an array, as an array of its bytes, as a map of it to itself.
"""

from __future__ import annotations

import base64
import hashlib
import uuid

from permaflow.changes import UNAVAILABLE
from permaflow.plan import Json


class Placeholder:
    """Finds the placeholder in all its forms."""

    def __init__(self, text: str = UNAVAILABLE) -> None:
        raw = text.encode()
        encoded = base64.b64encode(raw).decode()
        # Debezium makes the UUID this way; nothing is secured by it.
        digest = hashlib.md5(raw, usedforsecurity=False).digest()
        name = str(uuid.UUID(bytes=digest, version=3))
        forms = (text, encoded, raw.hex(), name)
        self._forms = frozenset(forms)
        self._bytes = list(raw)
        self._marks = tuple(form.encode() for form in (*forms, f"[{raw[0]}"))

    def may_be_in(self, message: bytes) -> bool:
        """Whether a message may hold it; cheap, and never wrongly false."""
        text, encoded, hexed, name, array = self._marks
        return (
            text in message
            or encoded in message
            or hexed in message
            or name in message
            or array in message
        )

    def take(self, row: dict[str, Json]) -> frozenset[str]:
        """Take the fields out of `row` whose value was not sent; gives their names."""
        missing = frozenset(name for name, value in row.items() if self._is(value))
        for name in missing:
            del row[name]
        return missing

    def _is(self, value: Json) -> bool:
        match value:
            case str():
                return value in self._forms
            case list():
                return value == self._bytes or any(
                    isinstance(item, str) and item in self._forms for item in value
                )
            case dict():
                return any(name in self._forms for name in value)
        return False
