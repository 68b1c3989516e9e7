"""Where a run that is played along stands: its places, and what an expression sees in each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from permaflow.errors import EvaluationError
from permaflow.plan import FAILURES, Delay, Json, Loop, Node, Outcome, Plan, mentions
from tests.core.auditor import holds
from tests.core.plans import MOMENTS, TRIGGER_INPUT

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


def wait_of(delay: Delay, place: Place) -> tuple[float | None, str | None]:
    """How many seconds a delay waits, or until when. Raises `EvaluationError`."""
    seconds = None if delay.duration is None else delay.duration.evaluate(place)
    moment = None if delay.until is None else MOMENTS.get(delay.until.evaluate(place))
    if moment is None and type(seconds) not in (int, float):
        raise EvaluationError("that is no time")
    return seconds, moment


def items_of(loop: Loop, place: Place) -> list[Json]:
    """What a loop runs over. Raises `EvaluationError`."""
    found = loop.items.evaluate(place)
    if isinstance(found, dict):
        found = [{"key": key, "value": value} for key, value in found.items()]
    if not isinstance(found, list) or len(found) > loop.max_items:
        raise EvaluationError("that is no list, or it is too long")
    return found


def fires(place: Place, node: Node) -> bool:
    """Whether a node that is not at anything fires."""
    phase = place.steps[node.id].phase
    return phase == IDLE and holds(node.when, place.steps) is True  # type: ignore[arg-type]


def may_go_on(place: Place, node: Node) -> bool:
    """Whether a node fires or is skipped, or a loop has something to do."""
    step = place.steps[node.id]
    if step.phase == LOOPING:
        return room(step, node) > 0 or is_over(step, node)
    if step.phase != IDLE or step.outcome is not None:
        return False
    return holds(node.when, place.steps) is not None  # type: ignore[arg-type]


def room(step: Step, node: Node) -> int:
    """How many iterations of a loop may open."""
    assert isinstance(node.work, Loop)
    running = step.opened - len(step.closed)
    return min(node.work.parallel - running, len(step.items) - step.opened)


def is_over(step: Step, node: Node) -> bool:
    """Whether a loop ends now."""
    assert isinstance(node.work, Loop)
    broken = bool(step.broken) and node.work.stop_on_error
    return broken or len(step.closed) == len(step.items)


def last_of(plan: Plan, scope: str) -> list[str]:
    """The nodes of a scope that nothing follows."""
    nodes = [node for node in plan.nodes.values() if node.scope == scope]
    awaited = {name for node in nodes for name in mentions(node.when)}
    return [node.id for node in nodes if node.id not in awaited]


def output_of(place: Place, names: Iterable[str]) -> Json:
    """What a place gives back."""
    outputs = {name: place.steps[name].output for name in names}
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs
