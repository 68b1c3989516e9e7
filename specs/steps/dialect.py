"""The steps dialect: `{"triggerEvent": "Deal.won", "steps": [{"action": …, "mapping": …}]}`.

* `triggerEvent`: `Noun.created`, `Noun.updated` or `Noun.deleted` is that change of a record of the
  object. Any other verb (`Deal.won`) is a change after which `status` (or `stage`; `triggerField`
  names another field) is that word, or the creation of a record of the object `Event` whose `type`
  is the whole name.
* `steps`: an array, or text that holds one as JSON. A step: `action` (see `specs.steps.actions`;
  or the name of a task type, then `mapping` is its config), `mapping` (see `specs.steps.mapping`),
  and optionally `id`, `name`, `description`, `when` (an expression), `flag` (the id of a record of
  the object `FeatureFlag`), `assignees`, `retryPolicy`, `errorHandling`, `timeout`, `onUnknown`
  and `compensate`: an action that undoes the step if the run does not complete.
* `retryPolicy` (an object, or text that holds one), `errorHandling` and `timeout` (milliseconds)
  stand beside `steps` as well: the first two for every step, the timeout for the whole run.
* `fallback`: steps for `errorHandling: Fallback`. See `specs.steps.sequence`.
* `onFailure`: an action, or an array of them (which may be text): `action`, `mapping`, `id`,
  `retryPolicy`, `timeout`. They run in order when the run has failed, after what undoes it.

What else an entity of this kind has (`status`, `version`, `runCount` …) is accepted and ignored.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from permaflow.plan import Compiled, Json, Plan, TaskTypes
from specs.documents import Reader, Step, check_between, read_document
from specs.json_limits import MAX_NODES
from specs.reading import Fields, kind_of
from specs.steps.events import read_event
from specs.steps.options import decoded, read_milliseconds, read_retry_policy
from specs.steps.sequence import FALLS_BACK, HANDLING, STOPS, Link, connect
from specs.steps.step import StepReader
from specs.undoing import MAX_HANDLERS, nodes_of

_DOCUMENT = frozenset(
    {
        "name",
        "description",
        "triggerEvent",
        "triggerField",
        "conditions",
        "steps",
        "fallback",
        "onFailure",
        "assignees",
        "retryPolicy",
        "errorHandling",
        "timeout",
    }
)
ENTITY_FIELDS = frozenset(
    {
        "$id",
        "$type",
        "$schema",
        "$version",
        "$createdAt",
        "$updatedAt",
        "id",
        "metadata",
        "organization",
        "status",
        "version",
        "lastRunAt",
        "runCount",
        "successCount",
        "failureCount",
    }
)


class StepsDialect:
    """Implements `permaflow.plan.Dialect`."""

    name: str = "steps"

    def recognises(self, document: Json) -> bool:
        return type(document) is dict and ("triggerEvent" in document or "steps" in document)

    def compile(self, document: Json, types: TaskTypes) -> Compiled:
        return read_document(document, lambda fields: _Steps(fields, types).compile())


@dataclass(slots=True)
class _Steps:
    document: Fields
    types: TaskTypes
    links: dict[str, Link] = field(default_factory=dict)

    def compile(self) -> Compiled:
        document, report = self.document, self.document.report
        document.only(_DOCUMENT, ENTITY_FIELDS)
        document.text("name")
        timeout = read_milliseconds(document, "timeout")
        retry = read_retry_policy(document)
        handling = document.choice("errorHandling", HANDLING, STOPS)
        noun, triggers = read_event(document)
        reader = StepReader(
            Reader(self.types, report),
            noun=noun,
            rotation=str(document.values.get("name") or document.values.get("triggerEvent")),
            assignees=document.values.get("assignees"),
            retry=retry,
            handling=handling,
        )
        listed = read_listed(document, "steps", required=True)
        if listed is not None and not listed:
            document.problem("steps", "empty", "At least one step is required.")
        chain = self.read_links(listed or [], "steps", "step", reader)
        fallback: list[Link] = []
        if document.has("fallback"):
            reader.handling, reader.is_fallback = STOPS, True
            fallback = self.read_links(
                read_listed(document, "fallback") or [], "fallback", "fallback", reader
            )
            if FALLS_BACK not in {handling, *(link.handling for link in chain)}:
                document.problem(
                    "fallback",
                    "unused",
                    "The steps of `fallback` run only with `errorHandling: Fallback`.",
                )
        handlers = self.read_handlers(reader)
        check_between({name: link.step for name, link in self.links.items()}, handlers)
        problems = report.finish()
        if problems:
            return Compiled(None, problems=problems)
        nodes = connect(chain, fallback)
        return Compiled(Plan(nodes, timeout=timeout, on_failure=nodes_of(handlers)), triggers)

    def read_links(
        self, listed: list[Json], name: str, prefix: str, reader: StepReader
    ) -> list[Link]:
        document = self.document
        if len(listed) + len(self.links) > MAX_NODES:
            document.problem(name, "too_large", f"A workflow may have {MAX_NODES:,} steps.")
            return []
        links: list[Link] = []
        for index, fields in document.objects(listed, name, "A step"):
            link = reader.read(fields, index, f"{prefix}_{index}", self.links)
            links.append(link)
            self.links.setdefault(link.step.id, link)
        return links

    def read_handlers(self, reader: StepReader) -> dict[str, Step]:
        document = self.document
        value = decoded(document, "onFailure")
        if value is None:
            return {}
        if type(value) is list and len(value) > MAX_HANDLERS:
            message = f"`onFailure` may have {MAX_HANDLERS} actions."
            document.problem("onFailure", "too_large", message)
            return {}
        actions = document.objects(value, "onFailure", "An action")
        return reader.read_handlers(actions, self.links)


def read_listed(fields: Fields, name: str, *, required: bool = False) -> list[Json] | None:
    """An array, or text that holds one as JSON; None if it is none, which is reported."""
    value = decoded(fields, name)
    if value is None:
        if required and not fields.has(name):
            fields.problem(
                "", "missing_field", f"`{name}` is missing. At least one step is required."
            )
        return None
    if type(value) is not list:
        fields.problem(
            name,
            "wrong_type",
            f"`{name}` must be an array, or text that holds one as JSON, but it is "
            f"{kind_of(value)}.",
        )
        return None
    return value
