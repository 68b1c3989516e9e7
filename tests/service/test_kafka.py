"""The Kafka source against a real broker: offsets are the caller's, and nobody reads too much."""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import orjson
import pytest
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from connectors.kafka import Batch, KafkaSource
from connectors.kafka_topics import Extent, Partition
from permaflow.changes import ChangeRecord, Rejected
from permaflow.errors import ConnectorError

pytestmark = pytest.mark.service

LIMIT = 40.0
# A group forms after this time: the embedded broker waits for late members.
QUICK = {"rebalance_timeout_ms": 1000, "session_timeout_ms": 6000, "heartbeat_interval_ms": 500}

Produce = Callable[..., Awaitable[None]]


class Offsets:
    """The caller's store of offsets, and what it was asked."""

    def __init__(self) -> None:
        self.kept: dict[Partition, int] = {}
        self.reach: Mapping[Partition, Extent] = {}
        self.asked: list[frozenset[Partition]] = []
        self.assigned = asyncio.Event()

    async def __call__(self, partitions: Mapping[Partition, Extent]) -> Mapping[Partition, int]:
        self.asked.append(frozenset(partitions))
        self.reach = partitions
        self.assigned.set()
        return {each: self.kept[each] for each in partitions if each in self.kept}

    def keep(self, batch: Batch) -> None:
        self.kept.update(batch.positions)


@pytest.fixture
async def topic(kafka_bootstrap: str) -> str:
    """A topic of two partitions."""
    name = f"shop.public.t{uuid.uuid4().hex[:8]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, num_partitions=2, replication_factor=1)])
    await admin.close()
    return name


@pytest.fixture
async def produce(kafka_bootstrap: str, topic: str) -> AsyncIterator[Produce]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap, linger_ms=5)
    await producer.start()

    async def send(*numbers: int, partition: int = 0, raw: bytes | None = None) -> None:
        for number in numbers:
            value = orjson.dumps({"id": number, "__op": "c"}) if raw is None else raw
            await producer.send(topic, value, key=b"%d" % number, partition=partition)
        await producer.flush()

    yield send
    await producer.stop()


@pytest.fixture
def make_source(kafka_bootstrap: str, topic: str) -> Callable[..., KafkaSource]:
    group = f"group-{topic}"

    def make(offsets: Offsets, **options: Any) -> KafkaSource:
        wanted: dict[str, Any] = {"topics": [topic], "group": group, "options": QUICK}
        return KafkaSource(kafka_bootstrap, offsets=offsets, **(wanted | options))

    return make


def ids(batch: Batch) -> list[int]:
    assert all(isinstance(record, ChangeRecord) for record in batch.records)
    return [record.record["id"] for record in batch.records if isinstance(record, ChangeRecord)]


async def read(source: KafkaSource, offsets: Offsets, count: int) -> list[int]:
    found: list[int] = []
    async with asyncio.timeout(LIMIT), aclosing(source.batches()) as batches:
        async for batch in batches:
            found += ids(batch)
            offsets.keep(batch)
            if len(found) >= count:
                break
    return found


async def test_messages_of_a_partition_come_in_order_and_once(
    make_source: Callable[..., KafkaSource], produce: Produce, topic: str
) -> None:
    await produce(*range(50))
    await produce(*range(100, 150), partition=1)
    offsets = Offsets()
    found = await read(make_source(offsets), offsets, 100)
    assert [n for n in found if n < 100] == list(range(50))
    assert [n for n in found if n >= 100] == list(range(100, 150))
    assert offsets.kept == {Partition(topic, 0): 50, Partition(topic, 1): 50}


@pytest.mark.slow
async def test_reading_goes_on_where_the_caller_says_and_not_where_the_broker_does(
    make_source: Callable[..., KafkaSource], produce: Produce, topic: str
) -> None:
    await produce(*range(10))
    await produce(*range(100, 110), partition=1)
    offsets = Offsets()
    first = make_source(offsets)
    async with asyncio.timeout(LIMIT), aclosing(first.batches()) as batches:
        async for batch in batches:
            await first.confirm(batch)
            offsets.keep(batch)
            if sum(offsets.kept.values()) == 20:
                break
    offsets.kept = {Partition(topic, 0): 7}
    found = await read(make_source(offsets), offsets, 13)
    assert sorted(found) == [7, 8, 9, *range(100, 110)]
    assert offsets.asked[0] == {Partition(topic, 0), Partition(topic, 1)}


async def test_the_broker_learns_of_the_lag(
    make_source: Callable[..., KafkaSource], produce: Produce, topic: str, kafka_bootstrap: str
) -> None:
    await produce(*range(10))
    offsets = Offsets()
    source = make_source(offsets)
    async with asyncio.timeout(LIMIT), aclosing(source.batches()) as batches:
        batch = await anext(batches)
        assert batch.positions == {Partition(topic, 0): 10}
        await source.confirm(batch)
        assert source._committing is not None
        committed = source._consumer
        while await committed.committed(TopicPartition(topic, 0)) != 10:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_what_cannot_be_decoded_is_rejected_as_it_came(
    make_source: Callable[..., KafkaSource], produce: Produce, topic: str
) -> None:
    await produce(1)
    await produce(2, raw=b"\xff not json")
    await produce(3, raw=b"")
    await produce(4)
    offsets, records, ignored = Offsets(), list[ChangeRecord | Rejected](), 0
    async with asyncio.timeout(LIMIT), aclosing(make_source(offsets).batches()) as batches:
        async for batch in batches:
            records += batch.records
            ignored += batch.ignored.get("tombstone", 0)
            if len(records) >= 3:
                break
    first, bad, last = records
    assert isinstance(first, ChangeRecord)
    assert isinstance(last, ChangeRecord)
    assert isinstance(bad, Rejected)
    assert (bad.raw, bad.position) == (b"\xff not json", f"{topic}:0:1")
    assert (first.object, first.event_id) == (topic.rpartition(".")[2], f"{topic}:0:0")
    assert ignored == 1


async def test_two_members_share_the_partitions_and_the_first_lets_go_of_one(
    make_source: Callable[..., KafkaSource], produce: Produce, topic: str
) -> None:
    one, two = Offsets(), Offsets()
    two.kept = one.kept
    first, second = make_source(one), make_source(two)
    both = frozenset({Partition(topic, 0), Partition(topic, 1)})
    async with asyncio.timeout(LIMIT), aclosing(first.batches()) as batches:
        await produce(1)
        batch = await anext(batches)
        assert first.held == both
        assert first.holds(batch)
        one.keep(batch)
        generation = first.generation
        assert batch.generation == generation >= 0
        others = second.batches()
        waiting = asyncio.ensure_future(anext(others))
        more = asyncio.ensure_future(anext(batches))
        await two.assigned.wait()
        while len(one.asked) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0)
        assert two.asked[-1] | one.asked[-1] == both
        assert not two.asked[-1] & one.asked[-1]
        assert not first.holds(batch)
        assert first.generation > generation
        (mine,) = {p.partition for p in one.asked[-1]}
        (theirs,) = {p.partition for p in two.asked[-1]}
        await produce(10, partition=mine)
        await produce(20, partition=theirs)
        assert ids(await more) == [10]
        assert ids(await waiting) == [20]
        await others.aclose()


async def test_a_store_that_is_away_at_the_assignment_is_told_and_nothing_is_read(
    make_source: Callable[..., KafkaSource], produce: Produce
) -> None:
    await produce(1)

    async def away(partitions: Mapping[Partition, Extent]) -> Mapping[Partition, int | None]:
        raise OSError("the store is away")

    source = make_source(away)
    async with asyncio.timeout(LIMIT):
        with pytest.raises(ConnectorError, match="the store is away"):
            await anext(source.batches())


async def test_a_pattern_names_topics(
    make_source: Callable[..., KafkaSource], produce: Produce, topic: str
) -> None:
    await produce(1)
    offsets = Offsets()
    assert await read(make_source(offsets, topics=[f"^{topic[:-1]}."]), offsets, 1) == [1]


async def test_aborted_transactions_can_be_left_out(
    make_source: Callable[..., KafkaSource], produce: Produce
) -> None:
    source = make_source(Offsets(), read_committed=True)
    assert source._options["isolation_level"] == "read_committed"
    await produce(1)
    offsets = Offsets()
    assert await read(make_source(offsets, read_committed=True), offsets, 1) == [1]


async def test_a_broker_that_is_not_there_is_a_connector_error() -> None:
    source = KafkaSource("127.0.0.1:1", ["t"], group="g", offsets=Offsets())
    async with asyncio.timeout(LIMIT):
        with pytest.raises(ConnectorError, match="Kafka cannot be read"):
            await anext(source.batches())


def test_without_the_library_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "aiokafka", None)
    with pytest.raises(ConnectorError, match=r"pip install 'permaflow\[kafka\]'"):
        KafkaSource("127.0.0.1:1", ["t"], group="g", offsets=Offsets())
