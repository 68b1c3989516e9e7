"""Changes of a PostgreSQL database, straight from its log.

One source reads any number of tables through one replication slot; the tables are those of its
publication. The server keeps its log until a position is confirmed, so nothing is lost while nobody
reads; but a source that is given up must be dropped, or the log fills the disk
(`max_slot_wal_keep_size` sets a limit).

Rows that were there before the slot are no changes. Only one process can read a slot; others wait
their turn and go on within a second of its end. PostgreSQL's orderly shutdown waits until
everything sent is confirmed, so confirm soon.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
)
from dataclasses import dataclass, field

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from connectors import pg_values, pgoutput, replication
from connectors.pgoutput import PgOutput, Shape
from connectors.postgres_catalog import Catalog, Wanted
from connectors.postgres_rows import Row, read_rows
from connectors.replication import Replication
from permaflow.changes import ChangeRecord, Rejected
from permaflow.errors import ConnectorError

_STATUS_GAP = 0.05
_LAST_WORD = 1.0
_SHORTEST_DELAY, _LONGEST_DELAY = 0.1, 5.0
_TURN_DELAY = 1.0
_MESSAGES = 4096
_BATCH_BYTES = 16_000_000


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes in the order of their commits.

    Transactions are whole unless they are larger than a batch (`max_records`, or 16 MB);
    `position` then stays before the transaction until its last part. `ignored` counts what is no
    change of a record.
    """

    records: tuple[ChangeRecord | Rejected, ...]
    position: int
    ignored: Mapping[str, int] = field(default_factory=dict)


class PostgresSource:
    """Reads one slot. Not for use by several tasks at once.

    Tables of the schemas `private` are read only if their full name is asked for.
    `position` is the last one that the caller knows to be safe, 0 if it never read. `shape` turns
    each change into what it stands for; what makes it raise is rejected. `org` owns the changes.
    `on_trouble` hears of every lost connection and how many seconds pass until the next attempt,
    and once if another process reads the slot.
    """

    def __init__(
        self,
        conninfo: str,
        *,
        name: str = "postgres",
        slot: str = "permaflow",
        publication: str = "permaflow",
        private: Iterable[str] = (),
        position: int = 0,
        shape: Shape | None = None,
        org: str = "",
        max_records: int = 1000,
        status_interval: float = 5.0,
        on_trouble: Callable[[Exception, float], None] | None = None,
    ) -> None:
        given = conninfo_to_dict(conninfo)
        parameters = dict(pg_values.SESSION)
        parameters["options"] = f"{given.get('options') or ''} {parameters['options']}".strip()
        parameters.setdefault("application_name", f"permaflow {name}")
        self._conninfo = make_conninfo(conninfo, **parameters)
        self._catalog = Catalog(conninfo, slot, publication, frozenset(private))
        self._types = pg_values.Types()
        self._name = name
        self._shape = shape
        self._org = org
        self._max_records = max_records
        self._interval = status_interval
        self._on_trouble = on_trouble
        self._confirmed = position
        self._delivered = 0
        self._server = 0
        self._began = position > 0
        self._nudge = asyncio.Event()

    @property
    def confirmed(self) -> int:
        """Everything before this is safe."""
        return self._confirmed

    @property
    def lag(self) -> int:
        """Bytes of log that the server has read for us and that are not confirmed."""
        return max(0, self._server - self._confirmed)

    async def prepare(self) -> None:
        """Make slot and publication if they are not there: changes count from here on.

        `batches` does this too. Raises ConnectorError; SlotLostError if the slot should be there.
        """
        with _connector_errors():
            await self._catalog.ensure_slot(expected=self._began)

    async def ensure_publication(self, tables: Iterable[str] | Wanted) -> tuple[str, ...]:
        """Read exactly these tables from now on, `name` or `schema.name`; gives the unknown ones.

        Takes effect at once, also while batches are read. Raises ConnectorError.
        """
        with _connector_errors():
            return await self._catalog.publish(tables if callable(tables) else _these(tables))

    async def look(self, wanted: Mapping[str, Collection[str]], *, add: bool) -> list[Row]:
        """Rows as they are now: table (`name` or `schema.name`) and keys. Only tables that are read
        are looked at; with `add`, these are read from now on. Every change that is not seen here is
        told of. Raises ConnectorError.
        """
        with _connector_errors():
            if add:
                await self._catalog.publish_also(wanted)
            async with await psycopg.AsyncConnection.connect(
                self._conninfo, autocommit=True
            ) as session:
                return await read_rows(
                    session,
                    self._catalog.publication,
                    wanted,
                    self._types,
                    self._catalog.private,
                )

    async def begin_anew(self) -> None:
        """After a SlotLostError: a new slot, from now on. Raises ConnectorError."""
        with _connector_errors():
            await self._catalog.renew_slot()
        self._confirmed = self._delivered = 0
        self._began = False

    async def drop(self) -> None:
        """Take slot and publication away from the server. Raises ConnectorError."""
        with _connector_errors():
            await self._catalog.drop()

    async def confirm(self, position: int) -> None:
        """Everything before `position` is safe: the server may forget it."""
        if position > self._confirmed:
            self._confirmed = position
            self._nudge.set()

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """Changes as they are committed, without end.

        A lost connection is made again, with what was not confirmed once more. Raises
        SlotLostError, and ConnectorError for what only a change of settings can help.
        """
        delay, waiting = _SHORTEST_DELAY, False
        while True:
            try:
                async with (
                    self._stream() as stream,
                    contextlib.aclosing(self._read(stream)) as found,
                ):
                    async for batch in found:
                        delay, waiting = _SHORTEST_DELAY, False
                        yield batch
            except psycopg.errors.ObjectInUse as error:
                await self._pause(error, _TURN_DELAY, told=waiting)
                waiting = True
            except psycopg.errors.ObjectNotInPrerequisiteState as error:
                raise ConnectorError(f"The replication slot cannot be read: {error}") from error
            except psycopg.OperationalError as error:
                await self._pause(error, delay * random.uniform(0.5, 1.0))
                delay = min(delay * 2, _LONGEST_DELAY)
            except psycopg.Error as error:
                raise ConnectorError(f"PostgreSQL refuses to send changes: {error}") from error

    async def _pause(self, error: Exception, delay: float, *, told: bool = False) -> None:
        if self._on_trouble is not None and not told:
            self._on_trouble(error, delay)
        await asyncio.sleep(delay)

    @contextlib.asynccontextmanager
    async def _stream(self) -> AsyncIterator[Replication]:
        """An open stream that confirms on its own, and once more at its end."""
        catalog = self._catalog
        await catalog.ensure_slot(expected=self._began)
        stream = await Replication.start(
            self._conninfo, catalog.slot, catalog.publication, self._confirmed
        )
        self._began = True
        self._delivered = self._confirmed
        beats = asyncio.create_task(self._confirm_often(stream))
        try:
            yield stream
        finally:
            beats.cancel()
            await asyncio.wait({beats})
            if not beats.cancelled():
                beats.exception()  # The reader has met the same one.
            with contextlib.suppress(psycopg.Error, TimeoutError):
                async with asyncio.timeout(_LAST_WORD):
                    await stream.status(self._confirmed)
            await stream.close()

    async def _confirm_often(self, stream: Replication) -> None:
        """Soon after a confirmation, and when there is none often enough to stay connected.

        Ends with the connection; whoever reads then hears of it.
        """
        asked = 0.0
        while True:
            self._nudge.clear()
            ask = time.monotonic() - asked > self._interval
            await stream.status(self._confirmed, ask=ask)
            if ask:
                asked = time.monotonic()
            await asyncio.sleep(_STATUS_GAP)
            # wait_for of Python 3.11 forgets a cancellation that comes together with the event.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._nudge.wait()

    async def _read(self, stream: Replication) -> AsyncGenerator[Batch, None]:
        decoder = PgOutput(self._name, self._types, self._shape, self._org)
        records: list[ChangeRecord | Rejected] = []
        ignored: dict[str, int] = {}
        position = self._confirmed
        split, size = False, 0
        while True:
            for message in await stream.messages(_MESSAGES, 3 * self._interval + 10):
                if message[0] == replication.KEEPALIVE:
                    await self._keepalive(
                        stream, message, bool(decoder.transaction or records or split)
                    )
                    continue
                payload = message[replication.DATA_START :]
                kind = payload[0]
                if kind in pgoutput.CHANGES:
                    records.append(decoder.change(replication.data_position(message), payload))
                    size += len(payload)
                    if len(records) < self._max_records and size < _BATCH_BYTES:
                        continue
                elif kind == pgoutput.COMMIT:
                    position = decoder.end(payload)
                    continue
                elif kind == pgoutput.BEGIN:
                    decoder.begin(payload)
                    continue
                elif kind == pgoutput.RELATION:
                    relation = decoder.relate(payload)
                    await self._catalog.complete(relation, self._types)
                    decoder.admit(relation)
                    continue
                elif kind == pgoutput.MESSAGE:
                    decoder.told(payload)
                    continue
                else:
                    if kind == pgoutput.TRUNCATE:
                        ignored["truncate"] = ignored.get("truncate", 0) + 1
                    continue
                split, size = True, 0
                yield self._batch(records, position, ignored)
            if decoder.transaction:
                continue
            if records or split:
                # The last part of a split transaction may be empty: its position has to be told.
                split, size = False, 0
                yield self._batch(records, position, ignored)
            else:
                self._advance(position)

    def _batch(
        self, records: list[ChangeRecord | Rejected], position: int, ignored: dict[str, int]
    ) -> Batch:
        batch = Batch(tuple(records), position, dict(ignored))
        records.clear()
        ignored.clear()
        self._delivered = max(self._delivered, position)
        return batch

    async def _keepalive(self, stream: Replication, message: bytes, busy: bool) -> None:
        position, wanted = replication.keepalive(message)
        self._server = max(self._server, position)
        if not busy:
            self._advance(position)
        if wanted:
            await stream.status(self._confirmed)

    def _advance(self, position: int) -> None:
        """Nothing up to `position` concerns us: confirm it, unless earlier changes are open."""
        if self._confirmed >= self._delivered and position > self._confirmed:
            self._confirmed = self._delivered = position


def _these(tables: Iterable[str]) -> Wanted:
    async def names() -> Iterable[str]:
        return tables

    return names


@contextlib.contextmanager
def _connector_errors() -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        raise ConnectorError(f"PostgreSQL refused: {error}") from error
