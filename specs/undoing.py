"""What undoes a step, and what runs when a run fails.

* `compensate` of a step: `type` and `config` of a task, and optionally `retry`, a timeout by the
  name that the dialect gives it, and `when_unknown` (true): whether it runs, too, when nobody knows
  what an attempt of the step did. Its templates see what the step sees, and the step's output.
* `on_failure` of a document: one such task, or an array of them, which may have names (otherwise
  they are `on_failure_1`, `on_failure_2` …). They run in order, and see `error` and all steps.
* `on_unknown` of a step: `retry` (the default), `fail` or `ask`; see `permaflow.plan.OnUnknown`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from permaflow.plan import ROOT, Compensation, Json, Node, OnUnknown, Question, Task
from specs.documents import Place, Reader, Step, read_id
from specs.options import read_retry, read_timeout
from specs.reading import Fields, shown
from specs.triggers import KINDS
from specs.work import INLINE

MAX_HANDLERS = 20

Config = Callable[[Fields], tuple[Json, Place]]
"""How the dialect writes the config of a task, and where its parts stand."""


def plain_config(fields: Fields) -> tuple[Json, Place]:
    """`config`, as it is."""
    at = fields.at("config")
    config = fields.values.get("config")
    return ({} if config is None else config), lambda pointer: at + pointer


class Undoing:
    """Reads them for one dialect; `name_type` gives the task type that a type stands for."""

    def __init__(
        self,
        reader: Reader,
        timeout: str,
        config: str = "config",
        name: str = "id",
        read_config: Config = plain_config,
        name_type: Callable[[str], str] = str,
    ) -> None:
        self._reader = reader
        self._timeout = timeout
        self._name = name
        self._known = frozenset({"type", config, "retry", timeout})
        self._read_config = read_config
        self._name_type = name_type

    def of_step(self, step: Step) -> None:
        """Reads `compensate` and `on_unknown` into a step whose work is known."""
        fields = step.fields
        if fields.has("on_unknown"):
            chosen = fields.choice("on_unknown", [str(each) for each in OnUnknown], "retry")
            step.on_unknown = OnUnknown(chosen)
            if step.type in INLINE or step.type in KINDS:
                fields.problem(
                    "on_unknown", "bad_value", "Only tasks have `on_unknown`; remove it."
                )
        if not fields.has("compensate"):
            return
        if step.type in KINDS or (step.type in INLINE and not isinstance(step.work, Question)):
            message = (
                f"A step of type {shown(step.type)} does nothing that could be undone; remove "
                "`compensate`, or put it at the tasks."
            )
            fields.problem("compensate", "bad_value", message)
            return
        undo = fields.object("compensate")
        if type(fields.values["compensate"]) is not dict:
            return
        inner = Fields(undo, fields.at("compensate"), fields.report)
        inner.only(self._known | {"when_unknown"}, {"description"})
        task = self._task(Step(step.id, "", step.index, inner, scope=step.scope))
        step.paths += task.paths
        if isinstance(task.work, Task):
            step.compensation = Compensation(
                task.type, task.work, task.retry, task.timeout, inner.flag("when_unknown", True)
            )

    def of_document(self, document: Fields, steps: Mapping[str, Step]) -> dict[str, Step]:
        """Reads `on_failure`: the tasks by id, in order."""
        value = document.values.get("on_failure")
        if value is None:
            return {}
        if type(value) is list and len(value) > MAX_HANDLERS:
            message = f"`on_failure` may have {MAX_HANDLERS} tasks."
            document.problem("on_failure", "too_large", message)
            return {}
        found: dict[str, Step] = {}
        for index, fields in document.objects(value, "on_failure", "A task"):
            fields.only(self._known | {self._name}, {"name", "description"})
            key = self._name
            name = read_id(fields, key) if fields.has(key) else f"on_failure_{index + 1}"
            task = self._task(Step(name or "", "", index, fields))
            if name is None:
                continue
            if name in steps or name in found:
                message = f"{shown(name)} is the name of another step; every one needs its own."
                fields.problem(self._name, "duplicate", message)
            else:
                found[name] = task
        return found

    def _task(self, task: Step) -> Step:
        fields = task.fields
        written = fields.text("type", required=True)
        task.timeout = read_timeout(fields, self._timeout)
        if fields.has("retry"):
            task.retry = read_retry(fields)
        if written is None:
            return task
        task.type = self._name_type(written)
        if task.type in INLINE or task.type in KINDS:
            message = f"{shown(written)} is no task; only tasks can undo steps or tell of failures."
            fields.problem("type", "bad_type", message)
            return task
        config, place = self._read_config(fields)
        self._reader.fill(task, config, place, fields.at("type"))
        return task


def nodes_of(handlers: Mapping[str, Step]) -> tuple[Node, ...]:
    """The nodes of `on_failure`; of use only without problems."""
    return tuple(
        Node(task.id, task.type, task.work, scope=ROOT, retry=task.retry, timeout=task.timeout)
        for task in handlers.values()
    )
