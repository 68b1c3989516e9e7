"""Dry runs as JSON: what may be asked, and what is told. The command line uses it, too."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from pipeline.core.dry_run import Difference, DryStep, Mock
from pipeline.core.program import Program
from pipeline.gateway.shapes import Body, View

MOST_EVENTS = 50


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
    `events_of`), each with what its steps came to then, unless `recorded` is false. Reruns and
    children were started by no event. An event has to get past the triggers. `mocks` says
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
    """What one event would lead to.

    `starts` says whether it would start a run, through `trigger`; else `why_not`. `status` is null
    where no run would start, and where the dry run was `broken_off`: it had too many steps, too
    much to tell, or took too long; then only what was found until then is told and compared.
    `recording` says whether all of the recorded run could be read, or part of it: what was too much
    has no recorded answers.
    """

    run_id: UUID | None
    source: str | None
    trigger: str | None
    trigger_data: Any
    starts: bool
    why_not: str | None = None
    status: str | None
    broken_off: Literal["steps", "size", "time"] | None = None
    error: dict[str, Any] | None
    output: Any
    seconds: float
    recording: Literal["whole", "part"] | None = None
    steps: list[DryStepView]
    active_starts: bool | None = None
    active_why_not: str | None = None
    active_status: str | None = None
    active_broken_off: Literal["steps", "size", "time"] | None = None
    differences: Annotated[list[DifferenceView], Field(default_factory=list)]


class DryRunView(View):
    """Dry runs of a definition, one for each event. Nothing outside has happened.

    `events_left_out` counts further events whose data are too much to be played together.
    """

    version: int | None
    compared_with: int | None
    events: list[DryEventView]
    events_left_out: int = 0


def difference_view(
    program: Program, active: Program, difference: Difference, began: datetime
) -> DifferenceView:
    before = difference.before
    return DifferenceView(
        scope=difference.scope,
        node=difference.node,
        what=list(difference.what),
        active=step_view(active, before, began) if before is not None else None,
        this=step_view(program, difference.after, began) if difference.after is not None else None,
    )


def step_view(program: Program, dry: DryStep, began: datetime) -> DryStepView:
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
