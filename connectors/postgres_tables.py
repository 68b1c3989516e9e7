"""Rows of configured PostgreSQL databases: the port `permaflow.task.Tables`.

Give each source a role of its own that may do what workflows may do, and no more. A write keeps its
key in `permaflow_target.applied` (queries/setup.sql) in the same transaction, so it happens once
however often it is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Any

import psycopg
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from connectors import postgres_filters
from connectors import postgres_statements as statements
from connectors.postgres_statements import Statement, Table
from permaflow.errors import (
    ConnectorError,
    ConnectorTimeoutError,
    InputError,
    LimitError,
    PermaflowError,
    RefusedError,
    SettingsError,
    UnreachableError,
)
from permaflow.plan import Json
from permaflow.ports import Filter, Order
from permaflow.values import parse

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

CATALOGUE_AGE = 60.0
"""Seconds for which what the catalogue said about a table is believed."""

_SETUP, _IS_SET_UP = statements.text("setup"), statements.text("is_set_up")
_GUARD, _COLUMNS = statements.text("guard"), statements.text("columns")
_CLAIM, _ANSWERED = statements.text("claim"), statements.text("answered")
_KEEP, _PRUNE = statements.text("keep"), statements.text("prune")
_TABLES, _KEY_COLUMNS = statements.text("tables"), statements.text("key_columns")


DEFAULT_ORG = "default"


def parse_sources(setting: str) -> dict[str, dict[str, str]]:
    """`name=url` or `org/name=url`, separated by spaces: name → URL for each organisation.

    Raises `SettingsError`.
    """
    sources: dict[str, dict[str, str]] = {}
    for part in setting.split():
        whole, equals, url = part.partition("=")
        org, slash, name = whole.rpartition("/")
        mine = sources.setdefault(org if slash else DEFAULT_ORG, {})
        if not name or not equals or not url or name in mine or (slash and not org):
            raise SettingsError(
                "PERMAFLOW_SOURCES holds pairs name=url or org/name=url, separated by spaces, "
                "each name once."
            )
        mine[name] = url
    return sources


class PostgresTables:
    """Implements `permaflow.task.Tables` for the databases `sources`: name → URL."""

    def __init__(
        self,
        sources: Mapping[str, str],
        *,
        statement_timeout: timedelta = timedelta(seconds=10),
        row_limit: int = 1_000,
        connections: int = 4,
    ) -> None:
        self._row_limit = row_limit
        self._sources = {
            name: _Source(url, statement_timeout, connections) for name, url in sources.items()
        }

    async def __aenter__(self) -> PostgresTables:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        for source in self._sources.values():
            await source.aclose()

    async def create(
        self, source: str, table: str, values: Mapping[str, Json], *, key: str
    ) -> Json:
        rows = await self._write(source, table, key, lambda t: statements.insert(t, values))
        return rows[0]

    async def get(self, source: str, table: str, match: Mapping[str, Json]) -> Json | None:
        target = self._source(source)
        statement, values = await self._compose(
            target, table, lambda found: statements.select(found, match)
        )
        async with target.transaction() as connection:
            rows = await _rows(connection, statement, values)
        return rows[0] if rows else None

    async def update(
        self,
        source: str,
        table: str,
        match: Mapping[str, Json],
        values: Mapping[str, Json],
        *,
        key: str,
    ) -> list[Json]:
        return await self._write(
            source, table, key, lambda t: statements.update(t, match, values), match
        )

    async def upsert(
        self,
        source: str,
        table: str,
        match: Mapping[str, Json],
        values: Mapping[str, Json],
        *,
        key: str,
    ) -> Json:
        rows = await self._write(source, table, key, lambda t: statements.upsert(t, match, values))
        return rows[0]

    async def query(
        self,
        source: str,
        table: str,
        filters: Sequence[Filter] = (),
        order: Sequence[Order] = (),
        limit: int = 100,
    ) -> list[Json]:
        target = self._source(source)
        most = min(limit, self._row_limit)
        statement, values = await self._compose(
            target, table, lambda found: postgres_filters.query(found, filters, order, most)
        )
        async with target.transaction() as connection:
            return await _rows(connection, statement, values)

    async def delete(
        self, source: str, table: str, match: Mapping[str, Json], *, key: str
    ) -> list[Json]:
        return await self._write(source, table, key, lambda t: statements.delete(t, match), match)

    @property
    def sources(self) -> tuple[str, ...]:
        return tuple(self._sources)

    async def tables(self, source: str, limit: int = 1_000) -> list[str]:
        """The names of the tables of a source, each `schema.name`."""
        async with self._source(source).transaction() as connection:
            cursor = await connection.execute(_TABLES, {"limit": limit})
            return [name for (name,) in await cursor.fetchall()]

    async def columns(self, source: str, table: str) -> list[tuple[str, bool]]:
        """The columns of a table, and whether each is part of its primary key; the key first.

        Raises `InputError` for a table that is not there.
        """
        target = self._source(source)
        found = await target.table(table)
        async with target.transaction() as connection:
            names = {"schema": found.schema, "table": found.name}
            cursor = await connection.execute(_KEY_COLUMNS, names)
            key = [name for (name,) in await cursor.fetchall()]
        others = [name for name in found.columns if name not in key]
        return [*((name, True) for name in key), *((name, False) for name in others)]

    async def prune(self, age: timedelta) -> None:
        """Forget the keys of writes that are older than any attempt can be."""
        for source in self._sources.values():
            async with source.transaction() as connection:
                if await _is_set_up(connection):
                    await connection.execute(_PRUNE, {"age": age})

    def _source(self, name: str) -> _Source:
        found = self._sources.get(name)
        if found is None:
            known = ", ".join(sorted(self._sources)) or "none"
            raise InputError(
                f"There is no source {name!r} in PERMAFLOW_SOURCES. Known are: {known}."
            )
        return found

    async def _compose(
        self, source: _Source, table: str, compose: Callable[[Table], Statement]
    ) -> Statement:
        """The statement; what the catalogue is said to lack is looked for once more."""
        try:
            return compose(await source.table(table))
        except InputError:
            if not source.forget(table):
                raise
            return compose(await source.table(table))

    async def _write(
        self,
        source_name: str,
        table: str,
        key: str,
        compose: Callable[[Table], Statement],
        match: Mapping[str, Json] | None = None,
    ) -> list[Json]:
        source = self._source(source_name)
        statement, values = await self._compose(source, table, compose)
        await source.set_up()
        async with source.transaction() as connection:
            claimed = await (await connection.execute(_CLAIM, {"key": key})).fetchone()
            if claimed is None:
                kept = await (await connection.execute(_ANSWERED, {"key": key})).fetchone()
                answer: list[Json] = _parse(kept[0]) if kept else []
                return answer
            if match is not None:
                await self._check_limit(connection, await source.table(table), match)
            rows = await _texts(connection, statement, values)
            if match is not None and len(rows) > self._row_limit:
                raise self._too_many()
            answer_text = f"[{','.join(rows)}]"
            answer = _parse(answer_text)
            await connection.execute(_KEEP, {"key": key, "answer": answer_text})
        return answer

    async def _check_limit(
        self, connection: Connection, table: Table, match: Mapping[str, Json]
    ) -> None:
        statement, values = statements.count(table, match, self._row_limit + 1)
        row = await (await connection.execute(statement, values)).fetchone()
        if row is not None and row[0] > self._row_limit:
            raise self._too_many()

    def _too_many(self) -> LimitError:
        return LimitError(f"More than {self._row_limit:,} rows match; nothing was changed.")


class _Source:
    """One database: a pool that opens when it is first used, and what its catalogue said."""

    def __init__(self, url: str, timeout: timedelta, connections: int) -> None:
        self._milliseconds = str(round(timeout.total_seconds() * 1000))
        self._pool: AsyncConnectionPool[Connection] = AsyncConnectionPool(
            url,
            min_size=0,
            max_size=connections,
            timeout=timeout.total_seconds(),
            reconnect_timeout=timeout.total_seconds(),
            max_idle=60.0,
            open=False,
            kwargs={
                "autocommit": True,
                "prepare_threshold": None,
                "application_name": "permaflow action_record",
                "connect_timeout": 10,
            },
        )
        self._opening = asyncio.Lock()
        self._open = False
        self._ready = False
        self._tables: dict[str, tuple[float, Table]] = {}

    async def aclose(self) -> None:
        if self._open:
            await self._pool.close()

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction within the limits. What the driver raises becomes an error of ours."""
        try:
            async with self._opening:
                if not self._open:
                    await self._pool.open()
                    self._open = True
            async with self._pool.connection() as connection, connection.transaction():
                await connection.execute(_GUARD, {"timeout": self._milliseconds})
                yield connection
        except psycopg.Error as error:
            raise explain(error) from error
        except UnicodeEncodeError as error:
            raise InputError("A text holds half of a surrogate pair.") from error

    async def set_up(self) -> None:
        """Make the table of keys, if nobody has."""
        if self._ready:
            return
        async with self.transaction() as connection:
            if not await _is_set_up(connection):
                await connection.execute(_SETUP)
        self._ready = True

    async def table(self, name: str) -> Table:
        """What the catalogue knows of a table. Raises `InputError` if it knows none or several."""
        now = asyncio.get_running_loop().time()
        known = self._tables.get(name)
        if known is not None and now - known[0] < CATALOGUE_AGE:
            return known[1]
        parts = name.split(".")
        relations = [".".join(parts[index:]) for index in range(len(parts))]
        async with self.transaction() as connection:
            cursor = await connection.execute(_COLUMNS, {"name": name, "relations": relations})
            found = statements.tables(await cursor.fetchall())
        table = statements.choose(name, found)
        self._tables[name] = (now, table)
        return table

    def forget(self, name: str) -> bool:
        """Ask the catalogue again next time; False if nothing was known."""
        return self._tables.pop(name, None) is not None


async def _is_set_up(connection: Connection) -> bool:
    row = await (await connection.execute(_IS_SET_UP)).fetchone()
    return row is not None and bool(row[0])


async def _texts(connection: Connection, statement: Any, values: list[str | None]) -> list[str]:
    return [row[0] for row in await (await connection.execute(statement, values)).fetchall()]


async def _rows(connection: Connection, statement: Any, values: list[str | None]) -> list[Json]:
    return [_parse(row) for row in await _texts(connection, statement, values)]


def _parse(text: str) -> Any:
    return parse(text, exact_decimals=True)


def explain(error: psycopg.Error) -> PermaflowError:
    """What the driver's error means for the step: wrong for good, or worth another attempt."""
    state = error.sqlstate or ""
    said = (error.diag.message_primary or str(error)).strip().rstrip(".")
    if isinstance(error, PoolTimeout | PoolClosed | TooManyRequests):
        return UnreachableError("No connection to the source is free or can be made.")
    match state[:2]:
        case "":
            if isinstance(error, psycopg.DataError | psycopg.ProgrammingError):
                return InputError(f"A value cannot be sent to the source: {said}.")
            return UnreachableError(f"The connection to the source failed: {said}.")
        case "22":
            return InputError(f"The source cannot read a value: {said}.")
        case "23" | "44" | "P0":
            return RefusedError(f"The source refuses: {said}.")
        case "08" | "53" | "57" if state != "57014":
            return UnreachableError(f"The source is not available: {said}.")
        case "57" | "55" if state in ("57014", "55P03"):
            return ConnectorTimeoutError(f"The source took too long: {said}.")
        case "42" if state == "42501":
            return RefusedError(f"The role of the source may not do this: {said}.")
        case "42":
            return InputError(f"The source does not know this: {said}.")
        case "54":
            return LimitError(f"The source cannot take so much: {said}.")
    return ConnectorError(f"The source failed: {said}.")
