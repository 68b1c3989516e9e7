"""The neutral graph that every dialect compiles to, and the orchestrator runs.

Rules of this file:

* A `Plan` is immutable and complete: nothing in it needs the document it came from.
* Nothing here does I/O, reads a clock or makes a random number.
* A node fires as soon as its `when` is surely true and is SKIPPED as soon as it is surely false.
  `when` is three-valued: `None` means "not known yet".
* Names inside `when` refer to nodes of the same scope. The root scope is `""`; the body of a loop
  is the scope named after the loop node.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import Any, Protocol

Json = Any
"""A JSON value: dict, list, str, int, float, bool or None."""

ROOT = ""
"""The scope of nodes that stand in no loop."""


class Outcome(StrEnum):
    """How a node ended. TIMED_OUT also counts as FAILED."""

    SUCCESS = "SUCCESS"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"


FAILURES = frozenset({Outcome.FAILED, Outcome.TIMED_OUT})
TAKEN = frozenset({Outcome.SUCCESS})
ANY_RESULT = frozenset({Outcome.SUCCESS, Outcome.FAILED, Outcome.TIMED_OUT})


# --- when ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ref:
    """True once `node` ended with one of `outcomes` (and through `port`, if one is named)."""

    node: str
    outcomes: frozenset[Outcome] = TAKEN
    port: str | None = None


@dataclass(frozen=True, slots=True)
class Not:
    """The opposite; unknown stays unknown."""

    term: When


@dataclass(frozen=True, slots=True)
class And:
    """True when all are; false as soon as one is."""

    terms: tuple[When, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True as soon as one is; false when none can be."""

    terms: tuple[When, ...]


@dataclass(frozen=True, slots=True)
class Settled:
    """Waits until every term is known, then true if any is: the join `all` with skipped branches.

    With `every=True` a single false term makes it false, at once.
    """

    terms: tuple[When, ...]
    every: bool = False


@dataclass(frozen=True, slots=True)
class AtLeast:
    """True as soon as `count` terms are; false as soon as so many no longer can be."""

    count: int
    terms: tuple[When, ...]


@dataclass(frozen=True, slots=True)
class Always:
    """An entry node: fires when its scope opens."""


@dataclass(frozen=True, slots=True)
class Never:
    """A node that only a `goto` reaches."""


When = Ref | Not | And | Or | Settled | AtLeast | Always | Never


def mentions(when: When) -> tuple[str, ...]:
    """The nodes that `when` speaks of, each once, in order."""
    seen: dict[str, None] = {}
    stack: list[When] = [when]
    while stack:
        match stack.pop():
            case Ref(node=node):
                seen.setdefault(node)
            case Not(term=term):
                stack.append(term)
            case And(terms=terms) | Or(terms=terms) | Settled(terms=terms):
                stack.extend(reversed(terms))
            case AtLeast(terms=terms):
                stack.extend(reversed(terms))
            case _:
                pass
    return tuple(seen)


# --- values -------------------------------------------------------------------------------------


class Expression(Protocol):
    """A compiled template, path or expression: a pure function of a run's context.

    `evaluate` raises `permaflow.errors.EvaluationError` and nothing else.
    """

    def evaluate(self, context: Context) -> Json: ...


class Context(Protocol):
    """What an expression may look at, by its first name: trigger, steps, loop, error, run.

    A missing name gives `MISSING`. Values are plain JSON; a mapping-like view offers only `get`.
    """

    def get(self, name: str, default: Json = None, /) -> Json: ...


class _Missing:
    __slots__ = ()

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING = _Missing()
"""Stands for a path that leads nowhere; never a JSON value."""


@dataclass(frozen=True, slots=True)
class Constant:
    """An expression that is always the same value."""

    value: Json

    def evaluate(self, context: Context) -> Json:
        return self.value


# --- what a node does ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Retry:
    """`max_retries` more attempts after the first, `delay · factor^n` apart, capped, full jitter.

    `jitter` is the share of the delay that is random: 1.0 draws from [0, delay], 0.0 from nothing.
    """

    max_retries: int = 0
    initial_delay: timedelta = timedelta(seconds=1)
    max_delay: timedelta = timedelta(minutes=5)
    factor: float = 2.0
    jitter: float = 1.0

    def delay(self, retry: int, chance: float) -> timedelta:
        """How long before retry number `retry` (1 is the first); `chance` is in [0, 1)."""
        exponent = min(retry - 1, 64)
        longest = self.max_delay.total_seconds()
        try:
            full = min(longest, self.initial_delay.total_seconds() * self.factor**exponent)
        except OverflowError:
            full = longest if self.initial_delay else 0.0
        return timedelta(seconds=full * (1.0 - self.jitter * chance))


NO_RETRY = Retry()


@dataclass(frozen=True, slots=True)
class Stop:
    """A failure of this node fails the run."""


@dataclass(frozen=True, slots=True)
class Continue:
    """A failure of this node is an outcome like any other; the `when`s of others decide."""


@dataclass(frozen=True, slots=True)
class Goto:
    """A failure of this node opens `node` again, and everything that follows from it."""

    node: str


OnError = Stop | Continue | Goto

STOP = Stop()
CONTINUE = Continue()


@dataclass(frozen=True, slots=True)
class Task:
    """Work for a runner: `config` may hold `Expression`s at any depth."""

    stage: str
    config: Json


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger as a node: done at once, its output is the trigger's data."""


@dataclass(frozen=True, slots=True)
class Pass:
    """Parallel, join and other nodes that only route: done at once. Few have an output."""

    output: Expression | None = None


@dataclass(frozen=True, slots=True)
class Branch:
    """Condition and switch: the first case whose test is true names the port that is taken.

    With none true the port is `default`; with no default, no port, so nothing follows.
    """

    cases: tuple[tuple[str, Expression], ...]
    default: str | None


@dataclass(frozen=True, slots=True)
class Delay:
    """Wait for `duration` (seconds, a number) or until `until` (an RFC 3339 time); one is given."""

    duration: Expression | None = None
    until: Expression | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """Wait for an answer from outside: of people, of a change that meets a condition, of a child.

    `kind` says who is asked (see `pipeline.store.questions`), `config` what they need to know; it
    may hold `Expression`s at any depth. The first answer ends the node, as the result of a task
    would. When the node's timeout passes first, it leaves through `timeout_port` with
    `timeout_output` (`{"timed_out": true}` if that is None); without a port it has failed.
    """

    kind: str
    config: Json
    timeout_port: str | None = None
    timeout_output: Json = None


@dataclass(frozen=True, slots=True)
class Loop:
    """Run the scope named after this node once for each item.

    `parallel` is how many iterations may be open at once (1 is sequential). With `stop_on_error`
    the first failed iteration fails the loop; otherwise the failed ones are counted.
    """

    items: Expression
    parallel: int = 1
    stop_on_error: bool = True
    max_items: int = 100_000


Work = Task | Trigger | Pass | Branch | Delay | Loop | Question


class OnUnknown(StrEnum):
    """What becomes of an attempt of which nobody knows what it did: its runner was lost, or it
    outlived its timeout.

    RETRY: it has failed, and is retried like any other. FAIL: it has failed for good; no runner
    begins an attempt that another one has begun. ASK: the same, but people decide.
    """

    RETRY = "retry"
    FAIL = "fail"
    ASK = "ask"


@dataclass(frozen=True, slots=True)
class Compensation:
    """What undoes a node, when the run that it succeeded in does not complete.

    Its expressions see what the node saw, its own output in `steps`, and the `error` of the run.
    With `when_unknown` an attempt is undone, too, of which nobody knows what it did.
    """

    type: str
    work: Task
    retry: Retry = NO_RETRY
    timeout: timedelta | None = None
    when_unknown: bool = True


@dataclass(frozen=True, slots=True)
class Node:
    """One step of a workflow.

    `cancels` names the nodes of the same scope that are cancelled when this node fires: the losers
    of an `any` or `n-of-m` join. `timeout` limits each attempt of a task or a question, and the
    whole of a loop or a delay.
    """

    id: str
    type: str
    work: Work
    when: When = field(default_factory=Always)
    scope: str = ROOT
    retry: Retry = NO_RETRY
    timeout: timedelta | None = None
    on_error: OnError = STOP
    cancels: tuple[str, ...] = ()
    max_visits: int = 100
    compensation: Compensation | None = None
    on_unknown: OnUnknown = OnUnknown.RETRY


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole workflow, ready to run.

    `exits` empty: the run is completed when every node has ended and none stopped it. Otherwise
    it is completed if one of `exits` ended in SUCCESS, else failed. Each node that fires and each
    further attempt is a step; a run that needs more than `max_steps` fails.

    A run that does not complete is compensated: what undoes its nodes runs, one after the other, in
    the reverse of the order in which they ended. If it failed or timed out, the tasks `on_failure`
    follow in order; their `when`, scope and `on_error` say nothing, and neither compensations nor
    they are counted as steps.
    """

    nodes: Mapping[str, Node]
    exits: tuple[str, ...] = ()
    timeout: timedelta | None = None
    max_steps: int = 1_000_000
    on_failure: tuple[Node, ...] = ()
    members: Mapping[str, tuple[str, ...]] = field(init=False)
    """Scope → its nodes, in the order of the document."""
    followers: Mapping[str, tuple[str, ...]] = field(init=False)
    """Node → the nodes of its scope whose `when` mentions it."""
    leaves: Mapping[str, tuple[str, ...]] = field(init=False)
    """Scope → the nodes that nothing follows; their outputs are the output of the scope."""

    def __post_init__(self) -> None:
        members: dict[str, list[str]] = {ROOT: []}
        followers: dict[str, list[str]] = {name: [] for name in self.nodes}
        for node in self.nodes.values():
            members.setdefault(node.scope, []).append(node.id)
            for other in mentions(node.when):
                followers[other].append(node.id)
        leaves = {
            scope: tuple(name for name in names if not followers[name])
            for scope, names in members.items()
        }
        object.__setattr__(self, "members", {k: tuple(v) for k, v in members.items()})
        object.__setattr__(self, "followers", {k: tuple(v) for k, v in followers.items()})
        object.__setattr__(self, "leaves", leaves)


# --- documents and triggers ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Condition:
    """One `{field, op, value}` of a trigger. `field` is a path of names and indexes."""

    field: tuple[str, ...]
    op: str
    value: Json = None


@dataclass(frozen=True, slots=True)
class TriggerSpec:
    """How events reach a workflow. `node` is the trigger node's id.

    `kind` is record, schedule, webhook, manual or integration. For `record`: `object` and `events`
    (of created, updated, deleted) and `conditions`, all of which must hold. `settings` holds what
    else the kind needs, as written (a cron expression, the verification of a webhook, a schema).
    """

    node: str
    kind: str
    object: str = ""
    events: frozenset[str] = frozenset()
    conditions: tuple[Condition, ...] = ()
    settings: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a document: where (an RFC 6901 JSON pointer), what, and what to do.

    `at` is the character (from 0) of the string at `pointer` that is to blame, where one is.
    """

    pointer: str
    code: str
    message: str
    at: int | None = None


@dataclass(frozen=True, slots=True)
class Compiled:
    """What a dialect made of a document: a plan with its triggers, or every problem found."""

    plan: Plan | None
    triggers: tuple[TriggerSpec, ...] = ()
    problems: tuple[Problem, ...] = ()


class TaskTypes(Protocol):
    """What a dialect may ask about task types while it compiles."""

    def names(self) -> Sequence[str]: ...

    def stage(self, type_name: str) -> str:
        """The stage that runs this task type."""
        ...

    def verbatim(self, type_name: str) -> Collection[str]:
        """The fields of its config in which templates are not looked for."""
        ...

    def config_problems(self, type_name: str, config: Json) -> Sequence[Problem]:
        """Problems of a config against the type's schema, with pointers relative to the config.

        Values that are whole templates (`"{{…}}"`) are accepted wherever a value may stand.
        """
        ...


class Dialect(Protocol):
    """One way to write workflows down."""

    name: str

    def recognises(self, document: Json) -> bool:
        """Whether this document is meant for this dialect (it may still have problems)."""
        ...

    def compile(self, document: Json, types: TaskTypes) -> Compiled:
        """Never raises on any JSON value; reports all problems at once."""
        ...
