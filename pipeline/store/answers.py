"""Answers to the questions that runs have put.

An answer is stored first and told to the run afterwards, in its inbox; it is forgotten in the
transaction that takes it into the journal. The reconciler tells those again that nobody took. The
first answer to a question is the only one: who comes later is told so, and nothing else happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from pipeline.store.database import Connection
from pipeline.store.queries import query
from pipeline.store.rows import every

_GIVE = query("answers.give")
_OPEN = query("questions.open")
_OVERDUE = query("answers.overdue")
_FORGET = query("answers.forget")


@dataclass(frozen=True, slots=True)
class Answer:
    """What ends a question: an `output` (JSON text, or a reference to a large one) that leaves
    through `port`, or, with a `code`, a failure, whose `details` are JSON text.
    """

    question: UUID
    output: bytes | None = None
    output_ref: UUID | None = None
    port: str | None = None
    code: str | None = None
    message: str = ""
    retryable: bool = False
    details: bytes | None = None


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """An answer with the step that it belongs to. `output` and `details` are JSON text."""

    question_id: UUID
    org: UUID
    run_id: UUID
    scope: str
    node: str
    attempt: int
    output: bytes | None
    output_ref: UUID | None
    port: str | None
    code: str | None
    message: str
    retryable: bool
    details: bytes | None = None


async def open_question(
    connection: Connection, org: UUID, run_id: UUID, scope: str, node: str, kind: str
) -> UUID | None:
    """The question of this kind that a step waits for the answer to."""
    values = {"org": org, "run_id": run_id, "scope": scope, "node": node, "kind": kind}
    row = await (await connection.execute(_OPEN, values)).fetchone()
    return None if row is None else row[0]


async def give(connection: Connection, answers: Sequence[Answer]) -> list[StoredAnswer]:
    """Stores answers; gives those that were the first to a question that is open.

    Once the transaction is committed, tell their runs: `pipeline.answers.post_answers`.
    """
    values = {
        "questions": [answer.question for answer in answers],
        "outputs": [None if a.output is None else a.output.decode() for a in answers],
        "refs": [answer.output_ref for answer in answers],
        "ports": [answer.port for answer in answers],
        "codes": [answer.code for answer in answers],
        "messages": [answer.message for answer in answers],
        "retryable": [answer.retryable for answer in answers],
        "details": [None if a.details is None else a.details.decode() for a in answers],
    }
    return await every(connection, StoredAnswer, _GIVE, values)


async def forget(connection: Connection, after: timedelta) -> int:
    """Drops answers, given longer than `after` ago, whose runs are over; answers how many."""
    return (await connection.execute(_FORGET, {"after": after.total_seconds()})).rowcount


async def overdue(
    connection: Connection, after: timedelta, *, limit: int = 1000
) -> list[StoredAnswer]:
    """Answers that no orchestrator has taken for longer than `after`."""
    values = {"after": after.total_seconds(), "limit": limit}
    return await every(connection, StoredAnswer, _OVERDUE, values)
