"""Where a run that is played along stands: its places, and what an expression sees in each."""

from __future__ import annotations

from dataclasses import dataclass, field

from permaflow.plan import FAILURES, Json, Outcome
from tests.core.plans import TRIGGER_INPUT

IDLE, OUT, ASKED, DOUBTED = "idle", "with a runner", "asked", "people decide"
PUT_OFF, DELAYED, LOOPING = "put off", "delayed", "looping"


@dataclass
class Step:
    """A node in a place."""

    phase: str = IDLE
    outcome: Outcome | None = None
    port: str | None = None
    output: Json = None
    error: Json = None
    attempt: int = 0
    retries: int = 0
    visits: int = 0
    begun: bool = False
    items: list[Json] = field(default_factory=list)
    opened: int = 0
    closed: dict[int, Json] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)


@dataclass
class Place:
    """The root, or an iteration. It is the context of its expressions, and their `steps`."""

    id: str
    name: str
    steps: dict[str, Step]
    above: Place | None = None
    index: int = 0
    loop: Json = None
    error: Json = None

    def get(self, name: str, default: Json = None) -> Json:
        match name:
            case "trigger":
                return TRIGGER_INPUT
            case "steps":
                return _Seen(self)
            case "loop":
                return self.loop
            case "error":
                return self.error
        return default


@dataclass
class _Seen:
    """The steps as a place sees them: its own, then those around it."""

    place: Place

    def get(self, name: str, default: Json = None) -> Json:
        place: Place | None = self.place
        while place is not None:
            step = place.steps.get(name)
            if step is not None and step.outcome is Outcome.SUCCESS:
                return {"output": step.output, "outcome": "SUCCESS", "port": step.port}
            if step is not None and step.outcome in FAILURES:
                return {"output": None, "outcome": step.outcome.value, "error": step.error}
            place = place.above
        return default


def rendered(value: Json, context: Place) -> Json:
    """A config with its expressions evaluated."""
    if isinstance(value, dict):
        return {key: rendered(part, context) for key, part in value.items()}
    if isinstance(value, list):
        return [rendered(part, context) for part in value]
    return value.evaluate(context) if hasattr(value, "evaluate") else value
