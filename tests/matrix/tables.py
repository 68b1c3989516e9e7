"""The outside of steps that write: tables that do what a text in the row says.

`do-<what>-<token>`, anywhere in a new row, makes its insert

    ok       succeed
    flaky    fail on the server's side (58030) the first time
    no       break a check
    hang     wait for ever
    held     wait until `release`
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import psycopg
from psycopg.sql import SQL, Identifier

TABLES = ("matrix.thing", "permaflow.record", "permaflow.document", "permaflow.notification")

_SETUP = """
create schema matrix;
create table matrix.thing (name text primary key, n int);
create function matrix.as_told() returns trigger
language plpgsql security definer set search_path = pg_catalog as $$
declare told text[] := regexp_match(to_jsonb(new)::text, 'do-([a-z]+)-([a-z-]+)');
begin
  case told[1]
    when 'flaky' then
      if nextval(format('matrix.%I', told[2])::regclass) = 1 then
        raise exception 'not now' using errcode = '58030';
      end if;
    when 'no' then raise exception 'never' using errcode = '23514';
    when 'hang' then perform pg_advisory_xact_lock_shared(7001);
    when 'held' then perform pg_advisory_xact_lock_shared(7002);
    else null;
  end case;
  return new;
end $$;
"""


async def set_up(url: str, flaky: Iterable[str]) -> None:
    """Make the tables obey. `flaky` are the tokens that something flaky has."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute(_SETUP)
        for token in flaky:
            name = Identifier("matrix", token)
            await connection.execute(SQL("create sequence {}").format(name))
        for table in TABLES:
            name = Identifier(*table.split("."))
            trigger = SQL(
                "create trigger as_told before insert on {} "
                "for each row execute function matrix.as_told()"
            )
            await connection.execute(trigger.format(name))


class Tables:
    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self._connection = connection

    async def release(self) -> None:
        """Let go on what is held."""
        await self._connection.execute("select pg_advisory_unlock(7002)")

    async def count(self, table: str, text: str) -> int:
        """How many rows have a text."""
        found = SQL("select count(*) from {} as one where to_jsonb(one)::text like {}")
        statement = found.format(Identifier(*table.split(".")), f"%{text}%")
        row = await (await self._connection.execute(statement)).fetchone()
        assert row is not None
        return int(row[0])


@asynccontextmanager
async def tables(url: str) -> AsyncIterator[Tables]:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        await connection.execute("select pg_advisory_lock(7001), pg_advisory_lock(7002)")
        yield Tables(connection)
