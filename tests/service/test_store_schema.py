"""The schema: every query fits it, schema.sql equals the migrations, all of it is guarded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pipeline.store import migrate
from pipeline.store.queries import QUERIES
from pipeline.store.session import Session, connect

pytestmark = pytest.mark.service

SCHEMA = Path(migrate.__file__).with_name("schema.sql")
PLACEHOLDER = re.compile(r"%(?:\((?P<name>\w+)\))?[sbt]")

CATALOGUES = {
    "columns": """
        select c.relname, c.relkind::text, a.attname, format_type(a.atttypid, a.atttypmod),
          a.attnotnull, pg_get_expr(d.adbin, d.adrelid), a.attacl::text
        from pg_attribute a join pg_class c on c.oid = a.attrelid
        left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
        where c.relnamespace = 'permaflow'::regnamespace and a.attnum > 0 and not a.attisdropped
        order by 1, 3""",
    "tables": """
        select relname, relkind::text, reloptions, relrowsecurity, relforcerowsecurity,
          relreplident::text, relacl::text, pg_get_expr(relpartbound, oid)
        from pg_class where relnamespace = 'permaflow'::regnamespace order by 1""",
    "constraints": """
        select conrelid::regclass::text, conname, pg_get_constraintdef(oid) from pg_constraint
        where connamespace = 'permaflow'::regnamespace order by 1, 2""",
    "indexes": """
        select indexname, indexdef from pg_indexes where schemaname = 'permaflow' order by 1""",
    "functions": """
        select proname, pg_get_functiondef(oid), proacl::text from pg_proc
        where pronamespace = 'permaflow'::regnamespace order by 1""",
    "policies": """
        select tablename, policyname, roles, cmd, qual, with_check from pg_policies
        where schemaname = 'permaflow' order by 1, 2""",
    "schema": "select nspacl::text from pg_namespace where nspname = 'permaflow'",
    "rows": "select value::text from permaflow.generation",
}


def numbered(text: str) -> str:
    """`%(name)s` and `%s` as `$1`, `$2`."""
    numbers: dict[str, int] = {}

    def number(match: re.Match[str]) -> str:
        name = match["name"] or f"#{len(numbers)}"
        return f"${numbers.setdefault(name, len(numbers) + 1)}"

    return PLACEHOLDER.sub(number, text).replace("%%", "%")


async def test_every_query_can_be_prepared(database_url: str) -> None:
    refused: dict[str, str] = {}
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as session:
        for name, text in QUERIES.items():
            if text.startswith("create"):
                continue  # only queries and changes of rows can be prepared
            try:
                await session.execute(f'prepare "{name}" as {numbered(text)}'.encode())
            except psycopg.Error as error:
                refused[name] = str(error)
    assert refused == {}


HOT = [
    "journal.load_runs",
    "journal.load_rows",
    "journal.append_and_finish",
    "journal.finish_runs",
    "journal.set_status",
    "journal.clear_timers",
    "starts.start",
    "starts.known",
    "stats.settle",
    "timers.claim",
    "leases.renew",
    "leases.drop",
    "offsets.advance",
]


@pytest.mark.parametrize("name", HOT)
async def test_a_plan_that_was_made_on_an_empty_table_looks_ids_up(
    database_url: str, name: str
) -> None:
    """It is kept while the table grows; one that reads a whole table or index would get slower."""
    text = numbered(QUERIES[name])
    count = len(set(re.findall(r"\$\d+", text)))
    session = await connect(database_url, Session(plans="force_generic_plan"))
    async with session:
        await session.execute(f"prepare hot as {text}".encode())
        nulls = ", ".join(["null"] * count)
        cursor = await session.execute(f"explain (format json) execute hot({nulls})".encode())
        [[[plan]]] = await cursor.fetchall()
    whole = [
        f"{node['Node Type']} on {node.get('Relation Name') or node.get('Index Name')}"
        for node in walk(plan["Plan"])
        if node["Node Type"] in ("Seq Scan", "Hash Join", "Merge Join")
        or (node["Node Type"] in ("Index Scan", "Bitmap Index Scan") and "Index Cond" not in node)
    ]
    assert whole == []


def walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from walk(child)


async def test_the_readable_schema_equals_the_sum_of_the_migrations(
    database_url: str, empty_database_url: str
) -> None:
    async with await psycopg.AsyncConnection.connect(empty_database_url) as session:
        await session.execute(SCHEMA.read_bytes())
    for statement in CATALOGUES.values():
        migrated = await look(database_url, statement)
        assert migrated
        assert await look(empty_database_url, statement) == migrated


async def test_row_level_security_is_forced_on_every_table_with_an_organisation(
    database_url: str,
) -> None:
    unguarded = """
        select c.relname from pg_class c
        where c.relnamespace = 'permaflow'::regnamespace and c.relkind in ('r', 'p')
          and (c.relname = 'org' or exists (
            select from pg_attribute where attrelid = c.oid and attname = 'org_id'))
          and not (c.relrowsecurity and c.relforcerowsecurity
            and (select count(*) from pg_policy where polrelid = c.oid) = 2)"""
    assert await look(database_url, unguarded) == []


async def test_every_function_that_runs_as_the_owner_pins_its_search_path(
    database_url: str,
) -> None:
    loose = """
        select proname from pg_proc where pronamespace = 'permaflow'::regnamespace and prosecdef
          and not coalesce(proconfig @> array['search_path=pg_catalog, pg_temp'], false)"""
    assert await look(database_url, loose) == []


async def test_no_function_that_runs_as_the_owner_is_for_everybody(database_url: str) -> None:
    public = """
        select proname from pg_proc where pronamespace = 'permaflow'::regnamespace and prosecdef
          and (proacl is null or proacl::text ~ '[{,]=X')"""
    assert await look(database_url, public) == []


async def look(url: str, statement: str) -> list[tuple[object, ...]]:
    async with await psycopg.AsyncConnection.connect(url) as session:
        return await (await session.execute(statement.encode())).fetchall()
