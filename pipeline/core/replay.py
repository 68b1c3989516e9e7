"""A run as its journal tells it: how another process takes it over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from permaflow.errors import EvaluationError
from pipeline.core.entries import (
    Cancelled,
    Dispatched,
    Doubted,
    Entry,
    Failed,
    Parked,
    Retrying,
    Skipped,
    Succeeded,
)
from pipeline.core.fold import FOLDS
from pipeline.core.state import Run


def replay(run: Run, rows: Iterable[tuple[int, Sequence[Entry]]]) -> Run:
    """A fresh run after all rows of its journal, `(seq, entries)` in order.

    The configs of the attempts that are still with runners are rendered once more, each at the
    place in the journal where it was dispatched: later, the same expressions may see more.
    """
    rows = list(rows)
    unanswered = _unanswered(rows)
    for seq, entries in rows:
        for entry in entries:
            FOLDS[type(entry)](run, entry)
            if type(entry) is Dispatched and unanswered.get(entry[:2]) == entry.attempt:
                _render(run, entry)
        run.seq = seq
    run.dropped_steps.clear()
    run.dropped_timers.clear()
    run.dropped_questions.clear()
    run.touched.clear()
    run.settle_status()
    return run


def _unanswered(rows: list[tuple[int, Sequence[Entry]]]) -> dict[tuple[str, ...], int]:
    """The last attempt of each step, if no later entry of its own ends it."""
    last: dict[tuple[str, ...], int] = {}
    for _, entries in rows:
        for entry in entries:
            match entry:
                case Dispatched():
                    last[entry[:2]] = entry.attempt
                case (
                    Succeeded()
                    | Failed()
                    | Retrying()
                    | Parked()
                    | Doubted()
                    | Skipped()
                    | Cancelled()
                ):
                    last.pop(entry[:2], None)
    return last


def _render(run: Run, entry: Dispatched) -> None:
    scope = run.scopes[entry.scope]
    try:
        scope.nodes[entry.node].config = run.program.renderers[entry.node](scope.context)
    except EvaluationError:  # it had a value then: a newer engine reads the expression otherwise
        pass
