"""Actions of the steps dialect: `Customer.create` to a task and its config.

`Noun.verb` works on a built-in record of the object of that name. `create`, `get`, `update` and
`delete` are what they say. Any other verb (`assign`, `qualify`) sets the fields that the mapping
names, as `update` does. Which record `get`, `update`, `delete` and the others mean, is said by `id`
(or `$id`) in the mapping; without it, it is

1. that of the last step before on the same noun, else
2. the record that started the run, if it is of that noun, else
3. the one that the field of that name refers to: `Contact` in a run of a `Lead` is `lead.contact`,
   an id or an object with one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from permaflow.plan import Json
from specs.reading import Fields, shown
from specs.steps.mapping import noun_root, template

RECORD = "action_record"
VERBS = {
    "create": "create",
    "get": "get",
    "read": "get",
    "find": "get",
    "update": "update",
    "set": "update",
    "delete": "delete",
    "remove": "delete",
}
OPERATIONS = ("create", "get", "update", "delete")
NOT_IN_A_ROW = frozenset(
    {"logic_condition", "logic_switch", "logic_loop", "logic_parallel", "logic_join", "meta_error"}
)
"""Types that make sense only where ways part and meet."""

_ACTION = re.compile(r"([A-Z]\w{0,199})\.([a-z]\w{0,99})", re.ASCII)
_ID = ("$id", "id")


@dataclass(frozen=True, slots=True)
class Action:
    """`noun` and `verb` of an action on a record."""

    noun: str
    verb: str

    @property
    def operation(self) -> str:
        return VERBS.get(self.verb, "update")


def read_action(text: str) -> Action | None:
    """None if it is not of the form `Noun.verb`."""
    match = _ACTION.fullmatch(text)
    return Action(*match.groups()) if match else None


def check_verb(action: Action, fields: Fields) -> None:
    """A verb that is nearly one of the four is a slip, not another verb."""
    if action.verb in VERBS:
        return
    near = difflib.get_close_matches(action.verb, OPERATIONS, n=1, cutoff=0.8)
    if near:
        fields.problem(
            "action",
            "bad_value",
            f"{shown(action.verb)} is nearly a known verb; did you mean `{near[0]}`? "
            "A verb of your own needs another name.",
        )


def record_config(
    action: Action, mapping: dict[str, Json], last: Mapping[str, str], trigger_noun: str
) -> dict[str, Json]:
    """The config of `action_record`. `last` has the last step on each noun."""
    given = next((mapping[name] for name in _ID if name in mapping), None)
    data = {name: value for name, value in mapping.items() if name not in _ID}
    config: dict[str, Json] = {"operation": action.operation, "object": action.noun}
    if action.operation == "create":
        if given is not None:
            config["id"] = given
        return {**config, "data": data}
    config["id"] = _meant(action.noun, last, trigger_noun) if given is None else given
    return {**config, "data": data} if action.operation == "update" else config


def _meant(noun: str, last: Mapping[str, str], trigger_noun: str) -> str:
    if noun in last:
        return template(f'step["{last[noun]}"].$id')
    if noun == trigger_noun:
        return template("record.$id")
    field = f"record.{noun_root(noun)}"
    return template(f"has({field}.$id) ? {field}.$id : has({field}.id) ? {field}.id : {field}")


def place_of(pointer: str, config: dict[str, Json], mapping: dict[str, Json]) -> str:
    """Where a part of the config of `record_config` stands in its step."""
    if pointer.startswith("/data"):
        return f"/mapping{pointer[5:]}"
    if pointer.startswith("/id"):
        name = next((name for name in _ID if name in mapping), None)
        return "/action" if name is None else f"/mapping/{name}{pointer[3:]}"
    return "/action"
