"""What catalogues show of the types that the orchestrator works off by itself, and of triggers.

Their configs are read by `specs.triggers` and `specs.logic`, which have the last word; the forms
here say the same to people and editors, and a test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import ConfigDict

from permaflow import field
from permaflow.forms import Form
from permaflow.plan import Json
from permaflow.task import OutputField

Event = Literal["created", "updated", "deleted"]


class Described(Form):
    """Beside its own settings a node may have a label and a description."""

    model_config = ConfigDict(extra="ignore")


class RecordTrigger(Described):
    """Which changes of which records start a run."""

    object: str = field.combobox(
        "Object", options_source="datasources", required=True, description="The table or object."
    )
    event: Event | list[Event] = field.select(
        "Event", options=["created", "updated", "deleted"], required=True
    )
    conditions: list[dict[str, Json]] | None = None
    source: str = field.text("Source", description="Only changes that this source tells of.")
    namespace: str = field.text("Schema", description="The schema of the table.")
    snapshot: bool = False
    on_unknown: str = field.select(
        "When a field is not known", options=["skip", "fire", "error"], default="skip"
    )


class ScheduleTrigger(Described):
    """When runs start."""

    cron: str = field.text("Cron expression", required=True, placeholder="0 9 * * 1-5")
    timezone: str = field.combobox("Time zone", default="UTC", placeholder="Europe/Berlin")
    catchup: str = field.select("Missed times", options=["none", "last", "all"], default="none")
    start_at: str | None = field.text("Not before", default=None, placeholder="2030-01-31T09:00:00")
    end_at: str | None = field.text("Not after", default=None, placeholder="2030-12-31T18:00:00")
    input: Json = None


class WebhookTrigger(Described):
    """Who may start a run by a request, and with what."""

    verification: str | dict[str, Json] | None = None
    headers: list[str] | None = None
    input_schema: Json = field.schema_builder("Shape of the body")


class ManualTrigger(Described):
    """What a run that somebody starts is given."""

    input_schema: Json = field.schema_builder("Shape of the input")


class IntegrationTrigger(Described):
    """Which event of which connection starts a run."""

    connection_id: str = field.text(
        "Connection", required=True, description="Whose account is listened to."
    )
    event: str = field.text(
        "Event", required=True, description="As the service's catalogue names it."
    )
    params: dict[str, Json] | None = None
    input_schema: Json = field.schema_builder("Shape of the event")


class Condition(Described):
    """What must hold: conditions `{field, op, value}`, all of them."""

    conditions: list[Json] | dict[str, Json] | str | None = None
    condition: list[Json] | dict[str, Json] | str | None = None
    expression: list[Json] | dict[str, Json] | str | None = None


class Switch(Described):
    """A value, and the cases that it may be."""

    value: Json = field.template_input("Value", placeholder="{{trigger.record.status}}")
    expression: str = field.text("Or an expression", placeholder="trigger.record.total > 100")
    cases: list[Json] | dict[str, Json]
    default: str = field.text("Otherwise", default="default")


class Loop(Described):
    """What is gone through, and how many at a time."""

    items: Json = field.template_input(
        "Items", required=True, placeholder="{{trigger.record.lines}}"
    )
    mode: str = field.select("Mode", options=["parallel", "sequential"], default="parallel")
    concurrency: int = field.number("At a time", min=1, default=1_000)
    stop_on_error: bool = True
    max_items: int = field.number("At most", min=1, default=100_000)


class Awaited(Form):
    """Of which record which field is to meet what."""

    model_config = ConfigDict(extra="ignore")

    object: str | None = field.combobox(
        "Object",
        options_source="datasources",
        default=None,
        description="The table or object; by default that of the run.",
    )
    record_id: str | int | None = field.template_input(
        "Record", default=None, placeholder="{{trigger.record.id}}"
    )
    field: str | None = None
    op: str | None = None
    value: Json = None
    conditions: list[dict[str, Json]] | None = None


class Delay(Described):
    """For how long, until when, or until a field of a record meets a condition; one of them."""

    duration: str | float | None = field.template_input(
        "Duration", default=None, placeholder="90s, 1h30m, PT1H30M"
    )
    until: str | None = field.template_input(
        "Until", default=None, placeholder="2030-01-01T09:00:00Z"
    )
    timezone: str | None = field.combobox(
        "Time zone of a time without an offset", default=None, placeholder="Europe/Berlin"
    )
    until_field: Awaited | None = None
    timeout_seconds: float | None = field.number("Seconds at most", default=None)
    on_timeout: str = field.select("Then", options=["fail", "branch"], default="fail")


class Subworkflow(Described):
    """Which workflow a run is started of, with what, and what becomes of its end."""

    workflow_id: str | None = field.template_input("Workflow", default=None)
    workflow: str | None = field.template_input("Its name", default=None)
    version: int | str | None = field.text("Version", default=None, placeholder="latest")
    input: Json = field.template_textarea("Input")
    mode: str = field.select("Mode", options=["sync", "async"], default="sync")
    output: Json = field.template_textarea("Output", placeholder="{{run.output}}")
    on_child_failure: str = field.select(
        "When it fails", options=["fail", "continue"], default="fail"
    )


class Approval(Described):
    """Who is asked what, how many of them decide, and what becomes of it."""

    title: str = field.template_input("Title", placeholder="Order {{trigger.record.id}}")
    description: str = field.template_textarea("What it is about")
    data: Json = None
    form: dict[str, Json] | None = field.schema_builder("What to fill in")
    assignees: Json = field.template_input(
        "Who is asked", description="Names of users, and `group:<name>`."
    )
    quorum: Literal["any", "all"] | int | dict[str, int] = "any"
    veto: bool | None = None
    reminder: dict[str, Json] | None = None
    escalation: list[dict[str, Json]] | None = None
    timeout_seconds: float | None = field.number("Seconds until it is too late", default=None)
    on_timeout: str = field.select(
        "When it is too late", options=["fail", "approve", "reject", "branch"], default="fail"
    )
    on_reject: str = field.select("When rejected", options=["fail", "branch"], default="fail")
    delegation: bool = False
    self_approval: bool = False
    requester: str = field.template_input("Who asks, if not who started the run")


class Nothing(Described):
    """It has no settings."""


class Join(Described):
    """How many of the branches it waits for."""

    join: Json = None
    n: int | None = field.number("How many", min=1)


@dataclass(frozen=True, slots=True)
class Shape:
    """`ports` are the ways out that edges may start from; those of a case are named by the config.

    `open_ports` tells that the config names further ones.
    """

    label: str
    category: str
    description: str
    icon: str
    config: type[Form] = Nothing
    outputs: tuple[OutputField, ...] = ()
    ports: tuple[str, ...] = ()
    open_ports: bool = False


_CHANGE = (
    OutputField("record", "The record as it is after the change."),
    OutputField("before", "The record as it was, where the source tells."),
    OutputField("event", "created, updated or deleted."),
)

SHAPES: Mapping[str, Shape] = {
    "trigger_record": Shape(
        "Record changed",
        "Triggers",
        "Starts a run when a record is created, updated or deleted.",
        "database",
        RecordTrigger,
        _CHANGE,
    ),
    "trigger_schedule": Shape(
        "Schedule", "Triggers", "Starts a run at set times.", "clock", ScheduleTrigger
    ),
    "trigger_webhook": Shape(
        "Webhook", "Triggers", "Starts a run with a request.", "webhook", WebhookTrigger
    ),
    "trigger_manual": Shape("Manual", "Triggers", "Somebody starts a run.", "hand", ManualTrigger),
    "trigger_integration": Shape(
        "Integration event",
        "Triggers",
        "Starts a run with an event of a connected service.",
        "plug",
        IntegrationTrigger,
    ),
    "logic_condition": Shape(
        "Condition",
        "Logic",
        "Goes on one way if the conditions hold, and another way if not.",
        "git-branch",
        Condition,
        ports=("true", "false"),
    ),
    "logic_switch": Shape(
        "Switch",
        "Logic",
        "Goes on the way of the first case that is true.",
        "split",
        Switch,
        ports=("default",),
        open_ports=True,
    ),
    "logic_loop": Shape(
        "Loop",
        "Logic",
        "Runs its body once for each item.",
        "repeat",
        Loop,
        (
            OutputField("items", "The outputs of the iterations, in order."),
            OutputField("count", "How many iterations there were."),
            OutputField("failed", "How many of them failed."),
        ),
    ),
    "logic_delay": Shape(
        "Delay",
        "Logic",
        "Waits for a while, until a time has come, or until a field meets a condition.",
        "hourglass",
        Delay,
        (
            OutputField("record", "The record that met the condition."),
            OutputField("event", "created or updated, or found where it was met already."),
        ),
        ports=("met", "timed_out"),
    ),
    "logic_approval": Shape(
        "Approval",
        "Logic",
        "Waits until people have approved or rejected, or a timeout has passed.",
        "stamp",
        Approval,
        (
            OutputField("decision", "approved, rejected or timed_out."),
            OutputField("timed_out", "Whether nobody decided in time."),
            OutputField("by", "Whose decision made the quorum."),
            OutputField("comment", "What they said."),
            OutputField("data", "What they filled in."),
            OutputField("decisions", "Who decided what when."),
        ),
        ports=("approved", "rejected", "timed_out"),
    ),
    "logic_parallel": Shape(
        "Parallel", "Logic", "Starts everything after it at once.", "git-fork", Join
    ),
    "logic_join": Shape(
        "Join", "Logic", "Goes on when enough of the branches before it have ended.", "merge", Join
    ),
    "meta_error": Shape(
        "Error handler",
        "Errors",
        "Stands where a failure leads to by `goto`.",
        "triangle-alert",
        outputs=(
            OutputField("node", "Which node has failed."),
            OutputField("code", "What kind of failure it is."),
            OutputField("message", "What went wrong, in a sentence."),
            OutputField("details", "What else is known of it."),
        ),
    ),
    "meta_subworkflow": Shape(
        "Sub-workflow",
        "Workflows",
        "Starts a run of another workflow, and waits for its end or not.",
        "workflow",
        Subworkflow,
    ),
}
