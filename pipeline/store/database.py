"""The pool of connections to PostgreSQL, and what every transaction goes through.

::

    await database.run(workflows.get, org, workflow_id)            engine: sees every organisation
    await database.run_as(org, workflows.get, org, workflow_id)    gateway: sees this one only
    async with database.connection() as connection: ...            autocommit; no second attempts

`run` and `run_as` open one transaction, call the function with the connection first, commit, and
do it all again when PostgreSQL says that another attempt may succeed; so the function must have no
effect outside the database. No exception of the driver leaves this file's methods, only
`StoreError`, `InputError` and `NotFoundError`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Concatenate, ParamSpec, Self, TypeVar
from uuid import UUID

import psycopg
from psycopg_pool import AsyncConnectionPool

from pipeline.store.queries import query
from pipeline.store.session import ENGINE_ROLE as ENGINE_ROLE
from pipeline.store.session import GATEWAY_ROLE as GATEWAY_ROLE
from pipeline.store.session import Connection as Connection
from pipeline.store.session import Session, check_server
from pipeline.store.sqlstate import passes, store_errors, translate

P = ParamSpec("P")
T = TypeVar("T")
Work = Callable[Concatenate[Connection, P], Awaitable[T]]

_SET_ORG = query("session.set_org")
_ATTEMPTS = 5
_CONNECT_EVERY = 0.05
_RECONNECT_EVERY = 0.5
"""Seconds between two attempts of the pool to reach a server that has gone. Its own way of doubling
the wait each time would leave everybody idle for seconds after the server is back.
"""


class Database:
    """A pool. Use it as a context manager, or `open` and `close` it."""

    def __init__(
        self,
        url: str,
        *,
        application_name: str = "permaflow",
        size: int = 4,
        role: str | None = None,
        statement_timeout: timedelta = timedelta(seconds=30),
        idle_timeout: timedelta = timedelta(seconds=10),
        acquire_timeout: timedelta = timedelta(seconds=2),
        prepare_threshold: int | None = 1,
    ) -> None:
        self._url = url
        self._session = Session(
            application_name, role, statement_timeout, idle_timeout, prepare_threshold
        )
        self._asking: set[asyncio.Future[None]] = set()
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            kwargs=self._session.options(),
            configure=self._session.configure,
            min_size=1,
            max_size=size,
            timeout=acquire_timeout.total_seconds(),
            reconnect_timeout=_RECONNECT_EVERY,
            reconnect_failed=self._reconnect,
            open=False,
        )

    async def open(self, timeout: timedelta = timedelta(seconds=10)) -> None:
        """Connects, and waits for a server that is starting.

        Raises `SettingsError` where the server is too old or forgets what it has confirmed, and
        `StoreUnavailableError` after `timeout`.
        """
        end = time.monotonic() + timeout.total_seconds()
        while not await self._is_sound(time.monotonic() >= end):  # noqa: ASYNC110 - a server
            await asyncio.sleep(_CONNECT_EVERY)
        with store_errors():
            await self._pool.open(wait=True, timeout=timeout.total_seconds())

    async def _is_sound(self, is_last: bool) -> bool:
        """Looks at the server through a connection of its own: a pool hides why it fails."""
        try:
            connection = await psycopg.AsyncConnection.connect(self._url)
        except psycopg.Error as error:
            # Without a SQLSTATE nobody answered; with 57P03 the server is starting.
            if is_last or error.sqlstate not in (None, "57P03"):
                raise translate(error) from error
            return False
        with store_errors():
            async with connection:
                await check_server(connection)
        return True

    async def _reconnect(self, _pool: AsyncConnectionPool[Connection]) -> None:
        """The pool has given a connection up. It tries again when somebody asks for one."""
        task = asyncio.ensure_future(self._ask())
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _ask(self) -> None:
        try:
            async with self._pool.connection(timeout=2 * _RECONNECT_EVERY):
                pass
        except psycopg.Error:  # nobody needed it
            pass

    async def close(self) -> None:
        await self._pool.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool, in autocommit."""
        with store_errors():
            async with self._pool.connection() as connection:
                yield connection

    @asynccontextmanager
    async def transaction(self, org: UUID | None = None) -> AsyncIterator[Connection]:
        """One transaction, of one organisation if `org` is given. No second attempts."""
        async with self.connection() as connection, connection.transaction():
            if org is not None:
                await connection.execute(_SET_ORG, {"org": str(org)})
            yield connection

    async def run(self, work: Work[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `work(connection, …)` answers, in one transaction that sees every organisation."""
        return await self._run(None, work, *args, **kwargs)

    async def run_as(self, org: UUID, work: Work[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The same as the gateway's role: sees and changes rows of this organisation only."""
        return await self._run(org, work, *args, **kwargs)

    async def _run(
        self, org: UUID | None, work: Work[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        for attempt in range(1, _ATTEMPTS + 1):
            begun = False
            try:
                async with self._pool.connection() as connection, connection.transaction():
                    if org is not None:
                        await connection.execute(_SET_ORG, {"org": str(org)})
                    begun = True
                    return await work(connection, *args, **kwargs)
            except (psycopg.Error, UnicodeEncodeError) as error:
                # A connection that died while it was idle has done nothing yet.
                again = passes(error) or (not begun and _is_lost(error))
                if not again or attempt == _ATTEMPTS:
                    raise translate(error) from error
            await asyncio.sleep(0.01 * 2**attempt * random.random())
        raise AssertionError("unreachable")


def _is_lost(error: BaseException) -> bool:
    return type(error) is psycopg.OperationalError or isinstance(
        error, psycopg.errors.AdminShutdown
    )
