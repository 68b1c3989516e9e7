"""Who is asked when a run puts a question: each kind has what else its transaction writes.

A kind may have statements of its own, in a file of queries named after it. `ask` comes with
the columns `ids, run_ids, scopes, nodes, attempts, orgs, configs` (JSON text), after the rows of
`question` are there; `withdraw` with `run_ids, scopes, nodes, attempts, answered`, before they are
gone. Either may raise a conflict, and the run is then decided about once more, its answers first.
`end`, with `run_ids`, is for runs that are ended from outside, whose questions nobody knows.

What they give back is told after the commit (`pipeline.asking`): `ask` of an `early` kind the
answers that are known at once, `withdraw` and `end` of a `running` one the runs that have to end.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

from pipeline.store.queries import query

ASK = query("questions.ask")
WITHDRAW = query("questions.withdraw")
END = query("questions.end")

Asked = tuple[UUID, UUID, str, str, int, UUID, str, str]
"""Its id, then run, scope, node, attempt, organisation, config as JSON text, kind."""

Withdrawn = tuple[UUID, str, str, int, bool, str]
"""Run, scope, node, attempt, whether it was answered, kind."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The statements of a kind; see above."""

    ask: LiteralString | None = None
    withdraw: LiteralString | None = None
    end: LiteralString | None = None
    early: bool = False
    running: bool = False


CHILD, CHANGE = "child", "change"

KINDS: dict[str, Kind] = {
    "approval": Kind(query("approvals.ask"), query("approvals.withdraw"), query("approvals.end")),
    "unknown": Kind(),
    CHILD: Kind(
        query("children.ask"),
        query("children.withdraw"),
        query("children.end"),
        early=True,
        running=True,
    ),
    CHANGE: Kind(query("waits.ask"), query("waits.withdraw"), query("waits.end"), early=True),
}

ANSWERS, RUNS = "answers", "runs"
"""What a statement gives back; "" is nothing."""


def statements(
    asked: Sequence[Asked], withdrawn: Sequence[Withdrawn], ended: Sequence[UUID] = ()
) -> list[tuple[LiteralString, tuple[list[Any], ...], str]]:
    """What a transaction runs for its questions, in order: a statement, its columns, and what it
    gives back.
    """
    found: list[tuple[LiteralString, tuple[list[Any], ...], str]] = []
    if ended:
        runs = (list(ended),)
        found.extend(
            (kind.end, runs, RUNS if kind.running else "")
            for kind in KINDS.values()
            if kind.end is not None
        )
        found.append((END, runs, ""))
    for kind, gone in _by_kind(withdrawn):
        if kind.withdraw is not None:
            found.append((kind.withdraw, _columns(gone), RUNS if kind.running else ""))
    if withdrawn:
        found.append((WITHDRAW, _columns([question[:4] for question in withdrawn]), ""))
    if asked:
        found.append((ASK, _columns(asked), ""))
    for kind, put in _by_kind(asked):
        if kind.ask is not None:
            found.append((kind.ask, _columns(put), ANSWERS if kind.early else ""))
    return found


def _by_kind(rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[Kind, list[tuple[Any, ...]]]]:
    """The rows of each kind, without its name, which comes last in them."""
    for name in sorted({row[-1] for row in rows}):
        yield KINDS[name], [row[:-1] for row in rows if row[-1] == name]


def _columns(rows: Sequence[tuple[Any, ...]]) -> tuple[list[Any], ...]:
    return tuple(list(column) for column in zip(*rows, strict=True))
