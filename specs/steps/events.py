"""The `triggerEvent` of the steps dialect: `Deal.won` to the triggers that it stands for."""

from __future__ import annotations

import re

from permaflow.changes import CREATED, EVENTS, UPDATED
from permaflow.plan import Condition, TriggerSpec
from specs.conditions import read_condition
from specs.reading import Fields, shown
from specs.steps.mapping import EVENT
from specs.triggers import MAX_CONDITIONS

TRIGGER = "trigger"
FIELDS = ("status", "stage")
"""Where a verb such as `won` is looked for, unless `triggerField` names another field."""

_EVENT = re.compile(r"((?:[\w-]{1,100}\.)?\w{1,100})\.([^\W\d_]\w{0,99})")


def read_event(document: Fields) -> tuple[str, tuple[TriggerSpec, ...]]:
    """The noun (an object), and the triggers."""
    text = document.text("triggerEvent")
    extra = _conditions(document)
    wanted = document.text("triggerField")
    if not text:
        if not document.has("triggerEvent") or text == "":
            document.problem(
                "",
                "missing_field",
                "`triggerEvent` is missing. Trigger event must be defined before activation, as in "
                "`Deal.won` or `Contact.created`.",
            )
        return "", ()
    match = _EVENT.fullmatch(text)
    if match is None:
        document.problem(
            "triggerEvent",
            "bad_event",
            f"{shown(text)} is no event; write a noun and what happened to it, as in `Deal.won` or "
            "`Contact.created`.",
        )
        return "", ()
    noun, verb = match.groups()
    if verb.lower() in EVENTS:
        if wanted is not None:
            message = f"`triggerField` is for verbs other than {', '.join(sorted(EVENTS))}."
            document.problem("triggerField", "bad_value", message)
        events = frozenset({verb.lower()})
        return noun, (TriggerSpec(TRIGGER, "record", noun, events, extra),)
    words = list(dict.fromkeys((verb, verb.lower(), verb[:1].upper() + verb[1:], verb.upper())))
    return noun, _changes(text, noun, words, FIELDS if wanted is None else (wanted,), extra)


def _changes(
    text: str,
    noun: str,
    words: list[str],
    fields: tuple[str, ...],
    extra: tuple[Condition, ...],
) -> tuple[TriggerSpec, ...]:
    """A change to the word for each field, and the event of that name. A change of two fields at
    once is one event: the later field counts only where the earlier does not have the word."""
    triggers: list[TriggerSpec] = []
    others: tuple[Condition, ...] = ()
    for field in fields:
        path = tuple(field.split("."))
        is_word = Condition(path, "in", words)
        conditions = (is_word, Condition(path, "changed"), *others, *extra)
        node = TRIGGER if not triggers else f"{TRIGGER}:{field}"
        triggers.append(
            TriggerSpec(node, "record", noun, frozenset({CREATED, UPDATED}), conditions)
        )
        others = (*others, Condition(path, "not_in", words))
    named = Condition(("type",), "eq", text)
    about = tuple(Condition(("data", *each.field), each.op, each.value) for each in extra)
    triggers.append(
        TriggerSpec(f"{TRIGGER}:event", "record", EVENT, frozenset({CREATED}), (named, *about))
    )
    return tuple(triggers)


def _conditions(document: Fields) -> tuple[Condition, ...]:
    values = document.array("conditions")
    if len(values) > MAX_CONDITIONS:
        document.problem("conditions", "too_large", f"At most {MAX_CONDITIONS} are allowed.")
        return ()
    found = (
        read_condition(value, f"{document.at('conditions')}/{index}", document.report)
        for index, value in enumerate(values)
    )
    return tuple(condition for condition in found if condition is not None)
