"""Topics that are not what they were: what is lost is told, and what is there is read."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from connectors import kafka
from connectors.kafka_topics import Extent, Partition, extents, topic_ids
from permaflow.errors import ConnectorError
from pipeline import telemetry
from pipeline.kafka_source import KafkaChanges, _beginning
from pipeline.settings import load_settings
from pipeline.store import offsets
from pipeline.store.database import Connection, Database
from pipeline.store.offsets import Position
from tests.fix_engine import task
from tests.fix_site import Send, Sites
from tests.service.test_change_edges import letters, on_orders

pytestmark = [pytest.mark.service, pytest.mark.slow]


def gaps() -> float:
    return telemetry.SOURCE_GAPS.labels("kafka")._value.get()


def orders(*numbers: int) -> list[dict[str, Any]]:
    """New orders whose messages say nothing of a log position: their place is their identity."""
    return [{"id": number, "__op": "c"} for number in numbers]


async def make_again(bootstrap: str, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.delete_topics([topic])
    await admin.create_topics([NewTopic(topic, num_partitions=1, replication_factor=1)])
    await admin.close()


async def test_a_topic_that_is_made_again_while_nobody_reads_is_a_gap_and_read_from_its_start(
    sites: Sites, kafka_bootstrap: str, topic: str, send: Send
) -> None:
    """Though it has more messages than had been read of the old one."""
    new = range(11, 15)
    flags = {"kafka_bootstrap": kafka_bootstrap, "kafka_topics": topic, "kafka_group": topic}
    async with sites(**flags) as site:
        output = "{{trigger.record.id}}"
        workflow_id = (await site.active(on_orders(task("a", output=output))))["id"]
        await send(*orders(1, 2, 3))
        await site.ended(workflow_id, 3)
        assert await site.sql("select 1 from permaflow.dead_letter") == []
    before = gaps()
    await make_again(kafka_bootstrap, topic)
    await send(*orders(*new))
    async with sites(**flags) as site:
        ((source, position, reason),) = await letters(site, 1)
        runs = await site.ended(workflow_id, 7)
        shown = [(await site.door.get(f"/workflows/v1/runs/{run['id']}")).json() for run in runs]
        assert sorted(run["output"] for run in shown) == [1, 2, 3, *new]
    assert (source, position) == ("kafka", "gap")
    assert f"topic {topic} was deleted and made again" in reason
    assert gaps() == before + 1


async def test_a_topic_that_is_made_again_while_it_is_read_is_noticed(
    sites: Sites, kafka_bootstrap: str, topic: str, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "LOOK_EVERY", 0.3)
    flags = {"kafka_bootstrap": kafka_bootstrap, "kafka_topics": topic, "kafka_group": topic}
    async with sites(**flags) as site:
        workflow_id = (await site.active(on_orders(task("a"))))["id"]
        await send(*orders(1, 2, 3))
        await site.ended(workflow_id, 3)
        await make_again(kafka_bootstrap, topic)
        await letters(site, 1)
        await send(*orders(11, 12))
        assert len(await site.ended(workflow_id, 5)) == 5
        assert await site.sql("select next_offset from permaflow.kafka_offset") == [(2,)]


async def test_a_broker_tells_how_far_a_log_reaches_and_which_topic_it_is(
    kafka_bootstrap: str, topic: str, send: Send
) -> None:
    await send(*orders(1, 2, 3))
    partition = Partition(topic, 0)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka_bootstrap)
    await consumer.start()
    consumer.assign([TopicPartition(*partition)])
    try:
        found = (await extents(consumer, [partition]))[partition]
        assert (found.first, found.end) == (0, 3)
        assert await topic_ids(consumer, [topic, "no.such.topic"]) == {topic: found.topic_id}
        await make_again(kafka_bootstrap, topic)
        assert uuid.UUID((await topic_ids(consumer, [topic]))[topic]) != uuid.UUID(found.topic_id)
    finally:
        await consumer.stop()


@pytest.mark.parametrize(
    ("offset", "log", "extent", "begins", "says"),
    [
        (None, "", Extent(3, 9, "a"), None, ""),
        (4, "", Extent(3, 9, "a"), 4, ""),
        (9, "a", Extent(3, 9, "a"), 9, ""),
        (3, "a", Extent(3, 9, "a"), 3, ""),
        (2, "a", Extent(3, 9, "a"), 3, "1 offsets between were removed"),
        (2, "", Extent(9, 9), 9, "7 offsets between were removed"),
        (10, "a", Extent(3, 9, "a"), 3, "its end was lost"),
        (10, "", Extent(0, 9), 0, "its end was lost"),
        (4, "a", Extent(0, 9, "b"), 0, "deleted and made again"),
        (None, "a", Extent(0, 9, "b"), 0, "deleted and made again"),
    ],
)
def test_where_a_partition_is_read_from(
    offset: int | None, log: str, extent: Extent, begins: int | None, says: str
) -> None:
    kept = Position("t", 0, offset, 1, log)
    found, gap = _beginning(kept, extent)
    assert found.next_offset == begins
    assert (says in gap) if says else not gap
    assert found.log == extent.topic_id or (found.log.startswith("~") == (offset == 10))


def test_each_log_without_an_id_has_a_name_of_its_own() -> None:
    first, _ = _beginning(Position("t", 0, 10, 1), Extent(0, 9))
    second, _ = _beginning(Position("t", 0, 10, 1, first.log), Extent(0, 9))
    assert len({"", first.log, second.log}) == 3


def test_a_topic_that_is_gone_is_waited_for() -> None:
    with pytest.raises(ConnectorError, match="not there at this moment"):
        _beginning(Position("t", 0, 4, 1, "a"), Extent(0, 0))


async def test_what_retention_took_before_it_was_read_is_a_gap_that_is_told_once(
    store: Database,
) -> None:
    settings = load_settings(kafka_bootstrap="nowhere:1", kafka_topics="shop.orders")
    changes, at = KafkaChanges(settings, store), Partition("shop.orders", 0)
    assert await changes._take({at: Extent(0, 9, "a")}) == {at: None}

    async def read(connection: Connection) -> None:
        await offsets.advance(connection, changes._kept_as, [Position(*at, 4, 1)])

    await store.run(read)
    before = gaps()
    assert await changes._take({at: Extent(7, 9, "a")}) == {at: 7}
    assert await changes._take({at: Extent(7, 9, "a")}) == {at: 7}
    assert gaps() == before + 1

    async def told(connection: Connection) -> list[Any]:
        cursor = await connection.execute(
            "select source, position, reason from permaflow.dead_letter"
        )
        return await cursor.fetchall()

    ((source, position, reason),) = await store.run(told)
    assert (source, position) == ("kafka", "gap")
    assert "the 3 offsets between were removed" in reason
    (kept,) = await store.run(offsets.find, changes._kept_as)
    assert (kept.next_offset, kept.log) == (7, "a")
