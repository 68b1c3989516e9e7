"""Random plans, and random answers of the world to them.

A `Table` says how every attempt of every task ends; it depends on the scope, the node and the
attempt alone, so that a run may be played in any order against the same table.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple

from hypothesis import strategies as st

from permaflow.errors import EvaluationError
from permaflow.plan import (
    ANY_RESULT,
    CONTINUE,
    FAILURES,
    ROOT,
    STOP,
    TAKEN,
    Always,
    And,
    AtLeast,
    Branch,
    Compensation,
    Constant,
    Context,
    Delay,
    Goto,
    Json,
    Loop,
    Never,
    Node,
    Not,
    OnError,
    OnUnknown,
    Or,
    Outcome,
    Pass,
    Plan,
    Question,
    Ref,
    Retry,
    Settled,
    Task,
    Trigger,
    When,
    Work,
    mentions,
)

PORTS = ("a", "b")
ALWAYS = Always()
TRIGGER_INPUT = {"amount": 3}

TRIGGERS = (
    "trigger_record",
    "trigger_schedule",
    "trigger_webhook",
    "trigger_manual",
    "trigger_integration",
)
TASKS = {
    "action_http": "http",
    "action_record": "record",
    "action_email": "email",
    "action_integration": "integration",
    "action_notification": "notification",
    "code_function": "code",
    "code_snippet": "code",
}
"""Task type → its stage."""

LOGIC = (
    "logic_approval",
    "logic_condition",
    "logic_delay",
    "logic_loop",
    "logic_parallel",
    "logic_switch",
    "meta_error",
    "meta_subworkflow",
)
TYPES = (*TRIGGERS, *TASKS, *LOGIC)
"""All types of nodes; what the dialects make of each is in `specs.work`."""

MOMENTS = {
    "2030-01-31T09:00:00+01:00": "2030-01-31T08:00:00+00:00",
    "2024-02-29T23:59:59.5Z": "2024-02-29T23:59:59.500000+00:00",
}
"""Times that a delay may wait for, and how it says so."""


# --- expressions ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Even:
    """Whether the index of the iteration is even; true outside of loops."""

    def evaluate(self, context: Context) -> Json:
        loop = context.get("loop")
        return loop is None or loop["index"] % 2 == 0


@dataclass(frozen=True, slots=True)
class Numbers:
    """As many numbers as the trigger's amount."""

    def evaluate(self, context: Context) -> Json:
        return list(range(context.get("trigger")["amount"]))


@dataclass(frozen=True, slots=True)
class Broken:
    """An expression without a value."""

    def evaluate(self, context: Context) -> Json:
        raise EvaluationError("there is nothing here")


@dataclass(frozen=True, slots=True)
class Told:
    """The error that a node is told of. It names no message, so outputs stay small."""

    def evaluate(self, context: Context) -> Json:
        error = context.get("error")
        return error and {name: error[name] for name in ("node", "code", "attempt")}


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything that an expression can see: the item, the error, and each named step."""

    nodes: tuple[str, ...]

    def evaluate(self, context: Context) -> Json:
        steps = context.get("steps")
        return {
            "trigger": context.get("trigger"),
            "loop": context.get("loop"),
            "error": context.get("error"),
            "steps": {name: steps.get(name) for name in self.nodes},
        }


# --- answers --------------------------------------------------------------------------------------


class Done(NamedTuple):
    """The attempt succeeds. The output names the attempt, so that mix-ups show."""

    port: str | None = None


class Broke(NamedTuple):
    """The attempt fails."""

    retryable: bool = True
    timed_out: bool = False
    after: float | None = None


class Put(NamedTuple):
    """The attempt is put off."""

    after: float = 1.0


Answer = Done | Broke | Put


@dataclass(frozen=True)
class Table:
    """How attempts end. No task is put off more often than twice in a row."""

    answers: Mapping[str, Sequence[Answer]] = field(default_factory=dict)

    def __call__(self, scope: str, node: str, attempt: int) -> Answer:
        row = self.answers.get(node) or (Done(),)
        answer = row[(attempt - 1 + zlib.crc32(scope.encode())) % len(row)]
        return Done() if isinstance(answer, Put) and attempt % 3 == 0 else answer


def output_of(scope: str, node: str, attempt: int) -> str:
    """What a task gives back."""
    return f"{scope}/{node}#{attempt}"


# --- plans ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Kinds:
    """What random plans are made of."""

    jumps: bool = True
    losers: bool = True
    limits: bool = True
    timeouts: bool = True
    triggers: bool = True
    stops: bool = True
    views: bool = True
    compensations: bool = True
    trouble: bool = False
    """Many attempts fail, and many failures jump."""
    nodes: int = 12
    depth: int = 2


EVERYTHING = Kinds()
ORDERLY = Kinds(jumps=False, losers=False, limits=False)
"""Plans that come to the same end in whatever order their steps end."""

_OUTCOMES = (TAKEN, TAKEN, TAKEN, ANY_RESULT, FAILURES, frozenset({Outcome.SKIPPED}))


def _ref(draw: st.DrawFn, name: str, branches: set[str]) -> When:
    port = draw(st.sampled_from(PORTS)) if name in branches and draw(st.booleans()) else None
    outcomes = TAKEN if port else draw(st.sampled_from(_OUTCOMES))
    return Ref(name, outcomes, port)


def _when(draw: st.DrawFn, before: list[str], branches: set[str]) -> When:
    """What a node waits for, among the nodes before it."""
    if not before:
        return Always()
    names = draw(st.lists(st.sampled_from(before), min_size=0, max_size=4, unique=True))
    if not names:
        return Always()
    terms: list[When] = [_ref(draw, name, branches) for name in names]
    if len(terms) > 1 and draw(st.integers(0, 4)) == 4:
        terms[:2] = [draw(st.sampled_from((And, Or, Settled)))(tuple(terms[:2]))]
    if draw(st.integers(0, 7)) == 7:
        terms[0] = Not(terms[0])
    parts = tuple(terms)
    kind = draw(st.integers(0, 5))
    if len(parts) == 1 and kind < 4:
        return parts[0]
    joins: list[Callable[[], When]] = [
        lambda: Settled(parts),
        lambda: Settled(parts, every=True),
        lambda: And(parts),
        lambda: Or(parts),
        lambda: AtLeast(1, parts),
        lambda: AtLeast(draw(st.integers(1, len(parts))), parts),
    ]
    return joins[kind]()


_TESTS = (Constant(True), Constant(False), Even(), Even(), Constant(1), Constant(None), Broken())


_DRAWN = (*TASKS, *LOGIC, "logic_delay", "logic_loop", "meta_error")


def _work(draw: st.DrawFn, kinds: Kinds, kind: str, name: str, seen: tuple[str, ...]) -> Work:
    """What the dialects make of a node of this type."""
    match kind:
        case "logic_parallel":
            return Pass()
        case "meta_error":
            return Pass(Told())
        case "logic_condition":
            return Branch((("a", draw(st.sampled_from(_TESTS))),), "b")
        case "logic_switch":
            cases = tuple((port, draw(st.sampled_from(_TESTS))) for port in PORTS)
            return Branch(cases, draw(st.sampled_from((None, "b", "c"))))
        case "logic_delay":
            return _delay(draw, kinds, name, seen)
        case "logic_loop":
            return _loop(draw)
        case "logic_approval":
            config = _config(draw, kinds, name, seen)
            port = draw(st.sampled_from((None, "b")))
            return Question("approval", config, port, {"decision": port} if port else None)
        case "meta_subworkflow":
            return Question("child", _config(draw, kinds, name, seen))
        case _:
            return Task(TASKS[kind], _config(draw, kinds, name, seen))


def _delay(draw: st.DrawFn, kinds: Kinds, name: str, seen: tuple[str, ...]) -> Work:
    match draw(st.integers(0, 3)):
        case 0:
            return Delay(Constant(draw(st.sampled_from((0, 2.5, "soon")))))
        case 1:
            moment = draw(st.sampled_from((*MOMENTS, "2030-01-31T09:00:00", "tomorrow")))
            return Delay(until=Constant(moment))
        case _:
            port = draw(st.sampled_from((None, "b")))
            return Question("change", _config(draw, kinds, name, seen), port)


def _loop(draw: st.DrawFn) -> Work:
    size = st.integers(0, 5)
    items = draw(
        st.one_of(
            size.map(lambda n: Constant(list(range(n)))),
            size.map(lambda n: Constant([{"n": i} for i in range(n)])),
            size.map(lambda n: Constant({str(i): i for i in range(n)})),
            st.sampled_from((Numbers(), Broken(), Constant("text"))),
        )
    )
    return Loop(items, draw(st.integers(1, 3)), draw(st.booleans()), draw(st.sampled_from((4, 99))))


def _config(draw: st.DrawFn, kinds: Kinds, name: str, seen: tuple[str, ...]) -> Json:
    if draw(st.integers(0, 15)) == 15:
        return {"value": [Broken()]}
    return {"node": name, "seen": Seen(seen)} if kinds.views else {"node": name}


def _retry(draw: st.DrawFn) -> Retry:
    return Retry(
        max_retries=draw(st.sampled_from((1, 0, 2, 3))),
        initial_delay=timedelta(seconds=draw(st.sampled_from((0, 0.5, 3)))),
        max_delay=timedelta(seconds=draw(st.sampled_from((0, 4, 60)))),
        factor=draw(st.sampled_from((1.0, 2.0))),
        jitter=draw(st.sampled_from((0.0, 0.5, 1.0))),
    )


def _on_error(draw: st.DrawFn, kinds: Kinds, scope: str, siblings: Sequence[str]) -> OnError:
    kind = draw(st.integers(0, 9))
    if kind > (3 if kinds.trouble else 6) and kinds.jumps and siblings:
        return Goto(draw(st.sampled_from(siblings)))
    stops = kind == 6 or (kind == 5 and scope != ROOT)
    return STOP if stops and kinds.stops else CONTINUE


def _compensation(
    draw: st.DrawFn, kinds: Kinds, work: Work, seen: tuple[str, ...]
) -> Compensation | None:
    if not kinds.compensations or not isinstance(work, Task | Question) or draw(st.booleans()):
        return None
    config: Json = {"seen": Seen(seen)} if kinds.views else {}
    if draw(st.integers(0, 15)) == 15:
        config = {"value": Broken()}
    return Compensation("test", Task("stage", config), _retry(draw), None, draw(st.booleans()))


def _on_unknown(draw: st.DrawFn, work: Work) -> OnUnknown:
    choices = (OnUnknown.RETRY, OnUnknown.RETRY, OnUnknown.FAIL, OnUnknown.ASK)
    return draw(st.sampled_from(choices)) if isinstance(work, Task) else OnUnknown.RETRY


def _handlers(draw: st.DrawFn, kinds: Kinds, seen: tuple[str, ...]) -> tuple[Node, ...]:
    count = draw(st.sampled_from((0, 0, 0, 1, 2))) if kinds.compensations else 0
    config: Json = {"seen": Seen(seen)} if kinds.views else {}
    return tuple(
        Node(f"h{i}", "test", Task("stage", config), retry=_retry(draw)) for i in range(count)
    )


@st.composite
def plans(draw: st.DrawFn, kinds: Kinds = EVERYTHING) -> Plan:
    """A plan as a dialect might compile it: no cycles, every loop with a body."""
    size = draw(st.integers(1, kinds.nodes))
    names = tuple(f"n{i}" for i in range(size))
    loops: dict[str, int] = {}
    held: set[str] = set()
    types: dict[str, str] = {}
    works: dict[str, Work] = {}
    scopes: dict[str, str] = {}
    if kinds.triggers:
        for i in range(draw(st.integers(0, 2))):
            works[f"t{i}"], scopes[f"t{i}"] = Trigger(), ROOT
            types[f"t{i}"] = draw(st.sampled_from(TRIGGERS))
    for name in names:
        scope = draw(st.sampled_from((ROOT, ROOT, *loops))) if loops else ROOT
        depth = loops[scope] if scope else 0
        kind = draw(st.sampled_from(_DRAWN))
        if kind == "logic_loop" and depth >= kinds.depth:
            kind = "code_function"
        works[name] = _work(draw, kinds, kind, name, names)
        types[name], scopes[name] = kind, scope
        held.add(scope)
        if isinstance(works[name], Loop):
            loops[name] = depth + 1
    for loop in [name for name in loops if name not in held]:
        works[f"{loop}b"], scopes[f"{loop}b"] = Task("code", {"seen": Seen(names)}), loop
        types[f"{loop}b"] = "code_function"
    return _assemble(draw, kinds, works, types, scopes)


def _assemble(
    draw: st.DrawFn,
    kinds: Kinds,
    works: dict[str, Work],
    types: dict[str, str],
    scopes: dict[str, str],
) -> Plan:
    branches = {name for name, work in works.items() if isinstance(work, Branch | Task | Question)}
    nodes: dict[str, Node] = {}
    for name, work in works.items():
        scope = scopes[name]
        before = [other for other in nodes if scopes[other] == scope]
        siblings = [
            n for n, s in scopes.items() if s == scope and not isinstance(works[n], Trigger)
        ]
        errors = [n for n in siblings if types[n] == "meta_error"]
        when: When = Always() if isinstance(work, Trigger) else _when(draw, before, branches)
        if types[name] == "meta_error" or (kinds.jumps and draw(st.integers(0, 9)) == 9):
            when = Never()  # only a jump leads there
        cancels: tuple[str, ...] = ()
        if kinds.losers and isinstance(when, AtLeast | Or):
            some = st.lists(st.sampled_from(before), max_size=4, unique=True).map(tuple)
            cancels = draw(st.one_of(st.just(mentions(when)), some))
        nodes[name] = Node(
            id=name,
            type=types[name],
            work=work,
            when=when,
            scope=scope,
            retry=_retry(draw) if isinstance(work, Task | Question) else Retry(),
            timeout=draw(st.sampled_from((None, timedelta(seconds=9)))),
            on_error=_on_error(draw, kinds, scope, [*siblings, *errors * 5]),
            cancels=cancels,
            max_visits=draw(st.integers(0, 3)),
            compensation=_compensation(draw, kinds, work, tuple(works)),
            on_unknown=_on_unknown(draw, work),
        )
    limit = (
        st.sampled_from((1_000_000, 1_000_000, 1_000_000, 12, 4))
        if kinds.limits
        else st.just(1_000_000)
    )
    roots = [name for name, scope in scopes.items() if scope == ROOT]
    return Plan(
        nodes=nodes,
        exits=tuple(draw(st.lists(st.sampled_from(roots), max_size=2, unique=True))),
        timeout=timedelta(hours=1) if kinds.timeouts and draw(st.booleans()) else None,
        max_steps=draw(limit),
        on_failure=_handlers(draw, kinds, tuple(works)),
    )


_ANSWERS: st.SearchStrategy[Answer] = st.one_of(
    st.just(Done()),
    st.builds(Done, st.sampled_from((None, *PORTS))),
    st.just(Broke()),
    st.builds(Broke, st.booleans(), st.booleans(), st.sampled_from((None, 2.0, 1e9))),
    st.builds(Put, st.sampled_from((0.0, 5.0))),
)


@st.composite
def tables(draw: st.DrawFn, plan: Plan, kinds: Kinds = EVERYTHING) -> Table:
    """How the tasks of a plan end."""
    answers = st.one_of(_ANSWERS, st.just(Broke())) if kinds.trouble else _ANSWERS
    rows = st.lists(answers, min_size=1, max_size=4)
    tasks = [node.id for node in plan.nodes.values() if isinstance(node.work, Task | Question)]
    tasks += [f"{node.id}#compensate" for node in plan.nodes.values() if node.compensation]
    tasks += [node.id for node in plan.on_failure]
    return Table({name: draw(rows) for name in tasks})


@st.composite
def cases(draw: st.DrawFn, kinds: Kinds = EVERYTHING) -> tuple[Plan, Table]:
    plan = draw(plans(kinds))
    return plan, draw(tables(plan, kinds))


schedules = st.lists(st.integers(0, 999), max_size=40)
"""In which order things come about: each number picks one of what may happen next."""


# --- plans by hand --------------------------------------------------------------------------------

TASK = Task("stage", {})


def step(name: str, work: Work = TASK, after: str | When = ALWAYS, **options: Any) -> Node:
    """A node; `after` is a `when`, or names the nodes that all have to succeed."""
    when = after
    if isinstance(after, str):
        when = Settled(tuple(Ref(other) for other in after.split()), every=True)
    return Node(name, "test", work, when, **options)


def plan_of(*nodes: Node, **options: Any) -> Plan:
    return Plan({node.id: node for node in nodes}, **options)


def chain(*works: Work, **options: Any) -> Plan:
    """A plan of nodes n0, n1, … each of which waits for the one before."""
    nodes = [step(f"n{i}", work, f"n{i - 1}" if i else ALWAYS) for i, work in enumerate(works)]
    return plan_of(*nodes, **options)
