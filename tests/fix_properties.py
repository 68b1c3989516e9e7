"""How much property tests try: `--hypothesis-profile=long` tries fifty times as much."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("long", max_examples=5_000)


def examples(count: int) -> settings:
    """Settings for a property over generated plans: `count` examples in the default profile."""
    scale = settings().max_examples / 100
    return settings(
        max_examples=max(1, int(count * scale)),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
