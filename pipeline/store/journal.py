"""The journals of runs: the hot path of the store.

One `Journal` belongs to one orchestrator and keeps two connections to itself: statements stay
prepared, and a batch is one round trip. It is not safe for concurrent use.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString
from uuid import UUID

import psycopg
from psycopg.rows import TupleRow

from pipeline.store.answers import StoredAnswer
from pipeline.store.appender import Appender
from pipeline.store.queries import query
from pipeline.store.questions import ANSWERS, RUNS, Asked, Withdrawn, statements
from pipeline.store.sqlstate import store_errors

Connection = psycopg.AsyncConnection[TupleRow]

_LOAD_RUNS = query("journal.load_runs")
_LOAD_ROWS = query("journal.load_rows")
_SIZES = query("journal.sizes")
_APPEND = query("journal.append")
_APPEND_ALONE = query("journal.append_alone")
_APPEND_AND_FINISH = query("journal.append_and_finish")
_FINISH = query("journal.finish_runs")
_STATUS = query("journal.set_status")
_SET_TIMERS = query("journal.set_timers")
_HOLD_TIMERS = query("journal.hold_timers")
_CLEAR_TIMERS = query("journal.clear_timers")
_PUT_PAYLOADS = query("journal.put_payloads")
_GET_PAYLOADS = query("journal.get_payloads")
_PAYLOAD_SIZES = query("journal.payload_sizes")
_LIVE_LEASES = query("journal.live_leases")
_ANSWERS = query("answers.of_runs")


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run as it lies in the store. Its input and the entries of its rows are JSON text."""

    id: UUID
    org: UUID
    workflow_id: UUID
    version: int
    status: str
    trigger: str
    input: str | None
    input_ref: UUID | None
    rows: Sequence[tuple[int, str]]


@dataclass(slots=True)
class Append:
    """What one transaction writes: a journal row for each run, and what goes with them."""

    runs: list[UUID] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    orgs: list[UUID] = field(default_factory=list)
    entries: list[str] = field(default_factory=list)
    finished: list[tuple[UUID, str, str | None]] = field(default_factory=list)
    statuses: list[tuple[UUID, str]] = field(default_factory=list)
    timers: list[tuple[UUID, str, UUID, float | None, str | None]] = field(default_factory=list)
    held: list[UUID] = field(default_factory=list)
    cleared: list[tuple[UUID, str]] = field(default_factory=list)
    payloads: list[tuple[UUID, UUID, UUID, bytes]] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    withdrawn: list[Withdrawn] = field(default_factory=list)
    abandoned: list[UUID] = field(default_factory=list)
    """Runs whose questions end with them, whatever they are."""

    def __bool__(self) -> bool:
        return bool(self.runs or self.cleared or self.payloads or self.withdrawn)

    @property
    def one_statement(self) -> bool:
        """Whether there are rows and ends alone: one statement is the whole transaction."""
        return not (
            self.statuses
            or self.timers
            or self.cleared
            or self.payloads
            or self.asked
            or self.withdrawn
            or self.abandoned
        )


@dataclass(slots=True)
class Told:
    """What a transaction found out: answers that were known at once, and runs `(id, organisation)`
    whose end it has asked for.
    """

    answers: list[StoredAnswer] = field(default_factory=list)
    ending: list[tuple[UUID, UUID]] = field(default_factory=list)


class Journal:
    """Reads runs and appends to them. Raises `StoreError`s only."""

    def __init__(self, connect: Callable[[], Awaitable[Connection]]) -> None:
        self._connect = connect
        self._connection: Connection | None = None
        self._appender: Appender | None = None

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()
        if self._appender is not None:
            await self._appender.close()

    async def _append(self, batch: Append) -> None:
        """The rows and ends of a batch, when they are all of it."""
        appender = self._appender
        if appender is None or appender.closed:
            if appender is not None:
                await appender.close()
            appender = self._appender = Appender(await self._connect())
            await appender.prepare(_APPEND_ALONE, _APPEND_AND_FINISH)
        entries = [row.encode() for row in batch.entries]
        await appender.append(batch.runs, batch.seqs, batch.orgs, entries, batch.finished)

    async def _open(self) -> Connection:
        connection = self._connection
        if connection is None or connection.closed or connection.broken:
            with store_errors():
                connection = self._connection = await self._connect()
                await connection.set_autocommit(True)
            connection.prepare_threshold = 0
        return connection

    async def load(self, ids: Sequence[UUID]) -> list[StoredRun]:
        """The runs that exist among `ids`, with their whole journals if they are open."""
        connection = await self._open()
        wanted = list(ids)
        with store_errors():
            async with connection.pipeline():
                head = await connection.execute(_LOAD_RUNS, (wanted,), binary=True)
                body = await connection.execute(_LOAD_ROWS, (wanted,), binary=True)
                runs = await head.fetchall()
                rows = await body.fetchall()
        journals: dict[UUID, list[tuple[int, str]]] = {run[0]: [] for run in runs}
        for run_id, seq, entries in rows:
            journals[run_id].append((seq, entries))
        return [_stored(run, journals[run[0]]) for run in runs]

    async def sizes(self, ids: Sequence[UUID]) -> dict[UUID, int]:
        """How many bytes those of these runs have that exist, large values apart."""
        connection = await self._open()
        with store_errors():
            cursor = await connection.execute(_SIZES, (list(ids),), binary=True)
            return {run_id: int(size) for run_id, size in await cursor.fetchall()}

    async def commit(self, batch: Append) -> Told:
        """Write a batch, all or nothing. `ConflictError`: some run was appended to by another."""
        told = Told()
        if batch.one_statement:
            with store_errors():
                await self._append(batch)
            return told
        connection = await self._open()
        rows = (batch.runs, batch.seqs, batch.orgs, batch.entries)
        with store_errors():
            async with connection.pipeline(), connection.transaction():
                if batch.runs:
                    await connection.execute(_APPEND, rows, binary=True)
                await _many(connection, _FINISH, batch.finished, 3)
                await _many(connection, _STATUS, batch.statuses, 2)
                await _many(connection, _CLEAR_TIMERS, batch.cleared, 2)
                await _many(connection, _SET_TIMERS, batch.timers, 5)
                if batch.held:
                    await connection.execute(_HOLD_TIMERS, (batch.held,), binary=True)
                await _many(connection, _PUT_PAYLOADS, batch.payloads, 4)
                given = [
                    (gives, await connection.execute(statement, columns, binary=True))
                    for statement, columns, gives in statements(
                        batch.asked, batch.withdrawn, batch.abandoned
                    )
                ]
            for gives, cursor in given:
                if gives == ANSWERS:
                    told.answers += [_answer(*row) for row in await cursor.fetchall()]
                elif gives == RUNS:
                    told.ending += [(run_id, org) for run_id, org in await cursor.fetchall()]
        return told

    async def payloads(self, refs: Iterable[UUID]) -> dict[UUID, bytes]:
        """The large values behind references; a missing one is left out."""
        connection = await self._open()
        with store_errors():
            cursor = await connection.execute(_GET_PAYLOADS, (list(refs),), binary=True)
            return dict(await cursor.fetchall())

    async def payload_sizes(self, refs: Iterable[UUID]) -> dict[UUID, int]:
        """How many bytes they have; a missing one is left out."""
        connection = await self._open()
        with store_errors():
            cursor = await connection.execute(_PAYLOAD_SIZES, (list(refs),), binary=True)
            return dict(await cursor.fetchall())

    async def answers(self, ids: Sequence[UUID]) -> list[StoredAnswer]:
        """The answers that wait for these runs."""
        connection = await self._open()
        with store_errors():
            cursor = await connection.execute(_ANSWERS, (list(ids),), binary=True)
            rows = await cursor.fetchall()
        return [_answer(*row) for row in rows]

    async def leased(self, ids: Sequence[UUID]) -> set[tuple[UUID, str, int]]:
        """The steps of these runs that a runner still holds, and which attempt of them."""
        connection = await self._open()
        with store_errors():
            cursor = await connection.execute(_LIVE_LEASES, (list(ids),), binary=True)
            return {(run_id, step, attempt) for run_id, step, attempt in await cursor.fetchall()}


def _stored(run: TupleRow, rows: Sequence[tuple[int, str]]) -> StoredRun:
    run_id, org, workflow_id, version, status, trigger, text, ref = run
    return StoredRun(run_id, org, workflow_id, version, status, trigger, text, ref, rows)


def _answer(*row: Any) -> StoredAnswer:
    """Here JSON comes as text."""
    values = [*row[:6], _text(row[6]), *row[7:12], _text(row[12])]
    return StoredAnswer(*values)


def _text(value: str | None) -> bytes | None:
    return None if value is None else value.encode()


async def _many(
    connection: Connection, statement: LiteralString, rows: Sequence[tuple[Any, ...]], width: int
) -> None:
    """Run a statement over the columns of `rows`, if there are any."""
    if rows:
        columns = tuple([row[i] for row in rows] for i in range(width))
        await connection.execute(statement, columns, binary=True)
