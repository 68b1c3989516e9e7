"""The dag dialect: `{"dag": {"entrypoint": …, "exitpoints": […], "tasks": […]}}`.

* A block: `name`, `type`, `arguments` (an array of objects with one member each, which together
  are its config), `depends`, and optionally `on_error`, `retry`, `timeout` (seconds),
  `max_visits`, `ports`, `parent`, `on_unknown` and `compensate` (see `specs.undoing`). `status`
  and `updated_at` are accepted, and say nothing before a run.
* `type` is the name of a task type, or what follows its family, in capitals: `HTTP` stands for
  `action_http`, `FUNCTION` for `code_function`, `LOOP` for `logic_loop`.
* `depends`: see `specs.depends`. The entrypoint depends on nothing, every other block on
  something. A failure is an outcome that others may depend on, and by itself stops nothing.
* `parent` puts a block into the body of a loop; there, blocks that depend on nothing start.
* `triggers`, beside `dag`, is an array of `{"type": "trigger_record", "config": {…}}`; an `id` may
  name one (otherwise it is `trigger_1`, `trigger_2` …). They are no nodes of the plan.
* `on_failure`, beside `dag`, holds tasks that run when a run fails: see `specs.undoing`.
* A run is completed if an exitpoint succeeded.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from permaflow.plan import ROOT, Compiled, Json, Plan, TaskTypes, TriggerSpec
from specs.blocks import read_arguments, read_block, task_type
from specs.dependencies import Dependencies
from specs.documents import Reader, Step, check_between, place_in_loops, read_document, read_id
from specs.json_limits import MAX_NODES, MAX_TRIGGERS
from specs.options import read_timeout
from specs.reading import Fields, Report, kind_of, shown
from specs.triggers import KINDS, read_trigger
from specs.undoing import Undoing, nodes_of

_DOCUMENT = frozenset(
    {"dag", "triggers", "version", "timeout_seconds", "on_failure", "name", "description"}
)
_DOCUMENT_EXTRAS = frozenset({"id", "metadata", "$schema"})
_DAG = frozenset({"entrypoint", "exitpoints", "tasks"})


class DagDialect:
    """Implements `permaflow.plan.Dialect`."""

    name: str = "dag"

    def recognises(self, document: Json) -> bool:
        return type(document) is dict and "dag" in document

    def compile(self, document: Json, types: TaskTypes) -> Compiled:
        return read_document(document, lambda fields: _Dag(fields, types).compile())


@dataclass(slots=True)
class _Dag:
    document: Fields
    types: TaskTypes
    steps: dict[str, Step] = field(default_factory=dict)

    def compile(self) -> Compiled:
        document, report = self.document, self.document.report
        document.only(_DOCUMENT, _DOCUMENT_EXTRAS)
        if document.values.get("version") not in (None, 1):
            document.problem("version", "bad_value", "The version of dags is 1.")
        timeout = read_timeout(document, "timeout_seconds")
        dag = Fields(document.object("dag", required=True), document.at("dag"), report)
        if type(document.values.get("dag")) is not dict:
            return Compiled(None, problems=report.finish())
        dag.only(_DAG)
        reader = Reader(self.types, report)
        undoing = Undoing(
            reader,
            "timeout",
            "arguments",
            "name",
            read_arguments,
            lambda name: task_type(name, reader.known),
        )
        self.read_tasks(dag, reader, undoing)
        handlers = undoing.of_document(document, self.steps)
        place_in_loops(self.steps, "block", "parent")
        entry = dag.text("entrypoint", required=True)
        if entry is not None and not self.is_root_block(entry, dag.at("entrypoint"), report):
            entry = None
        exits = self.read_exits(dag)
        whens = Dependencies(self.steps, entry, report).connect()
        check_between(self.steps, handlers)
        triggers = self.read_triggers()
        problems = report.finish()
        if problems:
            return Compiled(None, problems=problems)
        nodes = {name: step.node(whens[name]) for name, step in self.steps.items()}
        plan = Plan(nodes, exits=exits, timeout=timeout, on_failure=nodes_of(handlers))
        return Compiled(plan, triggers)

    def read_tasks(self, dag: Fields, reader: Reader, undoing: Undoing) -> None:
        tasks = dag.array("tasks", required=True)
        if len(tasks) > MAX_NODES:
            dag.problem("tasks", "too_large", f"A dag may have {MAX_NODES:,} tasks.")
            return
        if not tasks and type(dag.values.get("tasks")) is list:
            dag.problem("tasks", "empty", "A dag needs at least one task.")
        for index, fields in dag.objects(tasks, "tasks", "A block"):
            step = read_block(fields, index, reader)
            undoing.of_step(step)
            if step.id in self.steps:
                first = self.steps[step.id].index
                message = f"{shown(step.id)} is also the name of task {first}; rename one."
                step.problem("name", "duplicate", message)
            elif step.id:
                self.steps[step.id] = step

    def read_exits(self, dag: Fields) -> tuple[str, ...]:
        names = dag.array("exitpoints", required=True)
        if not names and type(dag.values.get("exitpoints")) is list:
            dag.problem(
                "exitpoints", "empty", "Name at least one block whose success completes the run."
            )
        exits: dict[str, None] = {}
        for index, name in enumerate(names):
            place = f"{dag.at('exitpoints')}/{index}"
            if type(name) is not str:
                message = f"An exitpoint is the name of a block, but this is {kind_of(name)}."
                dag.report.add(place, "wrong_type", message)
            elif name in exits:
                message = f"{shown(name)} is named twice; remove one."
                dag.report.add(place, "duplicate", message)
            elif self.is_root_block(name, place, dag.report):
                exits[name] = None
        return tuple(exits)

    def is_root_block(self, name: str, place: str, report: Report) -> bool:
        step = self.steps.get(name)
        if step is None:
            message = f"There is no block {shown(name)}; {report.guess(name, self.steps)}"
            report.add(place, "unknown_step", f"{message}name a block of `tasks`.")
        elif step.scope != ROOT:
            message = f"{shown(name)} is in the body of a loop; name the loop, or another block."
            report.add(place, "crosses_loop", message)
        return step is not None and step.scope == ROOT

    def read_triggers(self) -> tuple[TriggerSpec, ...]:
        document = self.document
        values = document.array("triggers")
        if len(values) > MAX_TRIGGERS:
            message = f"A workflow may have {MAX_TRIGGERS} triggers."
            document.problem("triggers", "too_large", message)
            return ()
        triggers: dict[str, TriggerSpec] = {}
        for index, fields in document.objects(values, "triggers", "A trigger"):
            fields.only({"id", "type", "config"}, {"name", "description", "label"})
            name = read_id(fields, "id") if fields.has("id") else f"trigger_{index + 1}"
            kind = fields.text("type", required=True)
            config = fields.object("config")
            if name is None or kind is None:
                continue
            if kind not in KINDS:
                message = f"There is no trigger {shown(kind)}; {fields.report.guess(kind, KINDS)}"
                known = ", ".join(KINDS)
                fields.problem("type", "unknown_type", f"{message}the triggers are {known}.")
            elif name in triggers or name in self.steps:
                message = f"{shown(name)} is the name of another trigger or block; rename one."
                fields.problem("id", "duplicate", message)
            else:
                at = fields.at("config")
                triggers[name] = read_trigger(kind, name, config, at, document.report)
        return tuple(triggers.values())
