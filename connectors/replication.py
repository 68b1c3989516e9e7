"""A replication connection: the only module that drives libpq through psycopg's generators.

psycopg has no interface for replication, but lets a COPY in both directions pass. Messages are
those of the streaming replication protocol:
https://www.postgresql.org/docs/current/protocol-replication.html
"""

from __future__ import annotations

import asyncio
import time
from struct import Struct

import psycopg
from psycopg import generators, pq, sql
from psycopg.conninfo import make_conninfo
from psycopg.waiting import wait_async

_STATUS = Struct("!cQQQQB")
_DATA = Struct("!QQQ").unpack_from
_KEEPALIVE = Struct("!QQB").unpack_from
_EPOCH_US = 946_684_800_000_000  # 2000-01-01, where PostgreSQL counts from

DATA, KEEPALIVE = b"wk"
DATA_START = 25
"""Where the payload of a data message begins."""


def data_position(message: bytes) -> int:
    """Where in the log the change of a data message stands."""
    position: int = _DATA(message, 1)[0]
    return position


def keepalive(message: bytes) -> tuple[int, bool]:
    """How far the server has read the log, and whether it wants an answer at once."""
    position, _, wanted = _KEEPALIVE(message, 1)
    return position, bool(wanted)


def lsn(position: int) -> str:
    """A log position as PostgreSQL writes it."""
    return f"{position >> 32:X}/{position & 0xFFFFFFFF:X}"


class Replication:
    """One open stream. All errors are psycopg's; OperationalError means that it has ended."""

    def __init__(self, session: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
        self._session = session
        self._libpq = session.pgconn
        self._writing = asyncio.Lock()

    @classmethod
    async def start(cls, conninfo: str, slot: str, publication: str, position: int) -> Replication:
        """From `position`, or from what the server was last told, whichever is later."""
        session = await psycopg.AsyncConnection.connect(
            make_conninfo(conninfo, replication="database"), autocommit=True
        )
        stream = cls(session)
        try:
            await stream._start(slot, publication, position)
        except BaseException:
            await session.close()
            raise
        return stream

    async def _start(self, slot: str, publication: str, position: int) -> None:
        command = sql.SQL(
            "START_REPLICATION SLOT {} LOGICAL {} "
            "(proto_version '1', messages 'true', publication_names {})"
        ).format(sql.Identifier(slot), sql.SQL("0/0"), sql.Literal(f'"{publication}"'))
        text = command.as_string(self._session).replace(" 0/0 ", f" {lsn(position)} ")
        self._libpq.send_query(text.encode())
        (result, *_) = await wait_async(generators.execute(self._libpq), self._libpq.socket)
        if result.status != pq.ExecStatus.COPY_BOTH:
            raise psycopg.errors.error_from_result(result, encoding="utf-8")

    async def messages(self, limit: int, patience: float) -> list[bytes]:
        """At least one message, and as many as have arrived already.

        Raises OperationalError if the stream ends or is silent for `patience` seconds.
        """
        libpq = self._libpq
        found: list[bytes] = []
        while True:
            while len(found) < limit:
                size, data = libpq.get_copy_data(1)
                if size > 0:
                    found.append(bytes(data))
                elif size == 0:
                    break
                elif found:
                    return found
                else:
                    await self._raise_end()
            if found:
                return found
            await self._readable(patience)
            libpq.consume_input()

    async def _raise_end(self) -> None:
        results = await wait_async(generators.fetch_many(self._libpq), self._libpq.socket)
        for result in results:
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result, encoding="utf-8")
        raise psycopg.OperationalError("the server ended the replication stream")

    async def status(self, position: int, *, ask: bool = False) -> None:
        """Tell the server that everything before `position` is safe; `ask` wants an answer."""
        now = time.time_ns() // 1000 - _EPOCH_US
        async with self._writing:
            self._libpq.put_copy_data(
                _STATUS.pack(b"r", position, position, position, now, int(ask))
            )
            while self._libpq.flush():
                await self._writable()

    async def _readable(self, patience: float) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        socket = self._libpq.socket
        loop.add_reader(socket, _wake, ready)
        timer = loop.call_later(patience, _wake, ready, False)
        try:
            if not await ready:
                raise psycopg.OperationalError(f"the server was silent for {patience:g} seconds")
        finally:
            timer.cancel()
            loop.remove_reader(socket)

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_writer(self._libpq.socket, _wake, ready)
        try:
            await ready
        finally:
            loop.remove_writer(self._libpq.socket)

    async def close(self) -> None:
        await self._session.close()


def _wake(ready: asyncio.Future[bool], data_came: bool = True) -> None:
    if not ready.done():
        ready.set_result(data_came)
