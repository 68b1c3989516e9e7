"""Conditions of a branch: they look at a run, and decide which way it goes.

`{"field": …, "op": …, "value": …}`, where `field` is a path such as `trigger.record.amount` and
`value` may hold templates; they nest as `{"all": […]}`, `{"any": […]}` and `{"not": …}`, and an
array means `all`. A string without templates is an expression: `"trigger.record.amount > 100"`. One
that is one template (`"{{steps.check.output.ok}}"`) is true if its value is true.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from permaflow.changes import CREATED, DELETED
from permaflow.errors import EvaluationError
from permaflow.plan import MISSING, Constant, Context, Expression, Json
from specs.comparing import CHANGES, Compare, comparison, equal_to, value_fault
from specs.conditions import condition_fields, judge, read_operator
from specs.expressions import Formula, Truth, read_formula, show_references
from specs.paths import SCALARS, Path, walk
from specs.reading import Fields, Report, kind_of, shown
from specs.template_syntax import TemplateFault, parse_path, parse_template
from specs.templates import Look, read_config

MAX_CONDITIONS = 500


@dataclass(frozen=True, slots=True)
class Comparison:
    """Looks one path up and compares it with a value that is known beforehand.

    `test` says how and with what; by it two comparisons are equal.
    """

    path: Path
    test: str
    compare: Compare = field(compare=False, repr=False)

    def evaluate(self, context: Context) -> bool:
        return self.compare(self.path.look(context))


@dataclass(frozen=True, slots=True)
class Matching:
    """Compares with a value out of a template."""

    path: Path
    op: str
    value: Expression

    def evaluate(self, context: Context) -> bool:
        value = self.value.evaluate(context)
        if (wanted := value_fault(self.op, value)) is not None:
            raise EvaluationError(
                f"`{self.path.text}` is to be compared by `{self.op}` with {kind_of(value)}; "
                f"the value must be {wanted}."
            )
        return comparison(self.op, value)(self.path.look(context))


@dataclass(frozen=True, slots=True)
class Changing:
    """Compares a field of the trigger's record with what it was before the change."""

    path: Path
    op: str
    value: Expression

    def evaluate(self, context: Context) -> bool:
        trigger = context.get("trigger", MISSING)
        event = MISSING if type(trigger) in SCALARS else walk(trigger, ("event",))
        if event == DELETED:
            return False
        path = self.path.segments[2:]
        new = self.path.look(context)
        old: Json = MISSING
        if event != CREATED:
            before = walk(trigger, ("before",))
            if type(before) is not dict:
                raise EvaluationError(
                    f"Whether `{self.path.text}` changed is not known: the source did not send "
                    "the record as it was before. Let it send whole records (in PostgreSQL: "
                    "REPLICA IDENTITY FULL)."
                )
            old = walk(before, path)
        return judge(self.op, equal_to(self.value.evaluate(context)))(old, new)


@dataclass(frozen=True, slots=True)
class Every:
    terms: tuple[Expression, ...]

    def evaluate(self, context: Context) -> bool:
        return all(term.evaluate(context) for term in self.terms)


@dataclass(frozen=True, slots=True)
class Some:
    terms: tuple[Expression, ...]

    def evaluate(self, context: Context) -> bool:
        return any(term.evaluate(context) for term in self.terms)


@dataclass(frozen=True, slots=True)
class Opposite:
    term: Expression

    def evaluate(self, context: Context) -> bool:
        return not self.term.evaluate(context)


@dataclass(frozen=True, slots=True)
class Flag:
    """The value of one path; true and false stay, null is false, anything else is an error."""

    path: Path

    def evaluate(self, context: Context) -> bool:
        value = self.path.evaluate(context)
        if value is None or type(value) is bool:
            return bool(value)
        raise EvaluationError(
            f"`{self.path.text}` is {kind_of(value)}, not true or false; compare it, as in "
            f'`{{"field": "{self.path.text}", "op": "eq", "value": …}}`.'
        )


FORMS = (
    'an expression, `{"field": …, "op": …, "value": …}`, `{"all": […]}`, `{"any": […]}` '
    'or `{"not": …}`'
)


def read_expression(
    value: Json, pointer: str, report: Report, look: Look | None = None
) -> Expression | None:
    """A branch's condition; None if it is none. `value` is at most 64 levels deep."""
    if count_parts(value) > MAX_CONDITIONS:
        report.add(
            pointer, "too_large", f"A condition may be made of {MAX_CONDITIONS} parts; split it."
        )
        return None
    return _expression(value, pointer, report, look)


def _expression(value: Json, pointer: str, report: Report, look: Look | None) -> Expression | None:
    match value:
        case bool():
            return Constant(value)
        case list():
            return _terms(value, pointer, report, look, Every)
        case str():
            return _string(value, pointer, report, look)
        case {"all": list(terms), **rest} if not rest:
            return _terms(terms, f"{pointer}/all", report, look, Every)
        case {"any": list(terms), **rest} if not rest:
            return _terms(terms, f"{pointer}/any", report, look, Some)
        case {"not": term, **rest} if not rest:
            inner = _expression(term, f"{pointer}/not", report, look)
            return None if inner is None else Opposite(inner)
        case {"field": _}:
            return _comparison(value, pointer, report, look)
        case _:
            report.add(pointer, "bad_condition", f"This is no condition; write {FORMS}.")
            return None


def _terms(
    values: list[Json],
    pointer: str,
    report: Report,
    look: Look | None,
    form: type[Every] | type[Some],
) -> Expression | None:
    if not values:
        report.add(pointer, "empty", f"There is no condition here; write {FORMS}.")
    terms = [_expression(v, f"{pointer}/{i}", report, look) for i, v in enumerate(values)]
    found = tuple(term for term in terms if term is not None)
    return form(found) if found and len(found) == len(terms) else None


def _string(text: str, pointer: str, report: Report, look: Look | None) -> Expression | None:
    if "{{" not in text:
        formula = read_formula(text, pointer, report, look)
        return None if formula is None else Truth(formula)
    try:
        parts = parse_template(text, report=report)
    except TemplateFault as fault:
        report.add(pointer, "bad_template", str(fault), fault.at)
        return None
    match parts:
        case [Formula() as formula]:
            show_references(formula, pointer, look)
            return Truth(formula)
        case [Path() as path]:
            if look is not None:
                look(path, pointer)
            return Flag(path)
    report.add(
        pointer,
        "bad_condition",
        f"{shown(text)} is no condition: a string must be one template, or an expression.",
    )
    return None


def _comparison(
    value: dict[str, Json], pointer: str, report: Report, look: Look | None
) -> Expression | None:
    fields = condition_fields(value, pointer, report)
    if fields is None:
        return None
    path, op = read_path(fields), read_operator(fields, templates=True)
    if path is None or op is None:
        return None
    if look is not None:
        look(path, fields.at("field"))
    expected = read_config(value.get("value"), fields.at("value"), report, look)
    moving = hasattr(expected, "evaluate")
    if op in CHANGES:
        if path.segments[:2] != ("trigger", "record") or len(path.segments) < 3:
            fields.problem(
                "op",
                "bad_value",
                f"`{op}` is for fields of `trigger.record`; use another operator.",
            )
            return None
        return Changing(path, op, expected if moving else Constant(expected))
    return Matching(path, op, expected) if moving else _known_comparison(path, op, expected)


def _known_comparison(path: Path, op: str, expected: Json) -> Comparison:
    return Comparison(path, f"{op} {expected!r}", comparison(op, expected))


def read_path(fields: Fields) -> Path | None:
    text = fields.text("field", required=True)
    if text is None:
        return None
    inner = text.strip()
    if inner.startswith("{{") and inner.endswith("}}"):
        inner = inner[2:-2].strip()
    try:
        return Path(parse_path(inner), inner)
    except TemplateFault as fault:
        fields.problem("field", "bad_field", f"{shown(text)} is no path: {fault}")
        return None


def count_parts(value: Json) -> int:
    stack, count = [value], 0
    while stack:
        part = stack.pop()
        count += 1
        if type(part) is list:
            stack.extend(part)
        elif type(part) is dict:
            stack.extend(part[name] for name in ("all", "any", "not") if name in part)
    return count
