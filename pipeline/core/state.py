"""The state of a run: what `fold` builds from its journal, and `decide` reads.

A run is a tree of scopes: the root, and one scope for each open iteration of each open loop. A
scope that has closed is gone; only its output stays, in its loop. States are owned by whoever
folds them and change in place; nothing here does I/O.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from permaflow.plan import ROOT, Json, Node, Outcome
from pipeline.core.effects import Withdraw
from pipeline.core.entries import Compensating
from pipeline.core.program import Program

RUNNING = "running"
RETRYING = "retrying"
DELAYED = "delayed"
LOOPING = "looping"
ASKED = "asked"
DUE = "due"


class NodeState:
    """One node in one scope.

    `phase` is None while the node has not fired, RUNNING, RETRYING, DELAYED, LOOPING or ASKED while
    it is open, and None again once `outcome` is set. DUE fires when the run goes on, whatever its
    `when` says: it had fired before the run ended. `attempt` only ever grows, also over visits.
    `config` is what the current attempt was dispatched with, while it is with a runner.
    """

    __slots__ = (
        "attempt",
        "config",
        "loop",
        "outcome",
        "output",
        "phase",
        "port",
        "retries",
        "visits",
    )

    def __init__(self) -> None:
        self.phase: str | None = None
        self.outcome: Outcome | None = None
        self.attempt = 0
        self.retries = 0
        self.visits = 0
        self.port: str | None = None
        self.output: Json = None
        self.config: Json = None
        self.loop: LoopState | None = None


class LoopState:
    """A loop: its items, and how far it is.

    `broken` holds the iterations whose failure fails the loop. They, and those that were open when
    the loop failed or the run ended, are what goes on if the run is reopened.
    """

    __slots__ = ("broken", "done", "error", "failed", "items", "next", "open", "outputs")

    def __init__(self, items: list[Json]) -> None:
        self.items = items
        self.next = 0
        self.done = 0
        self.failed = 0
        self.open: dict[int, Scope] = {}
        self.broken: dict[int, Scope] = {}
        self.outputs: list[Json] = [None] * len(items)
        self.error: tuple[str, str] | None = None


class Overlay:
    """The steps that an iteration sees: its own, then those around the loop."""

    __slots__ = ("outer", "own")

    def __init__(self, own: dict[str, Json], outer: Any) -> None:
        self.own = own
        self.outer = outer

    def get(self, name: str, default: Json = None) -> Json:
        if name in self.own:
            return self.own[name]
        return self.outer.get(name, default)


class Scope:
    """The nodes that share one context. `open` counts those that have not ended."""

    __slots__ = ("context", "id", "index", "loop", "name", "nodes", "open", "parent", "steps")

    def __init__(self, scope_id: str, name: str, size: int, context: dict[str, Any]) -> None:
        self.id = scope_id
        self.name = name
        self.open = size
        self.nodes: dict[str, NodeState] = {}
        self.steps: dict[str, Json] = {}
        self.context = context
        self.parent: Scope | None = None
        self.loop: str = ROOT
        self.index = 0

    def node(self, name: str) -> NodeState:
        state = self.nodes.get(name)
        if state is None:
            state = self.nodes[name] = NodeState()
        return state


class Execution:
    """One visit of a node that may have to be undone: its record in `steps`, and what it saw."""

    __slots__ = ("context", "node", "scope", "step")

    def __init__(
        self, scope: str, node: str, step: dict[str, Json], context: dict[str, Any]
    ) -> None:
        self.scope = scope
        self.node = node
        self.step = step
        self.context = context


class Timer:
    """What an armed timer stands for: the kind (retry, delay, timeout, run), and its node."""

    __slots__ = ("kind", "node", "scope")

    def __init__(self, kind: str, scope: str = ROOT, node: str = "") -> None:
        self.kind = kind
        self.scope = scope
        self.node = node


class Run:
    """One run: its plan, its input, and everything that its journal says.

    `outstanding` holds the attempts that are with runners, `questions` those that wait for an
    answer. `dropped_steps`, `dropped_timers`, `dropped_questions` and `touched` are what the last
    folds left behind for `decide` to see to; replay clears them. A `halted` run has to be looked at
    as a whole before anything else, and the timers in `unarmed` are to be set then; `reopened`
    counts how often it went on after its end.

    `undo` holds what is to be undone if the run does not complete, `doubts` the open nodes with an
    attempt behind them of which nobody knows what it did. Once it does not complete, `cause` says
    why, `repair` is what runs at this moment to undo it, `repaired` counts the attempts and visits
    of what has run, `unrepaired` holds what of it failed, `handled` counts the nodes of
    `on_failure` that have begun, and `handler_steps` is what they have come to. See `compensating`.
    """

    __slots__ = (
        "cancelled",
        "cause",
        "doubts",
        "dropped_questions",
        "dropped_steps",
        "dropped_timers",
        "error",
        "finished",
        "halted",
        "handled",
        "handler_steps",
        "id",
        "input",
        "outstanding",
        "paused",
        "program",
        "questions",
        "reopened",
        "repair",
        "repaired",
        "root",
        "scopes",
        "seq",
        "started",
        "status",
        "steps_used",
        "timers",
        "touched",
        "trigger",
        "unarmed",
        "undo",
        "unrepaired",
    )

    def __init__(self, run_id: UUID, program: Program, trigger_input: Json, trigger: str) -> None:
        self.id = run_id
        self.program = program
        self.input = trigger_input
        self.trigger = trigger
        self.seq = 0
        self.started = False
        self.finished = False
        self.status = "running"
        self.error: dict[str, Json] | None = None
        self.cancelled = False
        self.halted = False
        self.paused = False
        self.reopened = 0
        self.steps_used = 0
        context: dict[str, Any] = {"trigger": trigger_input, "run": {"id": str(run_id)}}
        self.root = Scope(ROOT, ROOT, len(program.plan.members[ROOT]), context)
        context["steps"] = self.root.steps
        self.scopes: dict[str, Scope] = {ROOT: self.root}
        self.outstanding: dict[tuple[str, str], int] = {}
        self.questions: dict[tuple[str, str], int] = {}
        self.timers: dict[str, Timer] = {}
        self.dropped_questions: list[Withdraw] = []
        self.dropped_steps: list[tuple[str, str, int]] = []
        self.dropped_timers: list[str] = []
        self.touched: list[tuple[Scope, str]] = []
        self.undo: list[Execution] = []
        self.doubts: set[tuple[str, str]] = set()
        self.cause: Compensating | None = None
        self.repair: tuple[Scope, str] | None = None
        self.repaired: dict[tuple[str, str], tuple[int, int]] = {}
        self.unrepaired: list[dict[str, Json]] = []
        self.handled = 0
        self.handler_steps: dict[str, Json] = {}
        self.unarmed: list[str] = []

    def settle_status(self) -> None:
        """Waiting is when nothing is with a runner, and a timer or an answer is to come; and when
        the run is paused.
        """
        if self.finished:
            return
        if self.cause is not None:
            self.status = "compensating"
        else:
            waits = self.paused or (
                not self.outstanding
                and (bool(self.questions) or any(t.kind != "run" for t in self.timers.values()))
            )
            self.status = "waiting" if waits else "running"

    def plan_node(self, name: str) -> Node:
        return self.program.nodes[name]

    def output(self) -> Json:
        """What the run gives back: the output of its one leaf, or of each by name."""
        return scope_output(self.root, self.program.outputs_of(ROOT))


def scope_output(scope: Scope, leaves: tuple[str, ...]) -> Json:
    """The output of a scope: of its one leaf, or of each by name; null for one that did not run."""
    outputs = {
        name: state.output if (state := scope.nodes.get(name)) is not None else None
        for name in leaves
    }
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def timer_key(kind: str, scope: str, node: str, attempt: int) -> str:
    """The name of a timer within its run."""
    return f"{kind}\x1f{scope}\x1f{node}\x1f{attempt}"


RUN_TIMER = "run"


def run_timer(run: Run) -> str:
    """The name of the timer of the run itself: another one each time that it is reopened."""
    return f"{RUN_TIMER}\x1f{run.reopened}" if run.reopened else RUN_TIMER
