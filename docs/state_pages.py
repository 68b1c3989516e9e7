"""The pages of states and of the journal: drawn from tables, and from watching the core at work."""

from __future__ import annotations

import random
from collections.abc import Iterator
from uuid import UUID

from markdown import opening, row, sentence, table
from watched_plans import documents

from pipeline import builtins
from pipeline.core.decide import decide
from pipeline.core.entries import TAGS, Entry, Finished
from pipeline.core.events import (
    AttemptDone,
    AttemptFailed,
    AttemptParked,
    CancelAsked,
    Event,
    TimerFired,
    Woken,
)
from pipeline.core.fold import fold
from pipeline.core.program import Program
from pipeline.core.state import Run
from pipeline.settings import Settings
from pipeline.store.workflows import DRAFT, TRANSITIONS
from specs.dialects import compile_document

SEEDS = 150
MOST_EVENTS = 60
NEW = "new"
EVENTS: dict[type, str] = {
    Woken: "woken",
    AttemptDone: "attempt done",
    AttemptFailed: "attempt failed",
    AttemptParked: "attempt parked",
    TimerFired: "timer",
    CancelAsked: "cancel",
}

Arrow = tuple[str, str, str]
"""From, to, and why."""


def states_page() -> Iterator[str]:
    """Statuses of workflows, statuses of runs, and what becomes of a node."""
    runs, nodes = watch()
    yield from opening("States", "pipeline/store/workflows.py and pipeline/core")
    yield "## A workflow"
    yield ""
    yield "Only an active workflow has triggers, and only an active one can be started. To set the"
    yield "status that a workflow has already changes nothing. Any workflow can be deleted: it is"
    yield "hidden, its triggers go, its runs go on."
    yield ""
    yield from diagram(
        [(here, there, "") for here, nexts in TRANSITIONS.items() for there in nexts], DRAFT
    )
    yield ""
    yield "## A run"
    yield ""
    yield "`waiting` is when nothing is with a runner, and a timer is armed or a question is open."
    yield "Found by giving random events to the core; beside these, a run that the engine cannot"
    yield "advance ends as `failed` (`unrunnable`, `quarantined`). A run that does not complete and"
    yield "has something to undo is `compensating` first; its error says what it would have ended"
    yield "as otherwise. `pending` is known to the store and the API; nothing sets it yet."
    yield ""
    yield "People [control runs](../how-to/control-runs.md): a run that is paused is `waiting`"
    yield "until it is resumed; a retry makes one that is `failed`, `timed_out` or `cancelled`"
    yield "`running`."
    yield ""
    yield from diagram(sorted(runs), "running")
    yield ""
    yield "## A node in a scope"
    yield ""
    yield "Lower case is a phase of a node that has fired, upper case is an outcome, and the words"
    yield "at the arrows are entries of the [journal](journal.md). What is open when its run or its"
    yield "iteration ends is dropped without an outcome; a jump makes outcomes undone."
    yield ""
    yield from diagram(sorted(nodes), NEW)


def diagram(arrows: list[Arrow], first: str) -> Iterator[str]:
    """A Mermaid state diagram; arrows between the same two states are one."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for here, there, why in arrows:
        reasons.setdefault((here, there), []).extend([why] if why else [])
    left = {here for here, _ in reasons}
    ends = {there for _, there in reasons if there not in left or there.isupper()}
    yield "```mermaid"
    yield "stateDiagram-v2"
    yield f"    [*] --> {first}"
    for (here, there), why in reasons.items():
        yield f"    {here} --> {there}" + (f" : {', '.join(sorted(set(why)))}" if why else "")
    for end in sorted(ends):
        yield f"    {end} --> [*]"
    yield "```"


def watch() -> tuple[set[Arrow], set[Arrow]]:
    """Every change of a run's status and of a node's state that random events bring about."""
    types = builtins.task_types(Settings(_env_file=None, task_types=""))  # type: ignore[call-arg]
    runs: set[Arrow] = set()
    nodes: set[Arrow] = set()
    for document in documents():
        compiled = compile_document(document, types)
        assert compiled.plan is not None, compiled.problems
        program = Program(compiled.plan)
        for seed in range(SEEDS):
            _watch_one(program, random.Random(seed), runs, nodes)
    return runs, nodes


def _watch_one(
    program: Program, chance: random.Random, runs: set[Arrow], nodes: set[Arrow]
) -> None:
    data = {"items": [1, 2, 3], "flag": chance.random() < 0.5}
    run, twin = (Run(UUID(int=0), program, data, "t") for _ in range(2))
    event: Event = Woken()
    for _ in range(MOST_EVENTS):
        before = run.status
        decision = decide(run, [event], chance.random())
        if run.status != before:
            runs.add((before, run.status, EVENTS[type(event)]))
        for entry in decision.entries:
            _watch_entry(twin, entry, nodes)
        if run.finished:
            return
        event = _next(run, chance)


def _watch_entry(run: Run, entry: Entry, nodes: set[Arrow]) -> None:
    before = _states(run)
    fold(run, [entry])
    if isinstance(entry, Finished):
        return
    for place, now in _states(run).items():
        was = before.get(place, NEW)
        if was != now:
            nodes.add((was, now, TAGS[type(entry)]))


def _states(run: Run) -> dict[tuple[str, str], str]:
    return {
        (scope.id, name): state.outcome.value if state.outcome else state.phase or NEW
        for scope in run.scopes.values()
        for name, state in scope.nodes.items()
    }


def _next(run: Run, chance: random.Random) -> Event:
    """Something that may happen to this run."""
    if chance.random() < 0.02:
        return CancelAsked("somebody")
    choices: list[Event] = [TimerFired(key) for key, t in run.timers.items() if t.kind != "run"]
    if chance.random() < 0.03:
        choices = [TimerFired(key) for key in run.timers]
    for (scope, node), attempt in run.outstanding.items():
        choices += [
            AttemptDone(scope, node, attempt, {"ok": True}),
            AttemptFailed(scope, node, attempt, "failed", "no", retryable=True),
            AttemptFailed(scope, node, attempt, "rejected", "no", retryable=False),
            AttemptFailed(scope, node, attempt, "timeout", "late", timed_out=True),
            AttemptParked(scope, node, attempt, 1.0),
        ]
    for (scope, node), attempt in run.questions.items():
        choices += [
            AttemptDone(scope, node, attempt, {"ok": True}, "approved"),
            AttemptFailed(scope, node, attempt, "rejected", "no", retryable=False),
        ]
    return chance.choice(choices) if choices else Woken()


def journal_page() -> Iterator[str]:
    """Every entry that a journal may hold."""
    yield from opening("Journal", "pipeline/core/entries.py")
    yield "A row of `permaflow.journal` is `(run_id, seq, at, entries)`. `entries` is an array, and"
    yield "an entry is an array itself: its tag, then its fields in this order. The state of a run"
    yield "is the fold of its rows. Tags are never changed; fields are only added at the end."
    yield ""
    yield from table("Tag", "Fields", "What happened")
    for entry, tag in TAGS.items():
        fields = ", ".join(f"`{name}`" for name in entry._fields)
        yield row(f"`{tag}`", fields, sentence(entry.__doc__))
