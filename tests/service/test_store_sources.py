"""Kafka offsets with a fence, messages that could not be read, and the audit."""

from __future__ import annotations

from dataclasses import replace
from uuid import UUID

import orjson
import pytest
from uuid_utils.compat import uuid7

from permaflow.errors import ConflictError, NotFoundError
from pipeline.store import audit, dead_letters, offsets, runs
from pipeline.store.database import Connection, Database
from pipeline.store.dead_letters import Unreadable
from pipeline.store.offsets import Position
from pipeline.store.starts import StartRequest, start_runs

pytestmark = pytest.mark.service

PARTITIONS = [("orders", 0), ("orders", 1)]


async def claim(store: Database) -> dict[int, Position]:
    found = await store.run(offsets.claim, "g", PARTITIONS)
    return {position.partition: position for position in found}


async def advance(store: Database, *positions: Position) -> None:
    await store.run(offsets.advance, "g", positions)


async def test_reading_goes_on_where_it_was_committed(store: Database) -> None:
    first = await claim(store)
    assert [position.next_offset for position in first.values()] == [None, None]
    await advance(store, replace(first[0], next_offset=0))
    await advance(store, replace(first[0], next_offset=17))
    again = await claim(store)
    assert (again[0].next_offset, again[1].next_offset) == (17, None)


async def test_a_consumer_that_lost_its_partition_commits_nothing(
    store: Database, org: UUID, workflow: UUID
) -> None:
    old, new = await claim(store), await claim(store)
    await advance(store, replace(new[0], next_offset=5))

    async def batch(connection: Connection) -> None:
        await start_runs(connection, [StartRequest(uuid7(), org, workflow, "kafka")])
        await offsets.advance(connection, "g", [replace(old[0], next_offset=9)])

    with pytest.raises(ConflictError, match="belong to another consumer"):
        await store.run(batch)
    assert await store.run(runs.find, org) == []
    assert [each.next_offset for each in await store.run(offsets.find, "g")] == [5, None]


async def test_offsets_never_go_back(store: Database) -> None:
    held = await claim(store)
    await advance(store, replace(held[0], next_offset=5))
    with pytest.raises(ConflictError):
        await advance(store, replace(held[0], next_offset=4))


async def test_partitions_advance_all_or_none(store: Database) -> None:
    held = await claim(store)
    stale = replace(held[1], next_offset=3, fence=held[1].fence - 1)
    with pytest.raises(ConflictError, match="1 of 2"):
        await advance(store, replace(held[0], next_offset=3), stale)
    assert [each.next_offset for each in await store.run(offsets.find, "g")] == [None, None]


async def test_groups_read_apart(store: Database) -> None:
    held = await claim(store)
    await advance(store, replace(held[0], next_offset=5))
    [other] = await store.run(offsets.claim, "h", PARTITIONS[:1])
    assert other.next_offset is None


async def test_an_unreadable_message_is_kept_byte_for_byte(store: Database, org: UUID) -> None:
    raw = bytes(range(256))
    reason = "not UTF-8: \0 \ud800"
    [letter_id] = await store.run(
        dead_letters.add, [Unreadable("kafka", "orders:0:17", reason, raw, org)]
    )
    [letter] = await store.run(dead_letters.find)
    assert (letter.id, letter.org, letter.position, letter.size) == (
        letter_id,
        org,
        "orders:0:17",
        256,
    )
    assert letter.reason == "not UTF-8: ␀ ?"
    assert await store.run(dead_letters.content, letter_id) == raw


async def test_dead_letters_are_found_by_organisation_and_source(
    store: Database, org: UUID, other_org: UUID
) -> None:
    letters = [
        Unreadable("kafka", "1", "r", b"", org),
        Unreadable("kafka", "2", "r", b""),
        Unreadable("webhook", "3", "r", b"", org),
    ]
    await store.run(dead_letters.add, letters)
    found = await store.run(dead_letters.find, org=org)
    assert [letter.position for letter in found] == ["3", "1"]
    assert len(await store.run(dead_letters.find, source="kafka")) == 2
    assert await store.run(dead_letters.find, org=other_org) == []
    older = await store.run(dead_letters.find, before=found[0].id, limit=1)
    assert [letter.position for letter in older] == ["2"]


async def test_a_dead_letter_that_was_dealt_with_is_gone(store: Database) -> None:
    made = await store.run(dead_letters.add, [Unreadable("kafka", "1", "r", b"x")])
    assert await store.run(dead_letters.remove, made) == 1
    with pytest.raises(NotFoundError):
        await store.run(dead_letters.content, made[0])


async def test_deeds_are_listed_newest_first(store: Database, org: UUID, other_org: UUID) -> None:
    for number in range(3):
        await store.run(audit.add, org, "ann", "run.cancelled", f"run:{number % 2}", {"n": number})
    found = await store.run(audit.find, org, limit=2)
    assert [orjson.loads(entry.details) for entry in found] == [{"n": 2}, {"n": 1}]
    rest = await store.run(audit.find, org, before=found[-1].id)
    assert [(entry.actor, entry.action, entry.object) for entry in rest] == [
        ("ann", "run.cancelled", "run:0")
    ]
    assert len(await store.run(audit.find, org, object_name="run:1")) == 1
    assert await store.run(audit.find, other_org) == []
