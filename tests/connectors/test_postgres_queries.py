"""Questions to a real PostgreSQL, and rows that are made or changed."""

from __future__ import annotations

import asyncio

import psycopg
import pytest

from connectors.postgres_tables import PostgresTables
from permaflow.errors import InputError, LimitError, RefusedError
from permaflow.ports import FILTERS, Filter, Order

pytestmark = pytest.mark.service

SCHEMA = """
set search_path = public;
create table goods (
  sku text primary key,
  name text,
  amount numeric,
  tags text[],
  note jsonb,
  at timestamptz,
  "od%%d ""name" int
);
insert into goods values
  ('a', 'Ada''s apple', 10.5, '{red,round}', '{"k": 1, "in": {"x": [1, 2]}}', '2026-01-01Z', 1),
  ('b', 'Banana', 2, '{yellow}', null, '2026-02-01Z', 2),
  ('c', 'Cherry', 300, null, '{"k": 2}', null, 3),
  ('d', null, null, '{}', '[]', '2025-12-31Z', 4);
create table loose (name text, n int);
""".replace("%%", "%")


@pytest.fixture
async def tables(empty_database_url):
    async with await psycopg.AsyncConnection.connect(
        empty_database_url, autocommit=True
    ) as connection:
        await connection.execute(SCHEMA.encode())
    async with PostgresTables({"shop": empty_database_url}, row_limit=3) as tables:
        yield tables


async def found(tables, *filters, order=(), limit=100, table="goods"):
    rows = await tables.query("shop", table, filters, order or [Order("sku")], limit)
    return "".join(row["sku"] for row in rows)


@pytest.mark.parametrize(
    ("field", "op", "value", "expected"),
    [
        ("sku", "eq", "b", "b"),
        ("name", "eq", None, "d"),
        ("name", "ne", "Banana", "acd"),
        ("name", "ne", None, "abc"),
        ("amount", "gt", 10, "ac"),
        ("amount", "gte", 10.5, "ac"),
        ("amount", "lt", 10.5, "b"),
        ("amount", "lte", "10.5", "ab"),
        ("at", "gte", "2026-01-01T00:00:00Z", "ab"),
        ("sku", "in", ["a", "d", "x"], "ad"),
        ("sku", "in", [], ""),
        ("name", "not_in", ["Banana", "Cherry"], "ad"),
        ("sku", "not_in", [], "abc"),
        ("name", "contains", "'s a", "a"),
        ("name", "contains", "%", ""),
        ("tags", "contains", "round", "a"),
        ("note", "contains", {"in": {"x": [2]}}, "a"),
        ("name", "starts_with", "B", "b"),
        ("name", "starts_with", "_", ""),
        ("note", "exists", None, "acd"),
        ("note", "not_exists", None, "b"),
        ('od%d "name', "gt", 3, "d"),
    ],
)
async def test_rows_that_pass_are_found(tables, field, op, value, expected):
    assert await found(tables, Filter(field, op, value), limit=3) == expected


def test_every_way_to_compare_is_tried_above():
    ways = {
        mark.args[1][number][1]
        for mark in test_rows_that_pass_are_found.pytestmark
        for number in range(len(mark.args[1]))
    }
    assert ways == FILTERS


async def test_all_filters_must_hold(tables):
    filters = [Filter("amount", "gt", 1), Filter("note", "exists")]
    assert await found(tables, *filters) == "ac"


async def test_rows_come_in_order_and_what_has_none_last(tables):
    assert await found(tables, order=[Order("amount", descending=True)], limit=4) == "cab"
    assert await found(tables, order=[Order("amount")], limit=2) == "ba"
    assert await found(tables, Filter("sku", "in", ["c", "d"]), order=[Order("tags")]) == "dc"


async def test_no_more_rows_come_than_the_source_gives(tables):
    assert len(await tables.query("shop", "goods", (), (), 100)) == 3
    assert len(await tables.query("shop", "goods", (), (), 1)) == 1


@pytest.mark.parametrize(
    "bad",
    [
        Filter("nothing", "eq", 1),
        Filter("sku; drop table goods", "eq", 1),
        Filter("sku", "regex", "x"),
        Filter("sku", "in", "a"),
        Filter("sku", "eq", {"a": 1}),
        Filter("amount", "gt", "much"),
    ],
)
async def test_what_cannot_be_asked_is_an_error_of_the_step(tables, bad):
    with pytest.raises(InputError):
        await found(tables, bad)


async def test_an_order_by_what_is_not_there_is_refused(tables):
    with pytest.raises(InputError):
        await found(tables, order=[Order("sku desc; drop table goods")])


async def test_a_row_is_made_or_changed(tables):
    made = await tables.upsert("shop", "goods", {"sku": "e"}, {"name": "Elder"}, key="k1")
    changed = await tables.upsert("shop", "goods", {"sku": "a"}, {"amount": 1}, key="k2")
    kept = await tables.upsert("shop", "goods", {"sku": "b"}, {}, key="k3")

    assert (made["sku"], made["name"], made["amount"]) == ("e", "Elder", None)
    assert (changed["name"], changed["amount"]) == ("Ada's apple", 1)
    assert kept["name"] == "Banana"


async def test_the_same_key_changes_once(tables):
    first = await tables.upsert("shop", "goods", {"sku": "a"}, {"amount": 1}, key="k")
    again = await tables.upsert("shop", "goods", {"sku": "a"}, {"amount": 2}, key="k")
    assert again == first
    assert await found(tables, Filter("amount", "eq", 1)) == "a"


async def test_of_many_at_once_one_makes_the_row(tables):
    await asyncio.gather(
        *(
            tables.upsert("shop", "goods", {"sku": "z"}, {"amount": number}, key=f"k{number}")
            for number in range(20)
        )
    )
    assert await found(tables, Filter("sku", "eq", "z")) == "z"


@pytest.mark.parametrize(
    ("table", "match", "values"),
    [
        ("loose", {"name": "a"}, {"n": 1}),  # nothing says that there is one at most
        ("goods", {"sku": None}, {"amount": 1}),
        ("goods", {"sku": "a"}, {"sku": "b"}),
        ("goods", {}, {"amount": 1}),
    ],
)
async def test_what_matches_no_row_for_sure_is_refused(tables, table, match, values):
    with pytest.raises((InputError, RefusedError, LimitError)):
        await tables.upsert("shop", table, match, values, key="k")
