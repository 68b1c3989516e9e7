"""Free expressions, in CEL (Common Expression Language): `trigger.record.amount > 100`.

* They look at what templates look at: `trigger`, `steps`, `loop`, `error`, `run` (a dialect may add
  names). A name that is no identifier stands in brackets: `steps["my-step"].output`.
* They give the same value for the same run, whenever they are evaluated: no clock, no random
  number. A budget bounds what one may cost; regular expressions are of linear time.
* They are compiled once per version. What goes wrong is told with the character where it did.

Where it differs from CEL: whole numbers and fractions mix in arithmetic, `+` joins text with
numbers, and there are no bytes, messages and unsigned numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from permaflow.errors import DocumentError, EvaluationError
from permaflow.plan import Context, Json
from specs.cel.meaning import Binder, Resolve, Running, Work
from specs.cel.syntax import Tree, parse
from specs.cel.tokens import SyntaxFault
from specs.cel.values import Fault, finished
from specs.paths import ROOTS, Path
from specs.reading import Report, kind_of

MAX_RESULT = 4_000_000
"""About how many bytes the value of an expression may take."""


@dataclass(frozen=True, slots=True)
class Formula:
    """A compiled expression. `references` is what it looks at, with the places in `source`.

    Two of the same source that look at the same things are equal.
    """

    source: str
    work: Work = field(compare=False, repr=False)
    references: tuple[tuple[Path, int], ...]

    def evaluate(self, context: Context) -> Json:
        try:
            value = self.work(Running(context))
            kind = type(value)
            if kind is str or kind is bool or kind is int:
                return value
            return finished(value, MAX_RESULT)
        except Fault as fault:
            raise EvaluationError(
                f"{_sentence(str(fault))}{_where(self.source, fault.at)}"
            ) from None
        except RecursionError:
            raise EvaluationError(f"{_shortened(self.source)} is nested too deep.") from None


@dataclass(frozen=True, slots=True)
class Truth:
    """An expression that must be true or false; null counts as false."""

    formula: Formula

    def evaluate(self, context: Context) -> bool:
        value = self.formula.evaluate(context)
        if value is None or type(value) is bool:
            return bool(value)
        raise EvaluationError(
            f"{_shortened(self.formula.source)} is {kind_of(value)}, not true or false; compare it "
            "with something, as in `… == 1`."
        )


def _plain_path(segments: tuple[str, ...], text: str) -> Path:
    return Path(segments, text)


RUN_ROOTS: Mapping[str, Resolve] = dict.fromkeys(ROOTS, _plain_path)
"""What every expression can look at."""


@dataclass(frozen=True, slots=True)
class Names:
    """What expressions can look at, name → how it is looked up."""

    roots: Mapping[str, Resolve]


NAMES = Names(RUN_ROOTS)

Look = Callable[[Path, str], None]


def compile_formula(source: str, names: Names = NAMES, report: Report | None = None) -> Formula:
    """Raises `SyntaxFault`. `report` is asked for what a wrong name may have meant."""
    return bind_formula(source, parse(source), names, report)


def bind_formula(source: str, tree: Tree, names: Names, report: Report | None = None) -> Formula:
    """A formula of what has been parsed. Raises `SyntaxFault`."""
    binder = Binder(
        names.roots, lambda name: "" if report is None else report.guess(name, names.roots)
    )
    work = binder.bind(tree)
    return Formula(source, work, tuple(binder.references))


def compile_expression(source: str) -> Formula:
    """Raises `DocumentError` with one problem."""
    report = Report()
    formula = read_formula(source, "", report)
    if formula is None:
        raise DocumentError(report.problems, report.problems[0].message)
    return formula


def read_formula(
    source: str, pointer: str, report: Report, look: Look | None = None, names: Names = NAMES
) -> Formula | None:
    """The expression that a string of a document is; None if it is none, which is reported."""
    try:
        formula = compile_formula(source, names, report)
    except SyntaxFault as fault:
        report.add(pointer, "bad_expression", fault_message(source, fault), fault.at)
        return None
    show_references(formula, pointer, look)
    return formula


def show_references(formula: Formula, pointer: str, look: Look | None) -> None:
    """Shows `look` every path of an expression."""
    if look is not None:
        for path, _ in formula.references:
            look(path, pointer)


def fault_message(source: str, fault: SyntaxFault) -> str:
    """What is wrong with an expression, in a sentence with the place."""
    return f"{_sentence(fault.message)}{_where(source, fault.at)}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _where(source: str, at: int) -> str:
    if not source.strip():
        return ": the expression is empty."
    return f" (character {at + 1} of {_shortened(source, at)})."


def _shortened(source: str, at: int = 0) -> str:
    """An expression, or what stands around a place of a long one."""
    start = max(0, at - 40) if len(source) > 100 else 0
    part = " ".join(source[start : start + 100].split())
    return f"`{'…' if start else ''}{part}{'…' if start + 100 < len(source) else ''}`"
