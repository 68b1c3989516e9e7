"""What a source of changes keeps in a PostgreSQL database, and what it looks up there."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg
from psycopg import sql

from connectors.pg_values import Types
from connectors.pgoutput import Relation
from permaflow.errors import ConnectorError

_PARTS = re.split(
    r"^-- name: *(\w+)\n--.*\n",
    Path(__file__).with_name("queries").joinpath("postgres_cdc.sql").read_text(encoding="utf-8"),
    flags=re.MULTILINE,
)
_QUERIES: dict[str, LiteralString] = {
    name: cast(Any, text).strip().rstrip(";")
    for name, text in zip(_PARTS[1::2], _PARTS[2::2], strict=True)
}
_NAME = re.compile(r"[a-z0-9_]{1,63}")

Session = psycopg.AsyncConnection[tuple[Any, ...]]
Wanted = Callable[[], Awaitable[Iterable[str]]]


class SlotLostError(ConnectorError):
    """The replication slot is gone, and with it the changes since it was last read."""

    code = "slot_lost"
    retryable = False


@dataclass(frozen=True, slots=True)
class Catalog:
    """`conninfo` needs a role that may replicate, and that owns the tables it shall publish.

    Tables of the `private` schemas are found only by their name with the schema.
    """

    conninfo: str
    slot: str
    publication: str
    private: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for name in (self.slot, self.publication):
            if not _NAME.fullmatch(name):
                raise ConnectorError(
                    f"{name!r} cannot name a slot or a publication: use up to 63 lower-case "
                    "letters, digits and underscores."
                )

    async def ensure_slot(self, *, expected: bool) -> None:
        """Make publication and slot if they are not there.

        With `expected`, or where the publication says so, changes were read before: a slot that is
        missing or has lost its WAL then raises SlotLostError, since a new one would silently leave
        out what happened meanwhile.
        """
        async with self._session() as session:
            await _rows(session, "lock", self.slot)
            fresh = await self._ensure_publication(session)
            found = await _rows(session, "slot", self.slot)
            if found:
                self._check_slot(*found[0])
            elif expected or not fresh:
                raise SlotLostError(
                    f"The replication slot {self.slot!r} is gone; changes since it was last read "
                    "are lost. Start the source anew to go on from now."
                )
            else:
                await _rows(session, "create_slot", self.slot)

    async def renew_slot(self) -> None:
        """In place of a slot that is lost, one that begins now."""
        async with self._session() as session:
            await _rows(session, "lock", self.slot)
            found = await _rows(session, "slot", self.slot)
            if found and found[0][2] != "lost":
                return  # Another process was faster.
            await _rows(session, "drop_slot", self.slot)
            await _rows(session, "create_slot", self.slot)

    async def _ensure_publication(self, session: Session) -> bool:
        """Whether it is new. It is made right before the slot, so it tells that there was one."""
        (level, _), *_ = await _rows(session, "wal_level")
        if level != "logical":
            raise ConnectorError(
                f"The database writes wal_level={level}, which tells nothing of rows. Set "
                "wal_level = logical in postgresql.conf and restart the server."
            )
        if await _rows(session, "publication", self.publication):
            return False
        await self._run(session, "create_publication")
        return True

    def _check_slot(self, plugin: str, here: bool, wal: str | None, _: int | None) -> None:
        if plugin != "pgoutput" or not here:
            raise ConnectorError(
                f"The replication slot {self.slot!r} belongs to something else (plug-in {plugin}, "
                f"{'this' if here else 'another'} database). Choose another name for the slot."
            )
        if wal == "lost":
            raise SlotLostError(
                f"The replication slot {self.slot!r} was not read for so long that the server "
                "removed its WAL (max_slot_wal_keep_size); changes are lost. Drop the slot and "
                "start the source anew to go on from now."
            )

    async def publish(self, names: Wanted) -> tuple[str, ...]:
        """Publish exactly the tables with these names; gives the names that are no tables.

        They are asked for when nobody else can publish: what is wanted by then is not taken away.
        """
        async with self._session() as session:
            await _rows(session, "lock", self.slot)
            wanted = sorted(set(await names()))
            await self._ensure_both(session)
            found = await _rows(session, "find_tables", wanted, sorted(self.private))
            tables = {(schema, table) for _, schema, table in found}
            published = set(await _rows(session, "published", self.publication))
            if tables and tables != published:
                await self._name_tables(session, "set_tables", tables)
            elif published and not tables:
                await self._name_tables(session, "drop_tables", published)
        known = {name for name, _, _ in found}
        return tuple(name for name in wanted if name not in known)

    async def _ensure_both(self, session: Session) -> None:
        """What is published counts from now on: a new publication comes with a slot."""
        fresh = await self._ensure_publication(session)
        if fresh and not await _rows(session, "slot", self.slot):
            await _rows(session, "create_slot", self.slot)

    async def publish_also(self, names: Iterable[str]) -> None:
        """Publish the tables with these names, beside those that are published."""
        async with self._session() as session:
            await _rows(session, "lock", self.slot)
            await self._ensure_both(session)
            found = await _rows(session, "find_tables", sorted(names), sorted(self.private))
            published = set(await _rows(session, "published", self.publication))
            tables = published | {(schema, table) for _, schema, table in found}
            if tables != published:
                await self._name_tables(session, "set_tables", tables)

    async def _name_tables(self, session: Session, query: str, tables: set[Any]) -> None:
        names = (sql.Identifier(schema, table) for schema, table in sorted(tables))
        await self._run(session, query, tables=sql.SQL(", ").join(names))

    async def drop(self) -> None:
        """Take slot and publication away: the server keeps nothing for this source any more."""
        async with self._session() as session:
            await _rows(session, "drop_slot", self.slot)
            await self._run(session, "drop_publication")

    async def complete(self, relation: Relation, types: Types) -> None:
        """Learn what the stream does not tell of a table: new types, and the key behind FULL."""
        unknown = types.unknown(relation.types)
        if not unknown and not relation.full:
            return
        async with self._session() as session:
            if unknown:
                types.learn(cast(Any, await _rows(session, "types", unknown)))
            if relation.full:
                names = [name for (name,) in await _rows(session, "key_columns", relation.id)]
                relation.key = tuple(name for name in names if name in relation.columns)

    async def _run(self, session: Session, name: str, **parts: sql.Composable) -> None:
        names = {"publication": sql.Identifier(self.publication), **parts}
        wanted = {k: v for k, v in names.items() if f"{{{k}}}" in _QUERIES[name]}
        await session.execute(sql.SQL(_QUERIES[name]).format(**wanted))

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        async with await psycopg.AsyncConnection.connect(self.conninfo, autocommit=True) as session:
            yield session


async def _rows(session: Session, name: str, *values: object) -> list[tuple[Any, ...]]:
    cursor = await session.execute(_QUERIES[name], values)
    return await cursor.fetchall()


def text(name: str) -> LiteralString:
    """A query by its name."""
    return _QUERIES[name]
