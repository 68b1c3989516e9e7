"""What an expression does: its tree, bound to what it may look at, as functions in each other.

A reference (`trigger.record.name`) is one look-up by a path, so only what is mentioned is touched.
`||` and `&&` make good for an error on one side if the other side decides, as in CEL. A meter
counts every item of every list that is gone through.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from permaflow.errors import EvaluationError
from permaflow.plan import MISSING, Context
from specs.cel.functions import FUNCTIONS, pattern
from specs.cel.syntax import (
    MACROS,
    Array,
    Call,
    Chain,
    Choice,
    Has,
    Index,
    Literal,
    Macro,
    Member,
    Name,
    Object,
    Tree,
    Unary,
)
from specs.cel.tokens import SyntaxFault
from specs.cel.values import (
    Exhausted,
    Fault,
    Meter,
    Value,
    add,
    calculate,
    compare,
    kind,
    number,
)
from specs.paths import Path

MAX_VARIABLES = 8


Resolve = Callable[[tuple[str, ...], str], Path]
"""Names of a path and how it is written → the look-up. Raises `ValueError` with a sentence."""

Guess = Callable[[str], str]
"""A name that is unknown → `did you mean …? `, or nothing."""


class Running:
    """One evaluation."""

    __slots__ = ("context", "known", "meter", "variables")

    def __init__(self, context: Context) -> None:
        self.context = context
        self.known: dict[int, Value] = {}
        self.meter = Meter()
        self.variables: list[Value] = [None] * MAX_VARIABLES


Work = Callable[[Running], Value]


class Binder:
    """Binds a tree. `references` are those that it found, with the places where they stand."""

    def __init__(self, roots: Mapping[str, Resolve], guess: Guess) -> None:
        self._roots = roots
        self._guess = guess
        self._variables: list[str] = []
        self.references: list[tuple[Path, int]] = []

    def bind(self, tree: Tree) -> Work:
        """Raises `SyntaxFault` for names, functions and shapes that do not exist."""
        match tree:
            case Literal(value=value):
                return lambda _: value
            case Name() | Member():
                return self._look_up(tree)
            case Index():
                return self._index(tree)
            case Has():
                return self._has(tree)
            case Call():
                return self._call(tree)
            case Macro():
                return self._macro(tree)
            case Array(items=items):
                works = [self.bind(item) for item in items]
                return lambda run: [work(run) for work in works]
            case Object():
                return self._object(tree)
            case Unary():
                return self._unary(tree)
            case Chain():
                return self._chain(tree)
            case Choice():
                return self._choice(tree)

    # --- references -------------------------------------------------------------------------------

    def _look_up(self, tree: Name | Member) -> Work:
        reference = self._reference(tree)
        if reference is not None:
            return _once(reference, len(self.references))
        if isinstance(tree, Name):
            slot = max(i for i, name in enumerate(self._variables) if name == tree.name)
            return lambda run: run.variables[slot]
        of, name, at = self.bind(tree.of), tree.name, tree.at

        def member(run: Running) -> Value:
            holder = of(run)
            found = _member(holder, name)
            if found is MISSING:
                raise Fault(at, _nowhere(holder, name))
            return found

        return member

    def _reference(self, tree: Tree) -> Path | None:
        """The look-up that a tree stands for; None if it works on something that is computed."""
        names: list[str] = []
        while isinstance(tree, Member):
            names.append(tree.name)
            tree = tree.of
        if not isinstance(tree, Name) or tree.name in self._variables:
            return None
        names.append(tree.name)
        names.reverse()
        resolve = self._roots.get(tree.name)
        if resolve is None:
            raise SyntaxFault(
                tree.at,
                f"there is no `{tree.name[:60]}` here; {self._guess(tree.name)}"
                f"an expression can look at {', '.join(self._roots)}",
            )
        try:
            reference = resolve(tuple(names), _written(names))
        except ValueError as error:
            raise SyntaxFault(tree.at, str(error)) from None
        self.references.append((reference, tree.at))
        return reference

    def _has(self, tree: Has) -> Work:
        reference = self._reference(tree.member)
        if reference is not None:
            look = reference.look
            return lambda run: look(run.context) is not MISSING
        of, name = self.bind(tree.member.of), tree.member.name
        return lambda run: _member(of(run), name) is not MISSING

    def _index(self, tree: Index) -> Work:
        of, index, at = self.bind(tree.of), self.bind(tree.index), tree.at

        def look(run: Running) -> Value:
            holder, key = of(run), index(run)
            if type(key) is float and key.is_integer():
                key = int(key)
            name = str(key) if type(key) in (int, str) else None
            if name is None or (type(holder) is list and type(key) is not int):
                raise Fault(at, f"{kind(holder)} has no member by {kind(key)}")
            found = _member(holder, name)
            if found is MISSING:
                raise Fault(at, _nowhere(holder, name))
            return found

        return look

    # --- operators --------------------------------------------------------------------------------

    def _unary(self, tree: Unary) -> Work:
        term, at = self.bind(tree.term), tree.at
        if tree.op == "!":
            return lambda run: not _truth(term(run), "!", at)

        def negative(run: Running) -> Value:
            value = term(run)
            if type(value) not in (int, float):
                raise Fault(at, f"`-` cannot turn {kind(value)} around")
            return number(-value, at)

        return negative

    def _chain(self, tree: Chain) -> Work:
        works = [self.bind(tree.first), *(self.bind(term) for _, _, term in tree.rest)]
        if tree.rest[0][0] in ("&&", "||"):
            return _logic(tree.rest[0][0], works, [tree.at, *(at for _, at, _ in tree.rest)])
        first = works[0]
        steps = [(op, at, work) for (op, at, _), work in zip(tree.rest, works[1:], strict=True)]
        if len(steps) == 1:
            op, at, term = steps[0]
            operate = _operation(op)
            return lambda run: operate(op, first(run), term(run), run.meter, at)

        def chain(run: Running) -> Value:
            value = first(run)
            for op, at, term in steps:
                value = _operation(op)(op, value, term(run), run.meter, at)
            return value

        return chain

    def _choice(self, tree: Choice) -> Work:
        test, yes, no, at = self.bind(tree.test), self.bind(tree.yes), self.bind(tree.no), tree.at
        return lambda run: yes(run) if _truth(test(run), "?", at) else no(run)

    # --- what makes values ------------------------------------------------------------------------

    def _object(self, tree: Object) -> Work:
        pairs = [(self.bind(name), self.bind(value), name.at) for name, value in tree.members]

        def make(run: Running) -> Value:
            made: dict[str, Value] = {}
            for name, value, at in pairs:
                key = name(run)
                if type(key) is not str:
                    raise Fault(at, f"the name of a member is text, but this is {kind(key)}")
                made[key] = value(run)
            return made

        return make

    def _call(self, tree: Call) -> Work:
        name, at = tree.name, tree.at
        function = FUNCTIONS.get(name)
        if function is None:
            raise SyntaxFault(at, _no_function(name))
        count = len(tree.arguments)
        if not function.least <= count <= function.most:
            wanted = f"{function.least}" if function.least == function.most else "other"
            raise SyntaxFault(at, f"`{name}` takes {wanted} values, but here it gets {count}")
        if name == "matches" and isinstance(tree.arguments[1], Literal):
            _check_pattern(tree.arguments[1])
        works, apply = [self.bind(each) for each in tree.arguments], function.apply
        return lambda run: apply(tuple(work(run) for work in works), run.meter, at)

    def _macro(self, tree: Macro) -> Work:
        if tree.variable in self._roots:
            raise SyntaxFault(
                tree.at, f"`{tree.variable}` means something else here; choose another name"
            )
        if len(self._variables) == MAX_VARIABLES:
            raise SyntaxFault(tree.at, f"`{tree.kind}` may be nested {MAX_VARIABLES} deep")
        of, slot = self.bind(tree.of), len(self._variables)
        self._variables.append(tree.variable)
        works = [self.bind(part) for part in tree.parts]
        self._variables.pop()
        at, cost = tree.at, 1 + sum(map(_weight, tree.parts))

        def each(run: Running) -> list[Value]:
            holder = of(run)
            if type(holder) is not list and type(holder) is not dict:
                raise Fault(at, f"`{tree.kind}` goes through a list, but this is {kind(holder)}")
            run.meter.spend(1 + cost * len(holder), at)
            return holder if type(holder) is list else list(holder)

        def true_of(run: Running, item: Value) -> bool:
            run.variables[slot] = item
            return _truth(works[0](run), tree.kind, at)

        match tree.kind:
            case "map" if len(works) == 1:
                return lambda run: [_given(run, slot, works[0], item) for item in each(run)]
            case "map":
                return lambda run: [works[1](run) for item in each(run) if true_of(run, item)]
            case "filter":
                return lambda run: [item for item in each(run) if true_of(run, item)]
            case "exists_one":
                return lambda run: sum(true_of(run, item) for item in each(run)) == 1
            case _:
                decides = tree.kind == "exists"
                return lambda run: _any(run, each(run), true_of, decides)


def _once(reference: Path, number: int) -> Work:
    """Looks a reference up, once for each evaluation."""
    evaluate = reference.evaluate

    def look_up(run: Running) -> Value:
        known = run.known
        if number in known:
            return known[number]
        value = known[number] = evaluate(run.context)
        return value

    return look_up


def _given(run: Running, slot: int, work: Work, item: Value) -> Value:
    run.variables[slot] = item
    return work(run)


def _any(
    run: Running,
    items: list[Value],
    true_of: Callable[[Running, Value], bool],
    decides: bool,
) -> bool:
    """Whether one item gives `decides`; if none does, an item's error counts."""
    error: EvaluationError | None = None
    for item in items:
        try:
            if true_of(run, item) is decides:
                return decides
        except Exhausted:
            raise
        except EvaluationError as found:
            error = error or found
    if error is not None:
        raise error
    return not decides


def _logic(op: str, works: list[Work], places: list[int]) -> Work:
    decides = op == "||"

    def logic(run: Running) -> bool:
        error: EvaluationError | None = None
        for work, at in zip(works, places, strict=True):
            try:
                if _truth(work(run), op, at) is decides:
                    return decides
            except Exhausted:
                raise
            except EvaluationError as found:
                error = error or found
        if error is not None:
            raise error
        return not decides

    return logic


Operate = Callable[[str, Value, Value, Meter, int], Value]


def _operation(op: str) -> Operate:
    match op:
        case "+":
            return _add
        case "-" | "*" | "/" | "%":
            return _calculate
        case _:
            return compare


def _add(op: str, left: Value, right: Value, meter: Meter, at: int) -> Value:
    return add(left, right, meter, at)


def _calculate(op: str, left: Value, right: Value, meter: Meter, at: int) -> Value:
    return calculate(op, left, right, at)


def _truth(value: Value, op: str, at: int) -> bool:
    if type(value) is not bool:
        raise Fault(at, f"`{op}` wants true or false, but this is {kind(value)}")
    return value


def _member(holder: Value, name: str) -> Value:
    if type(holder) is dict:
        return holder.get(name, MISSING)
    if type(holder) is list and name.isascii() and name.isdigit() and len(name) < 10:
        index = int(name)
        return holder[index] if index < len(holder) else MISSING
    return MISSING


def _nowhere(holder: Value, name: str) -> str:
    match holder:
        case dict():
            names = [str(each)[:40] for each in list(holder)[:12]]
            more = ", …" if len(holder) > len(names) else ""
            has = f"it has {', '.join(names)}{more}" if names else "it is empty"
            return f"the object has no `{name[:60]}`; {has}"
        case list():
            return f"the list of {len(holder)} has no item `{name[:60]}`"
        case _:
            return f"{kind(holder)} has no `{name[:60]}`"


_IDENTIFIER = re.compile(r"(?:[^\W\d]|[$@])[\w$@]*")


def _written(names: list[str]) -> str:
    """A path as a person would write it."""
    parts = [names[0]]
    for name in names[1:]:
        if _IDENTIFIER.fullmatch(name):
            parts.append(f".{name}")
        elif name.isdigit():
            parts.append(f"[{name}]")
        else:
            parts.append(f'["{name}"]')
    return "".join(parts)


def _no_function(name: str) -> str:
    if name in MACROS:
        return f"`{name}` works on a list; write `list.{name}(item, …)`"
    if name in ("now", "time", "random", "uuid"):
        return (
            f"there is no `{name}`: an expression gives the same value whenever it is evaluated; "
            "let a step or the trigger bring it along"
        )
    return f"there is no function `{name[:60]}`; there are {', '.join(sorted(FUNCTIONS))}"


def _check_pattern(literal: Literal) -> None:
    if type(literal.value) is str:
        try:
            pattern(literal.value, literal.at)
        except Fault as fault:
            raise SyntaxFault(literal.at, str(fault)) from None


def _weight(tree: Tree) -> int:
    """How many steps a tree takes, without those of the lists that it goes through."""
    match tree:
        case Member(of=of):
            return 1 + (0 if isinstance(of, Name) else _weight(of))
        case Has(member=member):
            return _weight(member)
        case Index(of=of, index=index):
            return 1 + _weight(of) + _weight(index)
        case Call(arguments=parts) | Array(items=parts):
            return 1 + sum(map(_weight, parts))
        case Macro(of=of):
            return 1 + _weight(of)
        case Object(members=members):
            return 1 + sum(_weight(name) + _weight(value) for name, value in members)
        case Unary(term=term):
            return 1 + _weight(term)
        case Chain(first=first, rest=rest):
            return _weight(first) + sum(1 + _weight(term) for _, _, term in rest)
        case Choice(test=test, yes=yes, no=no):
            return 1 + _weight(test) + _weight(yes) + _weight(no)
        case _:
            return 0
