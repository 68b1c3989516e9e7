"""The config of `logic_approval`: who is asked what, how many decide, and what becomes of it.

* `title`, `description` and `data` (any JSON) are what people see; `form` is a JSON Schema that the
  data of whoever approves has to fit.
* `assignees`: an array of names of users, and of `group:<name>`; or one of these, or a template of
  either. Without it anybody may decide who has the scope `approvals:write`.
* `quorum`: `any` (the first to decide), `all`, or `{"at_least": n}`. `veto`: whether one rejection
  is enough; it is by default, unless the quorum is a number.
* `reminder`: `{"after", "every", "at_most"}`. `escalation`: `[{"after", "assignees"}]`, further
  people to ask. Times are durations since it was asked.
* `timeout_seconds`, here or at the node, and `on_timeout`: `fail`, `approve`, `reject` or `branch`
  (the port `timed_out`). `on_reject`: `fail` or `branch` (the port `rejected`). By default it is
  `branch` if something follows that port, else `fail`.
* `delegation` (false): whether those who are asked may hand over. `self_approval` (false): whether
  whoever started the run, or is named by `requester`, may decide.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jsonschema_rs
import msgspec

from permaflow.errors import EvaluationError
from permaflow.plan import Context, Json, Question
from specs.durations import DURATION_FORMS, LONGEST_SECONDS, parse_duration
from specs.reading import Fields, kind_of, shown
from specs.templates import Look, read_config, render

KIND = "approval"
PORTS = ("approved", "rejected", "timed_out")
GROUP = "group:"
MAX_PEOPLE = 200
MAX_NAME = 200
MAX_LEVELS = 10
MAX_REMINDERS = 100
MAX_TITLE = 500
MAX_TEXT = 20_000
MAX_FORM_BYTES = 64 * 1024
MAX_DATA_BYTES = 256 * 1024

ON_TIMEOUT = ("fail", "approve", "reject", "branch")
_FIELDS = frozenset(
    {
        "title",
        "description",
        "data",
        "form",
        "assignees",
        "quorum",
        "veto",
        "reminder",
        "escalation",
        "timeout_seconds",
        "on_timeout",
        "on_reject",
        "delegation",
        "self_approval",
        "requester",
    }
)
_WANTED = (
    "an array of names of users and of `group:<name>`, or a template such as `{{trigger.owners}}`"
)


@dataclass(frozen=True, slots=True)
class Asking:
    """Renders the terms of an approval. `texts` may hold expressions; `rules` are as they are."""

    texts: Json = field(default_factory=dict)
    rules: Mapping[str, Any] = field(default_factory=dict)
    on_reject: str | None = None
    on_timeout: str | None = None
    timeout: float | None = None
    knows_who_asks: bool = False
    """Whether the document says who the requester is."""

    def evaluate(self, context: Context) -> dict[str, Json]:
        """As `pipeline.core.approval.read_terms` wants them."""
        texts = render(self.texts, context)
        asked = texts.get("assignees")
        users, groups = _people(asked, "assignees") if "assignees" in texts else ([], [])
        levels = [
            {"after": after, **_level(people, index)}
            for index, (after, people) in enumerate(
                zip(self.rules["levels"], texts.get("escalation", ()), strict=True)
            )
        ]
        data = texts.get("data")
        if data is not None and len(msgspec.json.encode(data)) > MAX_DATA_BYTES:
            raise EvaluationError(
                f"The `data` of the approval is larger than {MAX_DATA_BYTES // 1024} KB; show only "
                "what people need to decide."
            )
        rest = {name: value for name, value in self.rules.items() if name != "levels"}
        return {
            **rest,
            "title": _text(texts, "title", MAX_TITLE),
            "description": _text(texts, "description", MAX_TEXT),
            "requester": _text(texts, "requester", MAX_NAME),
            "data": data,
            "users": users,
            "groups": groups,
            "to_all": "assignees" not in texts,
            "escalation": levels,
            "on_reject": self.on_reject or "fail",
            "timeout": self.timeout,
            "on_timeout": self.on_timeout or "fail",
        }


def _level(people: Json, index: int) -> dict[str, Json]:
    users, groups = _people(people, f"escalation/{index}/assignees")
    return {"users": users, "groups": groups}


def _text(texts: Mapping[str, Json], name: str, most: int) -> str:
    value = texts.get(name)
    if value is None:
        return ""
    text = value if type(value) is str else msgspec.json.encode(value).decode()
    if "\0" in text:
        raise EvaluationError(f"The `{name}` of the approval holds a NUL character.")
    if name == "requester" and len(text) > most:
        raise EvaluationError(f"`requester` may have {most} characters.")
    return text if len(text) <= most else text[: most - 1] + "…"


def _people(value: Json, name: str) -> tuple[list[str], list[str]]:
    """Users and groups. Raises `EvaluationError`: what cannot be read must not open the door."""
    given = value if type(value) is list else [value]
    users: dict[str, None] = {}
    groups: dict[str, None] = {}
    for each in given:
        match each:
            case str(text) if text.startswith(GROUP) and text.removeprefix(GROUP).strip():
                groups[text.removeprefix(GROUP).strip()] = None
            case str(text) if text.strip() and not text.startswith(GROUP):
                users[text.strip()] = None
            case {"user": str(text), **rest} if not rest and text.strip():
                users[text.strip()] = None
            case {"group": str(text), **rest} if not rest and text.strip():
                groups[text.strip()] = None
            case _:
                what = shown(each) if type(each) is str and each else kind_of(each)
                what = "an empty string" if each == "" else what
                raise EvaluationError(
                    f"`{name}` of the approval names nobody: {what}. Write {_WANTED}."
                )
    if not users and not groups:
        raise EvaluationError(f"`{name}` of the approval is empty: name somebody.")
    if len(users) + len(groups) > MAX_PEOPLE:
        raise EvaluationError(
            f"`{name}` of the approval may name {MAX_PEOPLE} users and groups; use a group."
        )
    for each in (*users, *groups):
        if len(each) > MAX_NAME or "\0" in each:
            raise EvaluationError(f"`{name}` of the approval holds a name that is none.")
    return list(users), list(groups)


# --- reading ------------------------------------------------------------------------------------


def read_approval(fields: Fields, look: Look) -> Question:
    """What follows its ports is settled later: `specs.approval_ports`."""
    fields.only(_FIELDS, {"label"})
    texts: dict[str, Json] = {}
    for name in ("title", "description", "requester"):
        if fields.text(name) is not None:
            texts[name] = fields.values[name]
    if "title" not in texts and fields.text("label"):
        texts["title"] = fields.values["label"]
    if fields.values.get("data") is not None:
        texts["data"] = fields.values["data"]
    if "assignees" in fields.values:
        _check_people(fields, "assignees")
        texts["assignees"] = fields.values["assignees"]
    levels = _escalation(fields, texts)
    need, veto = _quorum(fields)
    rules = {
        "form": _form(fields),
        "need": need,
        "veto": veto,
        "reminder": _reminder(fields),
        "levels": levels,
        "delegation": fields.flag("delegation", False),
        "self_approval": fields.flag("self_approval", False),
        "due": 0.0,  # those who are asked are to be told
    }
    timeout = fields.number("timeout_seconds", 0.001, LONGEST_SECONDS)
    on_reject = fields.choice("on_reject", ("fail", "branch"), "") or None
    on_timeout = fields.choice("on_timeout", ON_TIMEOUT, "") or None
    compiled = read_config(texts, fields.pointer, fields.report, look)
    knows = "requester" in texts
    return Question(KIND, Asking(compiled, rules, on_reject, on_timeout, timeout, knows))


def _check_people(fields: Fields, name: str) -> None:
    """What needs no run to be seen wrong."""
    value = fields.values[name]
    given = value if type(value) is list else [value]
    if any(type(each) is str and "{{" in each for each in given):
        given = [each for each in given if not (type(each) is str and "{{" in each)]
        if not given:
            return
    try:
        _people(given, name)
    except EvaluationError as error:
        fields.problem(name, "bad_value", str(error))


def _escalation(fields: Fields, texts: dict[str, Json]) -> list[float]:
    """When each level is reached; whom it asks goes to `texts`."""
    values = fields.array("escalation")
    if len(values) > MAX_LEVELS:
        fields.problem("escalation", "too_large", f"There may be {MAX_LEVELS} levels.")
        return []
    found: list[float] = []
    people: list[Json] = []
    for index, value in enumerate(values):
        place = f"{fields.at('escalation')}/{index}"
        if type(value) is not dict:
            message = f"A level is `{{after, assignees}}`, but this is {kind_of(value)}."
            fields.report.add(place, "wrong_type", message)
            continue
        level = Fields(value, place, fields.report)
        level.only({"after", "assignees"})
        after = _duration(level, "after", required=True)
        if "assignees" not in value:
            level.missing("assignees", _WANTED)
            continue
        _check_people(level, "assignees")
        if after is not None and found and after < found[-1]:
            level.problem("after", "out_of_range", "Levels come in the order of their times.")
        found.append(after or 0.0)
        people.append(value["assignees"])
    if found:
        if "assignees" not in texts:
            fields.problem(
                "escalation", "conflict", "Without `assignees` anybody may decide; name some first."
            )
        texts["escalation"] = people
    return found


def _reminder(fields: Fields) -> dict[str, Json] | None:
    if not fields.has("reminder"):
        return None
    inner = Fields(fields.object("reminder"), fields.at("reminder"), fields.report)
    inner.only({"after", "every", "at_most"})
    every = _duration(inner, "every")
    after = _duration(inner, "after", required=every is None)
    if every is not None and every < 1:
        inner.problem("every", "out_of_range", "Reminders are a second apart at least.")
        every = None
    at_most = inner.whole("at_most", 1, MAX_REMINDERS, MAX_REMINDERS if every else 1)
    return {
        "after": every or 0.0 if after is None else after,
        "every": every,
        "at_most": at_most,
    }


def _duration(fields: Fields, name: str, *, required: bool = False) -> float | None:
    if not fields.has(name):
        if required:
            fields.missing(name, DURATION_FORMS)
        return None
    seconds = parse_duration(fields.values[name])
    if seconds is None:
        fields.problem(name, "bad_value", f"`{name}` must be {DURATION_FORMS}.")
    return seconds


def _quorum(fields: Fields) -> tuple[int | None, bool]:
    """How many have to approve (None: all), and whether one rejection is enough."""
    value = fields.values.get("quorum")
    need: int | None = 1
    counted = False
    match value:
        case None | "any":
            pass
        case "all":
            need = None
        case int(count) | {"at_least": int(count)} if type(count) is int and count >= 1:
            need, counted = count, True
        case _:
            fields.problem(
                "quorum",
                "bad_value",
                '`quorum` must be `"any"`, `"all"` or `{"at_least": n}` with a whole number '
                "from 1.",
            )
    named = fields.values.get("assignees")
    if need is None and named is None:
        fields.problem(
            "quorum", "conflict", "`all` needs `assignees`: without them it is nobody knows who."
        )
    if need is not None and need > 1 and type(named) is list and not fields.has("escalation"):
        sure = [n for n in named if type(n) is str and "{{" not in n and not n.startswith(GROUP)]
        if len(sure) == len(named) and len(set(sure)) < need:
            fields.problem(
                "quorum",
                "never_satisfied",
                f"{need} have to approve, but only {len(set(sure))} are asked.",
            )
    return need, fields.flag("veto", not counted)


def _form(fields: Fields) -> Json:
    schema = fields.values.get("form")
    if schema is None:
        return None
    if type(schema) is not dict:
        fields.wrong("form", "a JSON Schema of an object")
        return None
    if len(msgspec.json.encode(schema)) > MAX_FORM_BYTES:
        fields.problem("form", "too_large", f"A form may have {MAX_FORM_BYTES // 1024} KB.")
        return None
    try:
        jsonschema_rs.validator_for(
            schema, offline=True, pattern_options=jsonschema_rs.RegexOptions()
        )
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        reason = str(error).splitlines()[0]
        fields.problem("form", "bad_schema", f"This is no JSON Schema: {reason[:300]}.")
    return schema
