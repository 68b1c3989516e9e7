"""One step of the steps dialect."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from permaflow.plan import Compensation, Expression, Json, OnUnknown, Retry, Task
from specs.branching import read_expression
from specs.documents import Reader, Step, read_id
from specs.expressions import Names, Truth, read_formula
from specs.reading import Fields, shown
from specs.steps.actions import (
    NOT_IN_A_ROW,
    RECORD,
    Action,
    check_verb,
    place_of,
    read_action,
    record_config,
)
from specs.steps.events import TRIGGER
from specs.steps.mapping import Earlier, Mapper, names_for
from specs.steps.options import read_milliseconds, read_retry_policy
from specs.steps.sequence import (
    HANDLING,
    OWN_RETRY,
    TURN,
    Both,
    Link,
    flag_lookup,
    gate,
    take_turn,
    turn_of,
)
from specs.triggers import KINDS
from specs.work import unknown_type

USERS = "User"
"""The object whose records take turns where no assignees are named."""

_STEP = frozenset(
    {
        "id",
        "name",
        "description",
        "action",
        "mapping",
        "when",
        "flag",
        "assignees",
        "retryPolicy",
        "errorHandling",
        "timeout",
        "compensate",
        "onUnknown",
    }
)
_ALONE = frozenset({"action", "mapping", "retryPolicy", "timeout", "name", "description"})
"""Of an action that undoes a step, or tells of a failure: nothing gates it."""


@dataclass(slots=True)
class StepReader:
    """Reads steps in their order; `retry` and `handling` are what holds unless a step says more."""

    reader: Reader
    noun: str
    rotation: str
    assignees: Json
    retry: Retry
    handling: str
    is_fallback: bool = False
    earlier: dict[str, Earlier] = field(default_factory=dict)
    """The steps so far, by number and by id."""
    last: dict[str, str] = field(default_factory=dict)
    """Noun → the id of the last step on it."""
    roots: set[str] = field(default_factory=set)
    """The nouns in lower case."""

    def __post_init__(self) -> None:
        self.reader.names = names_for(self.noun, self.earlier)

    def read(self, fields: Fields, index: int, default_id: str, links: Mapping[str, Link]) -> Link:
        """A step with problems is read to its end, so that all of them are told at once."""
        fields.only(_STEP, {"label", "metadata", "$id"})
        name = self._id(fields, default_id, links)
        step = Step(name, "", index, fields)
        step.retry = read_retry_policy(fields, self.retry)
        step.timeout = read_milliseconds(fields, "timeout")
        link = Link(step, fields.choice("errorHandling", HANDLING, self.handling))
        self._gates(fields, link, self.reader.names)
        action = self._work(step, link)
        made = Earlier(name, action is not None)
        self.earlier.setdefault(name, made)
        # The fallback steps are not numbered: `step.0` is the first of `steps`.
        if not self.is_fallback:
            self.earlier[str(index)] = made
        if action is not None:
            self.last[action.noun] = name
            self.roots.add(action.noun.lower())
        if fields.has("onUnknown"):
            chosen = fields.choice("onUnknown", [str(each) for each in OnUnknown], "retry")
            step.on_unknown = OnUnknown(chosen)
        if fields.has("compensate"):
            self._compensation(step)
        return link

    def _compensation(self, step: Step) -> None:
        """What undoes the step: an action, whose mapping sees the step as well."""
        outer = step.fields
        undo = outer.object("compensate")
        if type(outer.values["compensate"]) is not dict:
            return
        fields = Fields(undo, outer.at("compensate"), outer.report)
        fields.only(_ALONE | {"whenUnknown"})
        task = Step(step.id, "", step.index, fields)
        self._alone(task, "compensate")
        step.paths += task.paths
        if isinstance(task.work, Task):
            unknown = fields.flag("whenUnknown", True)
            step.compensation = Compensation(
                task.type, task.work, task.retry, task.timeout, unknown
            )

    def read_handlers(
        self, actions: Iterable[tuple[int, Fields]], links: Mapping[str, Link]
    ) -> dict[str, Step]:
        """The actions of `onFailure`, by id, in their order. Nobody knows which steps have been, so
        none of them says which record is meant.
        """
        self.last.clear()
        found: dict[str, Step] = {}
        for index, fields in actions:
            fields.only(_ALONE | {"id"})
            default = f"on_failure_{index + 1}"
            name = self._id(fields, default, {*links, *found})
            task = found[name] = Step(name, "", index, fields)
            action = self._alone(task, "onFailure")
            self.earlier.setdefault(name, Earlier(name, action is not None))
            if action is not None:
                self.last[action.noun] = name
        return found

    def _alone(self, task: Step, member: str) -> Action | None:
        """Reads an action that is tried again by itself, and for which nothing is looked up."""
        fields = task.fields
        task.retry = read_retry_policy(fields, OWN_RETRY)
        task.timeout = read_milliseconds(fields, "timeout")
        link = Link(task, self.handling)
        action = self._work(task, link)
        if link.before:
            fields.problem("mapping", "bad_value", f"`round-robin` has no place in `{member}`.")
        if task.type and not isinstance(task.work, Task):
            message = f"{shown(task.type)} has no place in `{member}`; name a task."
            fields.problem("action", "bad_type", message)
        return action

    def _id(self, fields: Fields, default: str, taken: Collection[str]) -> str:
        given = read_id(fields, "id") if fields.has("id") else None
        if given is not None and ":" in given:
            fields.problem("id", "bad_id", "The id of a step has no colon; nodes of its own have.")
            given = None
        if given is not None and (given in taken or given == TRIGGER):
            fields.problem("id", "duplicate", f"{shown(given)} is taken; every step needs its own.")
            given = None
        return given or (default if default not in taken else f"{default}_{fields.pointer[-1]}")

    def _work(self, step: Step, link: Link) -> Action | None:
        fields = step.fields
        text = fields.text("action", required=True)
        mapping = fields.object("mapping")
        if text is None:
            return None
        mapper = Mapper(
            self.reader.names,
            fields.report,
            turn_of(step.id),
            self.roots,
        )
        kept = self._verbatim(text, mapping)
        asked = {name: value for name, value in mapping.items() if name not in kept}
        mapped = {**mapper.config(asked, fields.at("mapping")), **kept}
        action = None if text in self.reader.known else read_action(text)
        if action is not None:
            self._record(step, action, mapped)
        elif text in KINDS or text in NOT_IN_A_ROW:
            fields.problem(
                "action",
                "bad_type",
                f"{shown(text)} has no place in a row of steps; use `when` for a condition, or "
                "write the workflow as a graph.",
            )
        elif text not in self.reader.known:
            fields.problem(
                "action",
                "unknown_type",
                f"{unknown_type(text, self.reader.known, fields.report)} Or write a noun and a "
                "verb, as in `Customer.create`.",
            )
        else:
            step.type = text
            at = fields.at("mapping")
            self.reader.fill(step, mapped, lambda pointer: at + pointer, fields.at("action"))
        if mapper.takes_turns:
            self._take_turns(fields, link)
        elif fields.has("assignees"):
            message = "`assignees` is for a mapping with `round-robin`; there is none here."
            fields.problem("assignees", "unused", message)
        return action

    def _verbatim(self, type_name: str, mapping: dict[str, Json]) -> dict[str, Json]:
        """What the task type takes as it stands: nothing is looked up in it."""
        names = self.reader.types.verbatim(type_name)
        return {name: value for name, value in mapping.items() if name in names}

    def _take_turns(self, fields: Fields, link: Link) -> None:
        own = fields.values.get("assignees")
        among = self.assignees if own is None else own
        if among is None:
            among = USERS
        if (type(among) is not list and type(among) is not str) or not among:
            fields.problem(
                "assignees",
                "bad_value",
                "`assignees` must be an array of those who take turns, or the name of an object "
                "whose records do.",
            )
            return
        step = link.step
        step.paths = [each for each in step.paths if each[0].segments[1:2] != (f"{step.id}:turn",)]
        link.before.append(
            take_turn(step.id, self.rotation[:300], among, self._stage(TURN, fields, "mapping"))
        )

    def _record(self, step: Step, action: Action, mapped: dict[str, Json]) -> None:
        fields = step.fields
        check_verb(action, fields)
        config = record_config(action, mapped, self.last, self.noun)
        if action.operation == "update" and not config["data"]:
            fields.problem(
                "mapping", "empty", f"`{action.verb}` sets nothing; name fields in `mapping`."
            )
        step.type = RECORD
        pointer = fields.pointer
        self.reader.fill(
            step,
            config,
            lambda inner: pointer + place_of(inner, config, mapped),
            fields.at("action"),
        )

    def _gates(self, fields: Fields, link: Link, names: Names) -> None:
        """`flag` and `when`: what decides whether the step runs at all."""
        tests: list[Expression] = []
        flag = fields.text("flag")
        if flag is not None:
            if not flag:
                fields.problem("flag", "empty", "`flag` must not be empty.")
            before, on = flag_lookup(link.step.id, flag, self._stage(RECORD, fields, "flag"))
            link.before.append(before)
            tests.append(on)
        condition = fields.values.get("when")
        if condition is not None:
            read = self._condition(condition, fields, link.step, names)
            if read is not None:
                tests.append(read)
        if tests:
            test = tests[0] if len(tests) == 1 else Both(*tests)
            link.before.append(gate(link.step.id, test))

    def _condition(
        self, value: Json, fields: Fields, step: Step, names: Names
    ) -> Expression | None:
        if type(value) is str and "{{" not in value:
            formula = read_formula(value, fields.at("when"), fields.report, step.see, names)
            return None if formula is None else Truth(formula)
        return read_expression(value, fields.at("when"), fields.report, step.see)

    def _stage(self, name: str, fields: Fields, member: str) -> str:
        if name in self.reader.known:
            return self.reader.types.stage(name)
        message = unknown_type(name, self.reader.known, fields.report)
        fields.problem(member, "unknown_type", f"`{member}` needs a task type. {message}")
        return ""
