"""The built-in documents: what goes in comes out, what cannot is the caller's fault."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from permaflow.errors import InputError, LimitError, StateError
from pipeline.store import records
from pipeline.store.database import Database
from pipeline.store.records import LARGEST, RecordStore

pytestmark = pytest.mark.service

DATA = {"name": "Zoë", "amount": 12.5, "big": 9_007_199_254_740_993, "tags": ["a", None, True]}


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"in": value}
    return value


async def test_a_record_comes_back_as_it_went_in(store: Database, org: UUID) -> None:
    made, is_new = await store.run(records.create, org, "order", DATA, "o1")
    assert is_new
    assert (made.id, made.object, made.data, made.version) == ("o1", "order", DATA, 1)
    assert await store.run(records.get, org, "order", "o1") == made


async def test_a_record_without_an_id_gets_one(store: Database, org: UUID) -> None:
    made, _ = await store.run(records.create, org, "order", {})
    assert UUID(made.id).version == 7


async def test_creating_a_record_that_is_there_changes_nothing(store: Database, org: UUID) -> None:
    first, _ = await store.run(records.create, org, "order", DATA, "o1")
    assert await store.run(records.create, org, "order", {"else": 1}, "o1") == (first, False)


async def test_an_update_merges_fields_or_replaces_them_all(store: Database, org: UUID) -> None:
    await store.run(records.create, org, "order", {"a": 1, "b": {"c": 2, "d": 3}}, "o1")
    merged = await store.run(records.update, org, "order", "o1", {"b": {"c": 4}, "e": None})
    assert merged is not None
    assert (merged.data, merged.version) == ({"a": 1, "b": {"c": 4}, "e": None}, 2)
    replaced = await store.run(records.update, org, "order", "o1", {"f": 6}, merge=False)
    assert replaced is not None
    assert (replaced.data, replaced.version) == ({"f": 6}, 3)


async def test_an_update_of_what_somebody_else_has_changed_is_refused(
    store: Database, org: UUID
) -> None:
    await store.run(records.create, org, "order", {"n": 0}, "o1")

    async def change(number: int) -> bool:
        try:
            await store.run(records.update, org, "order", "o1", {"n": number}, expected=1)
        except StateError:
            return False
        return True

    assert sum(await asyncio.gather(*(change(number) for number in range(6)))) == 1


async def test_what_is_not_there_is_none(store: Database, org: UUID, other_org: UUID) -> None:
    await store.run(records.create, org, "order", {}, "o1")
    for owner, kind, record_id in (
        (org, "order", "o2"),
        (org, "invoice", "o1"),
        (other_org, "order", "o1"),
    ):
        assert await store.run(records.get, owner, kind, record_id) is None
        assert await store.run(records.update, owner, kind, record_id, {}) is None
        assert await store.run(records.update, owner, kind, record_id, {}, expected=1) is None
        assert not await store.run(records.delete, owner, kind, record_id)
    assert await store.run(records.delete, org, "order", "o1")


async def test_pages_follow_each_other_without_gaps(store: Database, org: UUID) -> None:
    for number in range(5):
        await store.run(records.create, org, "order", {}, f"o{number}")
    first = await store.run(records.find, org, "order", limit=3)
    rest = await store.run(records.find, org, "order", limit=3, after=first[-1].id)
    assert [record.id for record in first + rest] == ["o0", "o1", "o2", "o3", "o4"]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ({"a": "\0"}, InputError),
        ({"\0": 1}, InputError),
        ({"a": "\ud800"}, InputError),
        ({"a": float("nan")}, InputError),
        ({"a": float("inf")}, InputError),
        ({"a": 2**64}, InputError),
        ({"a": b"bytes"}, InputError),
        ({1: "a"}, InputError),
        (nested(100), LimitError),
        (nested(5000), LimitError),
        ([1, 2], InputError),
    ],
)
async def test_data_that_no_database_could_give_back_is_refused(
    store: Database, org: UUID, data: Any, kind: type[InputError]
) -> None:
    with pytest.raises(kind):
        await store.run(records.create, org, "order", data, "o1")
    assert await store.run(records.get, org, "order", "o1") is None


async def test_the_largest_numbers_come_back(store: Database, org: UUID) -> None:
    data = {"least": -(2**63), "most": 2**64 - 1, "huge": 1.7976931348623157e308, "tiny": 5e-324}
    made, _ = await store.run(records.create, org, "order", data, "o1")
    assert made.data == data


@pytest.mark.parametrize("record_id", ["", "a\0b", "x" * 100_000, "\ud800"])
async def test_an_id_that_cannot_be_stored_is_the_callers_fault(
    store: Database, org: UUID, record_id: str
) -> None:
    with pytest.raises(InputError):
        await store.run(records.create, org, "order", {}, record_id)


async def test_a_task_sees_the_records_of_its_organisation(
    gateway: Database, org: UUID, other_org: UUID
) -> None:
    mine, theirs = RecordStore(gateway, org), RecordStore(gateway, other_org)
    made = await mine.create("order", {"n": 1}, record_id="o1")
    assert (made["id"], made["object"], made["data"], made["version"]) == (
        "o1",
        "order",
        {"n": 1},
        1,
    )
    assert await mine.create("order", {"n": 2}, record_id="o1") == made
    assert await theirs.get("order", "o1") is None
    changed = await mine.update("order", "o1", {"m": 2})
    assert changed is not None
    assert changed["data"] == {"n": 1, "m": 2}
    assert not await theirs.delete("order", "o1")
    assert await mine.delete("order", "o1")
    assert await mine.get("order", "o1") is None


@pytest.mark.parametrize("merge", [True, False])
async def test_a_record_grows_to_its_limit_and_no_further(
    store: Database, org: UUID, merge: bool
) -> None:
    def filled(size: int) -> dict[str, str]:
        """Together with `"a":1,` or without, so many bytes."""
        return {"b": "x" * (size - len('{"a":1,"b":""}' if merge else '{"b":""}'))}

    await store.run(records.create, org, "order", {"a": 1}, "o1")
    for size in (LARGEST - 1, LARGEST):
        assert await store.run(records.update, org, "order", "o1", filled(size), merge=merge)
    with pytest.raises(LimitError, match="at most 1,000,000"):
        await store.run(records.update, org, "order", "o1", filled(LARGEST + 1), merge=merge)
    kept = await store.run(records.get, org, "order", "o1")
    assert kept is not None
    assert kept.version == 3


async def test_a_new_record_has_the_same_limit(store: Database, org: UUID) -> None:
    text = "x" * (LARGEST - len('{"b":""}'))
    await store.run(records.create, org, "order", {"b": text}, "o1")
    with pytest.raises(LimitError):
        await store.run(records.create, org, "order", {"b": text + "x"}, "o2")


async def test_a_rotation_gives_every_key_a_number_of_its_own_and_the_same_one_again(
    store: Database, org: UUID
) -> None:
    async def take(key: str) -> int:
        return await store.run(records.turn, org, "Rotation", "r", key)

    keys = [f"step {number}" for number in range(40)]
    numbers = await asyncio.gather(*(take(key) for key in keys for _ in range(2)))
    assert sorted(set(numbers)) == list(range(40))
    assert numbers[::2] == numbers[1::2]
    assert await take("another") == 40


async def test_a_rotation_remembers_its_last_turns_and_stays_small(
    store: Database, org: UUID
) -> None:
    for number in range(205):
        assert await store.run(records.turn, org, "Rotation", "r", f"key {number}") == number
    kept = await store.run(records.get, org, "Rotation", "r")
    assert kept is not None
    assert kept.data["next"] == 205
    assert 90 <= len(kept.data["turns"]) <= 101
    assert await store.run(records.turn, org, "Rotation", "r", "key 204") == 204


async def test_a_record_that_is_no_rotation_becomes_one(store: Database, org: UUID) -> None:
    await store.run(records.create, org, "Rotation", {"note": "x"}, "r")
    assert await store.run(records.turn, org, "Rotation", "r", "a") == 0
    assert await store.run(records.turn, org, "Rotation", "r", "b") == 1
