"""Rows of a real PostgreSQL."""

from __future__ import annotations

import asyncio
import random
import string
from datetime import timedelta

import psycopg
import pytest

from connectors.postgres_tables import PostgresTables, explain, parse_sources
from permaflow.errors import (
    ConnectorError,
    ConnectorTimeoutError,
    InputError,
    LimitError,
    RefusedError,
    SettingsError,
    UnreachableError,
)

pytestmark = pytest.mark.service

SCHEMA = """
set search_path = public;
create table orders (
  id bigint generated always as identity primary key,
  sku varchar(8) not null,
  total numeric(30,10),
  paid boolean not null default false,
  tags text[],
  note jsonb,
  at timestamptz,
  target text,
  code char(3),
  amount double precision,
  unique (sku)
);
create schema sales;
create table sales.visits (name text, n int check (n > 0));
create table other (name text);
create schema twice;
create table twice.other (name text);
create view paid_orders as select id, sku, paid from orders;
create schema permaflow;
create table permaflow.run (id int);
"""


@pytest.fixture
async def connection(empty_database_url):
    async with await psycopg.AsyncConnection.connect(
        empty_database_url, autocommit=True
    ) as connection:
        await connection.execute(SCHEMA)
        yield connection


@pytest.fixture
async def tables(connection, empty_database_url):
    async with PostgresTables({"shop": empty_database_url}, row_limit=5) as made:
        yield made


async def rows(connection, query):
    return await (await connection.execute(query)).fetchall()


async def test_a_row_is_created_and_given_back(tables):
    made = await tables.create("shop", "orders", {"sku": "a", "total": 5}, key="k")

    assert made["id"] == 1
    assert (made["sku"], made["total"], made["paid"]) == ("a", 5, False)
    assert await tables.get("shop", "orders", {"sku": "a"}) == made


async def test_a_row_of_defaults_can_be_created(tables, connection):
    await connection.execute("create table counters (id serial, n int default 7)")

    assert await tables.create("shop", "counters", {}, key="k") == {"id": 1, "n": 7}


async def test_rows_are_updated_by_what_they_hold(tables):
    for sku, note in (("a", None), ("b", {"x": 1}), ("c", None)):
        await tables.create("shop", "orders", {"sku": sku, "note": note}, key=sku)

    changed = await tables.update("shop", "orders", {"note": None}, {"paid": True}, key="u")

    assert sorted(row["sku"] for row in changed) == ["a", "c"]
    assert (await tables.get("shop", "orders", {"sku": "b"}))["paid"] is False


async def test_rows_are_deleted_and_given_back(tables, connection):
    for sku in "ab":
        await tables.create("shop", "orders", {"sku": sku}, key=sku)

    [gone] = await tables.delete("shop", "orders", {"sku": "a", "paid": False}, key="d")

    assert gone["sku"] == "a"
    assert await rows(connection, "select sku from orders") == [("b",)]
    assert await tables.get("shop", "orders", {"sku": "a"}) is None


async def test_values_arrive_exactly(tables):
    values = {
        "sku": "ä'\"\\%s",
        "total": "12345678901234567890.0123456789",
        "tags": ["a,b", 'q"\\', "", "NULL", None, "{}"],
        "note": {"id": 9007199254740993, "deep": [None, {"x": 0.1}]},
        "at": "2026-01-02T03:04:05.678901+02:00",
        "target": "t",
        "amount": 0.1,
    }

    made = await tables.create("shop", "orders", values, key="k")

    assert made["total"] == "12345678901234567890.0123456789"
    assert made["tags"] == values["tags"]
    assert made["note"] == values["note"]
    assert made["sku"] == values["sku"]
    assert made["amount"] == 0.1
    assert made["target"] == "t"


async def test_big_integers_are_not_rounded(tables, connection):
    await connection.execute("create table big (n bigint, d numeric)")

    made = await tables.create("shop", "big", {"n": 9007199254740993, "d": 2**64}, key="k")

    assert made == {"n": 9007199254740993, "d": "18446744073709551616"}
    assert await tables.get("shop", "big", {"n": 9007199254740993}) == made


async def test_text_that_is_too_long_is_refused_and_not_cut(tables):
    with pytest.raises(InputError, match="too long"):
        await tables.create("shop", "orders", {"sku": "123456789"}, key="k")
    made = await tables.create("shop", "orders", {"sku": "s", "code": "abc"}, key="k2")
    assert made["code"] == "abc"


# --- once ---------------------------------------------------------------------------------------


async def test_a_write_with_the_same_key_happens_once(tables, connection):
    first = await tables.create("shop", "sales.visits", {"name": "x", "n": 1}, key="k")
    second = await tables.create("shop", "sales.visits", {"name": "x", "n": 1}, key="k")
    other = await tables.create("shop", "sales.visits", {"name": "x", "n": 1}, key="k2")

    assert first == second == other
    assert await rows(connection, "select count(*) from sales.visits") == [(2,)]


async def test_an_update_that_comes_again_gives_what_it_gave(tables, connection):
    await tables.create("shop", "orders", {"sku": "a"}, key="c")
    first = await tables.update("shop", "orders", {"paid": False}, {"paid": True}, key="u")
    await connection.execute("update orders set paid = false")
    again = await tables.update("shop", "orders", {"paid": False}, {"paid": True}, key="u")

    assert first == again
    assert await rows(connection, "select paid from orders") == [(False,)]


async def test_a_write_that_failed_leaves_no_key_behind(tables):
    with pytest.raises(RefusedError):
        await tables.create("shop", "sales.visits", {"n": -1}, key="k")

    assert await tables.create("shop", "sales.visits", {"n": 1}, key="k") == {"name": None, "n": 1}


async def test_many_at_once_with_one_key_write_one_row(tables, connection, empty_database_url):
    others = [PostgresTables({"shop": empty_database_url}) for _ in range(3)]
    writers = [tables, *others]

    made = await asyncio.gather(
        *(
            writers[i % 4].create("shop", "sales.visits", {"name": str(i), "n": 1}, key="k")
            for i in range(16)
        )
    )
    for other in others:
        await other.aclose()

    assert len({row["name"] for row in made}) == 1
    assert await rows(connection, "select count(*) from sales.visits") == [(1,)]


async def test_old_keys_are_forgotten(tables, connection):
    for key in ("old", "new"):
        await tables.create("shop", "sales.visits", {"n": 1}, key=key)
    await connection.execute(
        "update permaflow_target.applied set at = at - interval '9 days' where key = 'old'"
    )

    await tables.prune(timedelta(days=8))

    assert await rows(connection, "select key from permaflow_target.applied") == [("new",)]


# --- names --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["nothing", "public.nothing", "pg_catalog.pg_class", "pg_class", "permaflow.run", "run",
     "permaflow_target.applied", "applied", "information_schema.tables", "", ".", "orders;",
     'orders" ; drop table orders; --', "orders as o, pg_shadow", "PUBLIC.ORDERS", "orders\0"],
)  # fmt: skip
async def test_a_table_that_nobody_knows_is_refused(tables, connection, name):
    await tables.create("shop", "orders", {"sku": "a"}, key="k")
    with pytest.raises(InputError):
        await tables.delete("shop", name, {"id": 1}, key="d")

    assert await rows(connection, "select count(*) from orders") == [(1,)]


async def test_an_ambiguous_table_means_the_one_in_public(tables, connection):
    await tables.create("shop", "other", {"name": "x"}, key="1")
    await tables.create("shop", "twice.other", {"name": "y"}, key="2")

    assert await rows(connection, "select name from other") == [("x",)]
    assert await rows(connection, "select name from twice.other") == [("y",)]


async def test_an_unknown_source_lists_those_there_are(tables):
    with pytest.raises(InputError, match="Known are: shop"):
        await tables.get("store", "orders", {"id": 1})


async def test_a_column_that_was_added_a_moment_ago_is_found(tables, connection):
    await tables.create("shop", "other", {"name": "x"}, key="1")
    await connection.execute("alter table other add column extra int")

    made = await tables.create("shop", "other", {"name": "x", "extra": 5}, key="2")

    assert made == {"name": "x", "extra": 5}


async def test_a_table_that_was_dropped_a_moment_ago_is_refused(tables, connection):
    await tables.create("shop", "twice.other", {"name": "x"}, key="1")
    await connection.execute("drop table twice.other")

    with pytest.raises(InputError, match="does not exist"):
        await tables.create("shop", "twice.other", {"name": "x"}, key="2")


async def test_a_view_is_a_table_like_any_other(tables):
    await tables.create("shop", "orders", {"sku": "a"}, key="k")

    [row] = await tables.update("shop", "paid_orders", {"sku": "a"}, {"paid": True}, key="u")

    assert row == {"id": 1, "sku": "a", "paid": True}


ALPHABET = string.ascii_letters + "\"'`;-/*\\%${}()[]., \n\t?:=|&äß\u2028𝄞"


async def test_hostile_names_and_values_do_no_harm(tables, connection):
    """Tables and columns with random names, filled with random values: all arrive as they are."""
    dice = random.Random(20260101)

    def word():
        return "".join(dice.choice(ALPHABET) for _ in range(dice.randint(1, 12)))

    for number in range(60):
        table, columns = word(), sorted({word() for _ in range(4)})
        fields = psycopg.sql.SQL(", ").join(
            psycopg.sql.SQL("{} text").format(psycopg.sql.Identifier(name)) for name in columns
        )
        await connection.execute(
            psycopg.sql.SQL("create table {} ({})").format(psycopg.sql.Identifier(table), fields)
        )
        values = {name: word() * dice.randint(1, 3) for name in columns}
        made = await tables.create("shop", table, values, key=f"c{number}")
        assert made == values
        assert await tables.get("shop", table, values) == values
        assert await tables.update(
            "shop", table, values, dict.fromkeys(columns, table), key=f"u{number}"
        ) == [dict.fromkeys(columns, table)]
        assert len(await tables.delete("shop", table, {columns[0]: table}, key=f"d{number}")) == 1
        await connection.execute(
            psycopg.sql.SQL("drop table {}").format(psycopg.sql.Identifier(table))
        )
    assert await rows(connection, "select count(*) from orders") == [(0,)]


# --- limits and errors --------------------------------------------------------------------------


async def test_more_rows_than_the_limit_are_not_touched(tables, connection):
    await connection.execute("insert into other select 'x' from generate_series(1, 6)")

    with pytest.raises(LimitError, match="More than 5 rows"):
        await tables.delete("shop", "other", {"name": "x"}, key="d")
    assert await rows(connection, "select count(*) from other") == [(6,)]

    await connection.execute("delete from other where ctid = '(0,1)'")
    assert len(await tables.delete("shop", "other", {"name": "x"}, key="d")) == 5


async def test_too_many_rows_are_noticed_before_any_is_written(tables, connection):
    await connection.execute(
        "insert into other select 'x' from generate_series(1, 6);"
        "create function no() returns trigger language plpgsql as "
        "$$ begin raise exception 'touched'; end $$;"
        "create trigger no before update on other execute function no()"
    )

    with pytest.raises(LimitError):
        await tables.update("shop", "other", {"name": "x"}, {"name": "y"}, key="u")


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"sku": None}, RefusedError, "null value"),
        ({"sku": "dup"}, RefusedError, "orders_sku_key"),
        ({"sku": "x", "total": "many"}, InputError, "invalid input syntax"),
        ({"sku": "x", "at": "yesterday-ish"}, InputError, "invalid input syntax"),
        ({"sku": "x", "id": 5}, InputError, "non-DEFAULT value"),
        ({"sku": "x\0"}, InputError, "NUL"),
        ({"sku": "\ud800"}, InputError, "surrogate"),
        ({"sku": ["x"]}, InputError, "is no array"),
        ({"sku": {"x": 1}}, InputError, "is not JSON"),
        ({"sku": "x", "tags": "a"}, InputError, "malformed array"),
    ],
)
async def test_what_the_database_forbids_is_no_use_to_repeat(tables, values, error, message):
    await tables.create("shop", "orders", {"sku": "dup"}, key="first")

    with pytest.raises(error, match=message) as caught:
        await tables.create("shop", "orders", values, key="k")
    assert caught.value.retryable is False


async def test_what_a_trigger_forbids_is_refused(tables, connection):
    await connection.execute(
        "create function no() returns trigger language plpgsql as "
        "$$ begin raise exception 'not on Sundays'; end $$;"
        "create trigger no before insert on other execute function no()"
    )

    with pytest.raises(RefusedError, match="not on Sundays"):
        await tables.create("shop", "other", {"name": "x"}, key="k")


async def test_a_row_that_somebody_holds_is_waited_for_until_the_timeout(
    connection, empty_database_url
):
    hasty = PostgresTables({"shop": empty_database_url}, statement_timeout=timedelta(seconds=0.3))
    await hasty.create("shop", "orders", {"sku": "a"}, key="c")
    async with connection.transaction():
        await connection.execute("update orders set paid = true")
        with pytest.raises(ConnectorTimeoutError) as caught:
            await hasty.update("shop", "orders", {"sku": "a"}, {"paid": False}, key="u")
    await hasty.aclose()

    assert caught.value.retryable


async def test_a_database_that_is_not_there_is_trouble_that_may_pass():
    away = PostgresTables(
        {"shop": "postgresql://nobody@127.0.0.1:9/none"}, statement_timeout=timedelta(seconds=0.3)
    )
    with pytest.raises(UnreachableError):
        await away.get("shop", "orders", {"id": 1})
    await away.aclose()


async def test_a_connection_that_breaks_is_trouble_that_may_pass(tables, connection):
    await tables.create("shop", "orders", {"sku": "a"}, key="c")
    await connection.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where application_name = 'permaflow action_record'"
    )
    with pytest.raises(ConnectorError) as caught:
        await tables.get("shop", "orders", {"sku": "a"})

    assert caught.value.retryable
    assert (await tables.get("shop", "orders", {"sku": "a"}))["sku"] == "a"


async def test_a_role_without_rights_is_told_so(tables, connection, empty_database_url):
    await connection.execute("create table secret (name text)")
    await connection.execute("drop role if exists permaflow_test_reader")
    await connection.execute("create role permaflow_test_reader login password 'x'")
    try:
        url = psycopg.conninfo.make_conninfo(
            empty_database_url, user="permaflow_test_reader", password="x"
        )
        reader = PostgresTables({"shop": url})
        with pytest.raises(RefusedError, match="permission denied"):
            await reader.get("shop", "secret", {"name": "x"})
        with pytest.raises(RefusedError, match="permission denied"):
            await reader.create("shop", "secret", {"name": "x"}, key="k")
        await reader.aclose()
    finally:
        await connection.execute("drop role permaflow_test_reader")


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (psycopg.errors.SerializationFailure(), ConnectorError),
        (psycopg.errors.DeadlockDetected(), ConnectorError),
        (psycopg.errors.AdminShutdown(), UnreachableError),
        (psycopg.errors.TooManyConnections(), UnreachableError),
        (psycopg.errors.QueryCanceled(), ConnectorTimeoutError),
        (psycopg.errors.LockNotAvailable(), ConnectorTimeoutError),
        (psycopg.OperationalError(), UnreachableError),
        (psycopg.errors.InternalError_(), ConnectorError),
    ],
)
def test_trouble_that_may_pass_is_retryable(error, kind):
    assert type(explain(error)) is kind
    assert explain(error).retryable


def test_sources_are_pairs():
    assert parse_sources("a=postgresql://x/y?z=1  b=host acme/a=here */all=there") == {
        "default": {"a": "postgresql://x/y?z=1", "b": "host"},
        "acme": {"a": "here"},
        "*": {"all": "there"},
    }
    for bad in ("a", "=x", "a=", "a=1 a=2", "acme/=x", "/a=x", "acme/a=1 acme/a=2"):
        with pytest.raises(SettingsError):
            parse_sources(bad)
