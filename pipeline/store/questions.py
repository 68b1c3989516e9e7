"""Who is asked when a run puts a question: each kind has what else its transaction writes.

A kind may have two statements of its own, in a file of queries named after it. `ask` comes with
the columns `ids, run_ids, scopes, nodes, attempts, orgs, configs` (JSON text), after the rows of
`question` are there; `withdraw` with `run_ids, scopes, nodes, attempts, answered`, before they are
gone. Either may raise a conflict, and the run is then decided about once more, its answers first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import UUID

from pipeline.store.queries import query

ASK = query("questions.ask")
WITHDRAW = query("questions.withdraw")

Asked = tuple[UUID, UUID, str, str, int, UUID, str, str]
"""Its id, then run, scope, node, attempt, organisation, config as JSON text, kind."""

Withdrawn = tuple[UUID, str, str, int, bool, str]
"""Run, scope, node, attempt, whether it was answered, kind."""


@dataclass(frozen=True, slots=True)
class Kind:
    """The statements of a kind; see above."""

    ask: LiteralString | None = None
    withdraw: LiteralString | None = None


KINDS: dict[str, Kind] = {
    "approval": Kind(query("approvals.ask"), query("approvals.withdraw")),
}


def statements(
    asked: Sequence[Asked], withdrawn: Sequence[Withdrawn]
) -> list[tuple[LiteralString, tuple[list[Any], ...]]]:
    """What a transaction runs for its questions, in order, each with its columns."""
    found: list[tuple[LiteralString, tuple[list[Any], ...]]] = []
    for kind, ended in _by_kind(withdrawn):
        if kind.withdraw is not None:
            found.append((kind.withdraw, _columns(ended)))
    if withdrawn:
        found.append((WITHDRAW, _columns([question[:4] for question in withdrawn])))
    if asked:
        found.append((ASK, _columns(asked)))
    for kind, put in _by_kind(asked):
        if kind.ask is not None:
            found.append((kind.ask, _columns(put)))
    return found


def _by_kind(rows: Sequence[tuple[Any, ...]]) -> Iterator[tuple[Kind, list[tuple[Any, ...]]]]:
    """The rows of each kind, without its name, which comes last in them."""
    for name in sorted({row[-1] for row in rows}):
        yield KINDS[name], [row[:-1] for row in rows if row[-1] == name]


def _columns(rows: Sequence[tuple[Any, ...]]) -> tuple[list[Any], ...]:
    return tuple(list(column) for column in zip(*rows, strict=True))
