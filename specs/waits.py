"""The config of a `logic_delay` that waits until a field of a record meets a condition.

::

    {"until_field": {"object": "orders", "record_id": "{{trigger.record.id}}",
                     "field": "status", "op": "eq", "value": "paid"},
     "timeout_seconds": 86400, "on_timeout": "branch"}

* In place of `field`, `op` and `value` there may be `conditions`, all of which must hold. They are
  those of triggers; their values may be templates.
* Without `object` and `record_id` it is the resource of the run: the record whose change started
  it. An `object` is fixed, a `record_id` may be a template.
* `on_timeout`: `fail`, or `branch`: through the port `timed_out`. By default it is `branch` if
  something follows that port. Otherwise it is left through `met`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from permaflow.errors import EvaluationError
from permaflow.plan import Condition, Context, Json, Question
from specs.comparing import value_fault
from specs.conditions import read_condition
from specs.durations import LONGEST_SECONDS
from specs.reading import Fields, kind_of
from specs.templates import Look, read_config, render
from specs.triggers import MAX_CONDITIONS

KIND = "change"
MET, TIMED_OUT = "met", "timed_out"
PORTS = (MET, TIMED_OUT)

_NOTES = frozenset({"label", "description"})
_WAIT = frozenset({"object", "record_id", "field", "op", "value", "conditions"})


@dataclass(frozen=True, slots=True)
class Conditions:
    """Conditions whose values may be templates, as they are kept: `[{"field", "op", "value"}]`."""

    parts: tuple[Condition, ...]

    def evaluate(self, context: Context) -> list[dict[str, Json]]:
        return [self._one(part, context) for part in self.parts]

    def _one(self, part: Condition, context: Context) -> dict[str, Json]:
        value = render(part.value, context)
        if (wanted := value_fault(part.op, value)) is not None:
            raise EvaluationError(
                f"`{'.'.join(part.field)}` is to be compared by `{part.op}` with {kind_of(value)}; "
                f"the value must be {wanted}."
            )
        return {"field": list(part.field), "op": part.op, "value": value}


def read_wait(fields: Fields, look: Look) -> Question:
    """A question to the changes of a record. `timeout_of` reads the timeout."""
    fields.only({"until_field", "timeout_seconds", "on_timeout"}, _NOTES)
    wait = Fields(fields.object("until_field"), fields.at("until_field"), fields.report)
    wait.only(_WAIT)
    config: dict[str, Json] = {
        "object": _object(wait),
        "record_id": _record_id(wait, look),
        "conditions": _conditions(wait, look),
    }
    config["on_timeout"] = fields.choice("on_timeout", ("fail", "branch"), "")
    return Question(KIND, config, TIMED_OUT if config["on_timeout"] == "branch" else None)


def timeout_of(fields: Fields) -> timedelta | None:
    """How long it waits at most, if the config says so."""
    seconds = fields.number("timeout_seconds", 0.001, LONGEST_SECONDS)
    return None if seconds is None else timedelta(seconds=seconds)


def _object(wait: Fields) -> str | None:
    name = wait.text("object")
    if name is not None and ("{{" in name or not name.strip()):
        wait.problem("object", "bad_value", "`object` is the fixed name of a table or an object.")
    return name


def _record_id(wait: Fields, look: Look) -> Json:
    value = wait.values.get("record_id")
    if value is not None and type(value) not in (str, int):
        wait.wrong("record_id", "a string, a whole number or a template")
        return None
    return read_config(value, wait.at("record_id"), wait.report, look)


def _conditions(wait: Fields, look: Look) -> Conditions:
    single = {name: wait.values[name] for name in ("field", "op", "value") if name in wait.values}
    values: list[tuple[Json, str]] = []
    if wait.has("conditions"):
        if single:
            wait.problem("conditions", "conflict", "Give either `conditions` or `field`.")
        listed, at = wait.array("conditions"), wait.at("conditions")
        values = [(value, f"{at}/{index}") for index, value in enumerate(listed)]
    else:
        values = [(single, wait.pointer)]
    if not values:
        wait.problem("conditions", "empty", "Without a condition there is nothing to wait for.")
    if len(values) > MAX_CONDITIONS:
        wait.problem("conditions", "too_large", f"At most {MAX_CONDITIONS} are allowed.")
        values = []
    parts: list[Condition] = []
    for value, pointer in values:
        read = read_condition(value, pointer, wait.report, templates=True)
        if read is not None:
            compiled = read_config(read.value, f"{pointer}/value", wait.report, look)
            parts.append(Condition(read.field, read.op, compiled))
    return Conditions(tuple(parts))
