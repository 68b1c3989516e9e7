"""Questions to the built-in records, and records that are made or changed."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from permaflow.errors import InputError
from permaflow.ports import FILTERS, Filter, Order
from pipeline.store import records
from pipeline.store.database import Database
from pipeline.store.records import RecordStore

pytestmark = pytest.mark.service

RECORDS: dict[str, dict[str, Any]] = {
    "a": {"name": "Ada", "amount": 10.5, "tags": ["x", 1], "in": {"city": "Kiel"}},
    "b": {"name": "Bob", "amount": 2, "tags": [], "gone": None},
    "c": {"name": "Cy%", "amount": 300, "in": {"city": "Bonn"}},
    "d": {"amount": "many"},
}


@pytest.fixture
async def orders(store: Database, org: UUID, other_org: UUID) -> RecordStore:
    for record_id, data in RECORDS.items():
        await store.run(records.create, org, "order", data, record_id)
    await store.run(records.create, org, "else", {"name": "Ada"}, "a")
    await store.run(records.create, other_org, "order", {"name": "Ada"}, "z")
    return RecordStore(store, org)


async def found(orders: RecordStore, *filters: Filter, order: Any = (), limit: int = 100) -> str:
    rows: Any = await orders.query("order", filters, order, limit)
    return "".join(row["id"] for row in rows)


CASES: list[tuple[str, str, Any, str]] = [
    ("name", "eq", "Ada", "a"),
    ("gone", "eq", None, "abcd"),
    ("name", "ne", "Ada", "bcd"),
    ("amount", "gt", 2, "ac"),
    ("amount", "gte", 2, "abc"),
    ("amount", "lt", 10.5, "b"),
    ("amount", "lte", 10.5, "ab"),
    ("amount", "gt", "a", "d"),
    ("amount", "in", [2, "many", {}], "bd"),
    ("name", "in", [], ""),
    ("name", "not_in", ["Ada", "Bob"], "cd"),
    ("tags", "contains", 1, "a"),
    ("tags", "contains", "1", ""),
    ("name", "contains", "d", "a"),
    ("name", "contains", "%", "c"),
    ("in", "contains", "city", "ac"),
    ("name", "starts_with", "B", "b"),
    ("amount", "starts_with", "1", ""),
    ("gone", "exists", None, ""),
    ("name", "exists", None, "abc"),
    ("name", "not_exists", None, "d"),
    ("in.city", "eq", "Bonn", "c"),
    ("tags.0", "eq", "x", "a"),
    ("$id", "gt", "b", "cd"),
    ("$version", "eq", 1, "abcd"),
    ("$created_at", "lt", "2020", ""),
]


@pytest.mark.parametrize(("field", "op", "value", "expected"), CASES)
async def test_records_that_pass_are_found(
    orders: RecordStore, field: str, op: str, value: Any, expected: str
) -> None:
    assert await found(orders, Filter(field, op, value)) == expected


def test_every_way_to_compare_is_tried_above() -> None:
    assert {case[1] for case in CASES} == FILTERS


async def test_all_filters_must_hold_and_none_is_no_filter(orders: RecordStore) -> None:
    assert await found(orders) == "abcd"
    both = (Filter("amount", "gt", 1), Filter("in.city", "exists"))
    assert await found(orders, *both) == "ac"


async def test_records_come_in_order_and_what_has_none_last(orders: RecordStore) -> None:
    numbers = Filter("amount", "gt", 0)
    assert await found(orders, numbers, order=[Order("amount")]) == "bac"
    assert await found(orders, numbers, order=[Order("amount", descending=True)]) == "cab"
    assert await found(orders, order=[Order("name", descending=True)]) == "cbad"
    assert await found(orders, order=[Order("in.city"), Order("$id", descending=True)]) == "cadb"
    assert await found(orders, order=[Order("name")], limit=2) == "ab"
    with pytest.raises(InputError):
        await found(orders, order=[Order("a"), Order("b"), Order("c")])


async def test_a_record_is_made_or_changed(orders: RecordStore) -> None:
    made: Any = await orders.upsert("order", "e", {"name": "Eve"})
    changed: Any = await orders.upsert("order", "a", {"amount": 1})
    assert (made["data"], made["version"]) == ({"name": "Eve"}, 1)
    assert (changed["data"], changed["version"]) == (RECORDS["a"] | {"amount": 1}, 2)


async def test_of_many_at_once_none_is_lost(orders: RecordStore) -> None:
    await asyncio.gather(*(orders.upsert("order", "n", {f"f{n}": n}) for n in range(12)))
    record: Any = await orders.get("order", "n")
    assert record["data"] == {f"f{n}": n for n in range(12)}
    assert record["version"] == 12
