"""Dry runs as JSON: what may be asked, and what is told. The command line uses it, too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from permaflow.plan import Json, TriggerSpec
from pipeline.core.dry_run import (
    MOST_STEPS,
    MOST_TEXT,
    Difference,
    DryRun,
    DryStep,
    Mock,
    Mocks,
    Place,
    compare,
    dry_run,
)
from pipeline.core.program import Program
from pipeline.gateway.run_starts import as_trigger
from pipeline.gateway.shapes import Body, View

MOST_EVENTS = 50
QUESTIONS: Mapping[str, Mock] = {
    "approval": Mock({"decision": "approved"}, "approved"),
    "change": Mock({"event": "found", "record": {}, "before": None}, "met"),
    "child": Mock({}),
}
"""What is answered to a question of each kind, as a rule."""


class FailureBody(Body):
    """How an attempt fails."""

    code: Annotated[str, Field(min_length=1, max_length=100)] = "failed"
    message: Annotated[str, Field(max_length=1_000)] = "It failed, as the dry run was told."
    retryable: bool = False


class MockBody(Body):
    """What an attempt comes to: an output that leaves through `port`, an error, or a timeout."""

    output: Any = None
    port: Annotated[str, Field(max_length=200)] | None = None
    error: FailureBody | None = None
    timed_out: bool = False

    def mock(self) -> Mock:
        if self.timed_out:
            return Mock(code="timeout", message="It took too long.", timed_out=True)
        if self.error is not None:
            failure = self.error
            return Mock(code=failure.code, message=failure.message, retryable=failure.retryable)
        return Mock(self.output, self.port)


class DryRunBody(Body):
    """A dry run. `definition` is looked at in place of what is saved.

    It plays `trigger_data`, or the last `events` that started runs of this workflow (or of
    `events_of`), each with what its steps came to then, unless `recorded` is false. `mocks` says
    what steps come to: by node, one answer or one for each attempt. What differs from the version
    that is active is told for each event, unless `compare` is false.
    """

    definition: dict[str, Any] | None = None
    version: Annotated[int, Field(ge=1)] | None = None
    trigger_data: Any = None
    trigger: Annotated[str, Field(max_length=200)] = ""
    events: Annotated[int, Field(ge=1, le=MOST_EVENTS)] | None = None
    events_of: Annotated[UUID, Field(strict=False)] | None = None
    mocks: Annotated[
        dict[str, MockBody | Annotated[list[MockBody], Field(min_length=1, max_length=100)]],
        Field(max_length=2_000),
    ] = Field(default_factory=dict)
    recorded: bool = True
    compare: bool = True


class DryStepView(View):
    """One node in one scope. `mock` says where its answer came from: it was given, recorded in an
    earlier run, or empty because there was none."""

    scope: str
    node: str
    type: str
    status: str
    attempts: int
    port: str | None
    config: Any = None
    output: Any = None
    error: dict[str, Any] | None = None
    mock: Literal["given", "recorded", "empty"] | None = None
    seconds: float | None
    """From the beginning of the run to the beginning of the step, on the clock of the dry run."""


class DifferenceView(View):
    """A step that the active version does otherwise; `what` names in which respects."""

    scope: str
    node: str
    what: list[str]
    active: DryStepView | None
    this: DryStepView | None


class DryEventView(View):
    """What one event would lead to. `status` is null where the dry run was broken off."""

    run_id: UUID | None
    trigger_data: Any
    status: str | None
    error: dict[str, Any] | None
    output: Any
    seconds: float
    steps: list[DryStepView]
    active_status: str | None = None
    differences: Annotated[list[DifferenceView], Field(default_factory=list)]


class DryRunView(View):
    """Dry runs of a definition, one for each event. Nothing outside has happened."""

    version: int | None
    compared_with: int | None
    events: list[DryEventView]


def by_hand(specs: Sequence[TriggerSpec], data: Json, trigger: str) -> Happening:
    """The event of somebody who starts the workflow with this data."""
    chosen = next((spec for spec in specs if spec.node == trigger), specs[0] if specs else None)
    return Happening(as_trigger(chosen, data), trigger)


class Happening:
    """An event to play: its data, the trigger that it came through, and what was recorded."""

    __slots__ = ("data", "recorded", "run_id", "trigger")

    def __init__(
        self,
        data: Json,
        trigger: str = "",
        run_id: UUID | None = None,
        recorded: Mapping[Place, Mock] | None = None,
    ) -> None:
        self.data = data
        self.trigger = trigger
        self.run_id = run_id
        self.recorded = recorded or {}


def play(
    program: Program,
    active: Program | None,
    happenings: Sequence[Happening],
    mocks: Mapping[str, MockBody | list[MockBody]],
) -> list[DryEventView]:
    """Play every event. Of several each is broken off the sooner."""
    given = {
        node: [each.mock() for each in (row if isinstance(row, list) else [row])]
        for node, row in mocks.items()
    }
    began = datetime.now(UTC)
    most = max(1_000, 4 * MOST_STEPS // (len(happenings) or 1))
    text = MOST_TEXT // (len(happenings) or 1)
    views = []
    for happening in happenings:
        world = Mocks(given, happening.recorded, QUESTIONS)
        most = min(most, MOST_STEPS)
        now = dry_run(program, happening.data, happening.trigger, world, began, most, text)
        was = None
        if active is not None:
            was = dry_run(active, happening.data, happening.trigger, world, began, most, text)
        views.append(_event(program, active, happening, now, was, began))
    return views


def _event(
    program: Program,
    active: Program | None,
    happening: Happening,
    now: DryRun,
    was: DryRun | None,
    began: datetime,
) -> DryEventView:
    differences = [] if was is None or active is None else compare(was, now)
    return DryEventView(
        run_id=happening.run_id,
        trigger_data=happening.data,
        status=now.status,
        error=now.error,
        output=now.output,
        seconds=now.seconds,
        steps=[_step(program, each, began) for each in now.steps],
        active_status=was.status if was is not None else None,
        differences=[_difference(program, active, each, began) for each in differences],
    )


def _difference(
    program: Program, active: Program | None, difference: Difference, began: datetime
) -> DifferenceView:
    before = difference.before
    return DifferenceView(
        scope=difference.scope,
        node=difference.node,
        what=list(difference.what),
        active=_step(active, before, began) if before is not None and active is not None else None,
        this=_step(program, difference.after, began) if difference.after is not None else None,
    )


def _step(program: Program, dry: DryStep, began: datetime) -> DryStepView:
    step = dry.step
    node = program.nodes.get(step.node)
    return DryStepView(
        scope=step.scope,
        node=step.node,
        type=node.type if node is not None else "",
        status=step.status,
        attempts=step.attempts,
        port=step.port,
        config=dry.config,
        output=step.output,
        error=step.error,
        mock=dry.mock,
        seconds=(step.started_at - began).total_seconds(),
    )
