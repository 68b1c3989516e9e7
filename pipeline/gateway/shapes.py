"""What goes in and out as JSON: the bodies that requests may have, and the answers."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar
from uuid import UUID

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field

Item = TypeVar("Item")

Moment = Annotated[AwareDatetime, AfterValidator(lambda at: at.astimezone(UTC))]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Label = Annotated[str, Field(max_length=200)]
Status = Literal["draft", "active", "paused", "archived"]
RunStatus = Literal[
    "pending",
    "running",
    "waiting",
    "completed",
    "failed",
    "cancelled",
    "timed_out",
    "compensating",
    "compensated",
]
Links = dict[str, str]


class Body(BaseModel):
    """A request's body: no unknown members, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class View(BaseModel):
    """An answer."""

    model_config = ConfigDict(frozen=True, json_schema_serialization_defaults_required=True)


class Page(View, Generic[Item]):
    """Part of a list. Pass `next_cursor` as `cursor` for the part that follows."""

    data: list[Item]
    next_cursor: str | None = None
    has_more: bool = False


class ProblemItem(View):
    """One thing that is wrong: where (a JSON pointer into the body), what, and what to do."""

    pointer: str
    code: str
    message: str


class ProblemView(View):
    """A refused request (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    instance: str
    request_id: str
    errors: list[ProblemItem]


# --- definitions --------------------------------------------------------------------------------


class DefinitionBody(Body):
    """A new workflow. `definition` is a document in any of the dialects."""

    name: Name
    description: Annotated[str, Field(max_length=10_000)] = ""
    trigger_type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")] | None = None
    definition: dict[str, Any]


class DefinitionUpdate(Body):
    """The next version of a workflow. What is left out stays as it is, except the document."""

    name: Name | None = None
    description: Annotated[str, Field(max_length=10_000)] | None = None
    trigger_type: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")] | None = None
    definition: dict[str, Any]


class DocumentBody(Body):
    """A document to look at."""

    definition: dict[str, Any]


class StatusBody(Body):
    """The status that a workflow is to have."""

    status: Status


class SecretBody(Body):
    """The secret that senders sign with; several while one is being replaced, the new one first."""

    secret: Annotated[str, Field(min_length=1, max_length=1_000)] | None = None
    secrets: Annotated[list[str], Field(min_length=1, max_length=3)] | None = None


class WebhookView(View):
    """The address of a webhook trigger."""

    node: str
    path: str
    url: str
    has_secret: bool


class StatsView(View):
    """What the runs of a workflow came to."""

    run_count: int = 0
    success_count: int = 0
    failure_count: int = 0
    open_count: int = 0
    last_run_at: Moment | None = None


class DefinitionSummary(View):
    """A workflow without its document."""

    id: UUID
    name: str
    description: str
    trigger_type: str
    status: Status
    version: int
    created_at: Moment
    updated_at: Moment
    activated_at: Moment | None
    links: Links


class DefinitionView(DefinitionSummary):
    """A workflow. `definition` is the document as it was written.

    `watched` is told to whoever activates a workflow that waits for changes, or changes an active
    one: whether changes from now on count. False: it was not heard in time that ingest watches, or
    a table that a trigger names is not published.
    """

    dialect: str
    webhooks: list[WebhookView]
    stats: StatsView
    warnings: list[ProblemItem] = []
    watched: bool | None = None
    definition: dict[str, Any] = {}


class VersionSummary(View):
    """A version without its document."""

    version: int
    dialect: str
    created_by: str
    created_at: Moment


class VersionView(VersionSummary):
    """A version. `definition` is the document as it was written."""

    definition: dict[str, Any] = {}


class TriggerView(View):
    """A trigger that a document has."""

    node: str
    kind: str


class ValidationView(View):
    """What was found in a document. Pointers are relative to the request's body."""

    valid: bool
    dialect: str
    problems: list[ProblemItem]
    warnings: list[ProblemItem]
    triggers: list[TriggerView]


# --- runs ---------------------------------------------------------------------------------------


class RunBody(Body):
    """A run to start. `input` is another name of `trigger_data`."""

    workflow_id: Annotated[UUID, Field(strict=False)]
    trigger_data: Any = None
    input: Any = None
    type: Label = ""
    resource_type: Label = ""
    resource_id: Label = ""
    requested_by: Label = ""


class RerunBody(Body):
    """What of a run to do again: what follows from the step `from`, or all of it.

    `input` is the data of the trigger (`{{trigger}}`) instead of that of the run. `version` is
    `same`, `latest`, or the number of one.
    """

    model_config = ConfigDict(populate_by_name=True)

    from_step: Annotated[str | None, Field(alias="from", min_length=1, max_length=200)] = None
    input: Any = None
    version: Literal["same", "latest"] | Annotated[int, Field(ge=1, le=2**31 - 1)] = "same"


Version = Annotated[int, Field(ge=1, le=2**31 - 1)]


class MigrateBody(Body):
    """To which version a run is to go over: the current one without `version`.

    With `dry_run` nothing is changed.
    """

    version: Version | None = None
    dry_run: bool = False


class MigrateRunsBody(Body):
    """Which open runs of a workflow are to go over to its current version: those of `from`, or all.

    With `dry_run` nothing is changed. `before` goes on where an answer had its `next_before`.
    """

    model_config = ConfigDict(populate_by_name=True)

    from_version: Annotated[Version | None, Field(alias="from")] = None
    dry_run: bool = False
    before: Annotated[UUID, Field(strict=False)] | None = None


class RefusedMigration(View):
    """A run that cannot go over, and why."""

    run_id: UUID
    version: int
    reasons: list[str]


class MigrationView(View):
    """How many runs went over to `version`, or would have, and which cannot."""

    version: int
    dry_run: bool
    checked: int
    migrated: int
    refused: list[RefusedMigration]
    has_more: bool
    next_before: UUID | None = None


class CancelBody(Body):
    """Why a run is to end."""

    reason: Annotated[str, Field(max_length=1_000)] = ""


class ResolveBody(Body):
    """What became of an attempt that nobody heard of again. `output` and `port` are of one that was
    done; `scope` is that of the step, such as `each[3]`.
    """

    outcome: Literal["done", "fail", "retry"]
    scope: Annotated[str, Field(max_length=1_000)] = ""
    output: Any = None
    port: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    message: Annotated[str, Field(max_length=1_000)] = ""


class ResolvedView(View):
    """What was said of a step."""

    run_id: UUID
    scope: str
    node: str
    outcome: str


class RunStarted(View):
    """A run that is stored and will go on whatever happens. `run_id` is the same as `id`.

    `estimated_seconds` is what the last completed runs of the workflow took; null before the first.
    """

    id: UUID
    run_id: UUID
    workflow_id: UUID
    version: int | None
    status: RunStatus
    estimated_seconds: float | None
    links: Links


class WebhookAccepted(View):
    """The run that a webhook started, or had started before."""

    id: UUID
    run_id: UUID
    status: Literal["accepted"] = "accepted"


class RunSummary(View):
    """A run without its data.

    A run that is `paused` and has not ended is `waiting`. `reopened` counts how often it was
    retried after its end; `rerun_of` is the run that it repeats.
    """

    id: UUID
    run_id: UUID
    workflow_id: UUID
    version: int
    status: RunStatus
    source: str
    trigger_node: str
    type: str
    resource_type: str
    resource_id: str
    requested_by: str
    parent_id: UUID | None
    created_at: Moment
    started_at: Moment
    finished_at: Moment | None
    duration_ms: int | None
    cancel_requested_at: Moment | None
    cancel_requested_by: str | None
    paused: bool
    paused_at: Moment | None
    paused_by: str | None
    reopened: int
    rerun_of: UUID | None
    error: dict[str, Any] | None
    links: Links


class RunView(RunSummary):
    """A run. `steps` counts its steps by status; values too large for here are `{"$ref": path}`."""

    steps: dict[str, int] = {}
    trigger_data: Any = None
    output: Any = None


class StepView(View):
    """One node in one scope (`""`, or an iteration such as `each[3]`), as of its last attempt.

    `role` is step, compensation (of the step before the `#` of its name), or on_failure. A large
    output is `{"$ref": path}`. `log` is what its attempts wrote. `approval` leads to the approval
    that it has asked for, `run_id` is the run that it started.
    """

    scope: str
    node: str
    type: str
    role: Literal["step", "compensation", "on_failure"]
    status: str
    attempts: int
    started_at: Moment
    finished_at: Moment | None
    duration_ms: int | None
    port: str | None
    error: dict[str, Any] | None
    log: list[str] = []
    output: Any = None
    approval: Links | None = None
    run_id: UUID | None = None


class MetricView(View):
    """Runs of one type that have one status."""

    type: str
    status: str
    count: int
    mean_seconds: float | None
    p95_seconds: float | None


class MetricsView(View):
    """What the runs of a span of time came to. The rate is of those that ended."""

    total: int
    by_status: dict[str, int]
    by_type: dict[str, int]
    success_rate: float | None
    groups: list[MetricView]


# --- records ------------------------------------------------------------------------------------


class RecordBody(Body):
    """A new record."""

    id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    data: dict[str, Any]


class RecordData(Body):
    """The fields of a record."""

    data: dict[str, Any]


class RecordView(View):
    """A record. `version` grows by one with each update."""

    id: str
    object: str
    data: dict[str, Any]
    version: int
    created_at: Moment
    updated_at: Moment


# --- notifications, secrets -----------------------------------------------------------------------


class NotificationView(View):
    """What a user was told. `seq` numbers what one user is told, in order; a stream goes on behind
    it.
    """

    id: UUID
    seq: int
    title: str
    description: str
    link: str
    data: Any
    run_id: UUID | None
    at: Moment
    read_at: Moment | None


class ReadBody(Body):
    """Up to which notification all were read."""

    upto: Annotated[int, Field(ge=0, le=2**62)]


class ReadView(View):
    """How many were not read before."""

    count: int


class SecretValue(Body):
    """A secret, and the hosts that it may be sent to: `crm.example.com`, or `*.example.com` for all
    names below a domain. Without `hosts` it keeps those that it has; with none, `[]`, it may be
    sent anywhere.
    """

    value: Annotated[str, Field(min_length=1, max_length=16_000)]
    hosts: Annotated[list[str], Field(max_length=20)] | None = None


class SecretView(View):
    """What is told of a secret. Without `hosts` it may be sent anywhere."""

    name: str
    hosts: list[str]
    updated_by: str
    updated_at: Moment


class VersionInfo(View):
    """What runs here."""

    name: Literal["permaflow"] = "permaflow"
    version: str
    api: Literal["v1"] = "v1"


def milliseconds(start: datetime, end: datetime | None) -> int | None:
    """How long something took."""
    return None if end is None else max(0, round((end - start).total_seconds() * 1000))
