"""Ingest over real sources: a change becomes the runs that it triggers, each once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import psycopg
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from connectors.postgres_catalog import Catalog
from pipeline.bus.jetstream import JetStreamBus, connect
from pipeline.ingest import Changes, Ingest, LostError, Source
from pipeline.kafka_source import KafkaChanges
from pipeline.settings import Settings, load_settings
from pipeline.sources import PostgresChanges
from pipeline.store import offsets, runs
from pipeline.store.database import Connection, Database

pytestmark = pytest.mark.service

LIMIT = 40.0
Send = Callable[..., Awaitable[None]]


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[JetStreamBus]:
    found = await connect(nats_url, name="test ingest")
    yield found
    await found.close()


@pytest.fixture
async def settings(database_url: str, kafka_bootstrap: str) -> AsyncIterator[Settings]:
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    topic = NewTopic(f"shop.{name}.orders", num_partitions=1, replication_factor=1)
    await admin.create_topics([topic])
    await admin.close()
    yield load_settings(
        database_url=database_url,
        kafka_bootstrap=kafka_bootstrap,
        kafka_topics=topic.name,
        kafka_group=name,
        cdc_slot=name,
        cdc_tables="auto",
    )
    await Catalog(database_url, name, name).drop()


@pytest.fixture
async def send(settings: Settings) -> AsyncIterator[Send]:
    """Puts a record, or raw bytes, in the topic."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap)
    await producer.start()

    async def send(record: dict[str, Any] | bytes) -> None:
        value = record if isinstance(record, bytes) else orjson.dumps({**record, "__op": "c"})
        await producer.send_and_wait(settings.kafka_topics, value, key=b"1")

    yield send
    await producer.stop()


class Watched:
    """A source that rings after every batch that was confirmed or lost."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.kind = source.kind
        self.watch = source.watch
        self.keep_position = source.keep_position
        self.close = source.close
        self.confirmed = 0
        self.rung = asyncio.Condition()

    async def batches(self) -> Any:
        async with aclosing(self.source.batches()) as batches:
            async for batch in batches:
                yield batch

    async def confirm(self, batch: Changes) -> None:
        await self.source.confirm(batch)
        async with self.rung:
            self.confirmed += len(batch.records)
            self.rung.notify_all()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(LIMIT), self.rung:
            await self.rung.wait_for(lambda: self.confirmed >= count)


class Running:
    """An ingest that runs while its block does."""

    def __init__(
        self, bus: JetStreamBus, store: Database, source: Source, settings: Settings
    ) -> None:
        self._ingest = Ingest(bus, store, [source], settings)

    async def __aenter__(self) -> None:
        self._task = asyncio.create_task(self._ingest.run())

    async def __aexit__(self, *_: object) -> None:
        await self._ingest.stop()
        async with asyncio.timeout(LIMIT):
            await self._task


async def inputs(store: Database, org: UUID) -> list[dict[str, Any]]:
    found = await store.run(runs.find, org)
    details = [await store.run(runs.get, org, run.id) for run in found]
    return sorted(
        (orjson.loads(run.input) for run in details if run.input is not None),
        key=lambda data: data["record"]["id"],
    )


async def test_a_row_that_passes_the_conditions_starts_a_run(
    bus: JetStreamBus, store: Database, org: UUID, workflow: UUID, settings: Settings
) -> None:
    source = Watched(PostgresChanges(settings, store))
    async with await psycopg.AsyncConnection.connect(
        settings.database_url, autocommit=True
    ) as session:
        await session.execute("create table public.orders (id int primary key, amount numeric)")
        await Catalog(settings.database_url, settings.cdc_slot, settings.cdc_slot).ensure_slot(
            expected=False
        )
        await source.watch(["orders"])
        await session.execute("insert into public.orders values (1, 50), (2, 150.25)")
        async with Running(bus, store, source, settings):
            await source.until(2)
    (data,) = await inputs(store, org)
    assert data["record"] == {"id": 2, "amount": 150.25}
    assert (data["event"], data["object"]) == ("created", "orders")


async def test_a_trigger_cannot_have_the_tables_of_the_engine(
    store: Database, org: UUID, settings: Settings
) -> None:
    source = PostgresChanges(settings, store)
    await source.watch(["run", "permaflow.run", "journal", "permaflow.api_key"])
    await source.close()
    async with await psycopg.AsyncConnection.connect(settings.database_url) as session:
        cursor = await session.execute(
            "select schemaname || '.' || tablename from pg_publication_tables where pubname = %s",
            (settings.cdc_slot,),
        )
        assert await cursor.fetchall() == [("permaflow.record",)]


@pytest.mark.slow
async def test_a_message_starts_its_run_once_however_often_it_is_read(
    bus: JetStreamBus, store: Database, org: UUID, workflow: UUID, settings: Settings, send: Send
) -> None:
    await send({"id": 1, "amount": 500})
    await send({"id": 2, "amount": 50})
    source = Watched(KafkaChanges(settings, store))
    async with Running(bus, store, source, settings):
        await source.until(2)
    (place,) = await positions(store, settings)
    assert place.next_offset == 2

    async def rewind(connection: Connection) -> None:
        await connection.execute("update permaflow.kafka_offset set next_offset = 0")

    await store.run(rewind)
    await send({"id": 3, "amount": 300})
    again = Watched(KafkaChanges(settings, store))
    async with Running(bus, store, again, settings):
        await again.until(3)
    assert [data["record"]["id"] for data in await inputs(store, org)] == [1, 3]
    (place,) = await positions(store, settings)
    assert place.next_offset == 3


async def test_a_message_that_cannot_be_read_goes_to_the_dead_letters(
    bus: JetStreamBus, store: Database, org: UUID, workflow: UUID, settings: Settings, send: Send
) -> None:
    await send(b"no json")
    await send({"id": 1, "amount": 500})
    source = Watched(KafkaChanges(settings, store))
    async with Running(bus, store, source, settings):
        await source.until(2)
    assert len(await inputs(store, org)) == 1

    async def letters(connection: Connection) -> list[Any]:
        cursor = await connection.execute("select source, position, raw from permaflow.dead_letter")
        return await cursor.fetchall()

    ((source_kind, position, raw),) = await store.run(letters)
    assert (source_kind, position, bytes(raw)) == (
        "kafka",
        f"{settings.kafka_topics}:0:0",
        b"no json",
    )


async def test_a_batch_whose_partition_another_reader_took_commits_nothing(
    bus: JetStreamBus, store: Database, org: UUID, workflow: UUID, settings: Settings, send: Send
) -> None:
    await send({"id": 1, "amount": 500})
    source = KafkaChanges(settings, store)
    ingest = Ingest(bus, store, [], settings)
    async with asyncio.timeout(LIMIT), aclosing(source.batches()) as batches:
        batch = await anext(batches)
        (place,) = await positions(store, settings)
        await store.run(offsets.claim, source._kept_as, [(place.topic, place.partition)])
        with pytest.raises(LostError, match="belong to another consumer"):
            await store.run(source.keep_position, batch)
        await ingest.take(source, batch)
        assert await inputs(store, org) == []
        with pytest.raises(LostError, match="assigned anew"):
            await store.run(source.keep_position, replace(batch, assignment=0))


async def positions(store: Database, settings: Settings) -> list[offsets.Position]:
    async def find(connection: Connection) -> list[Any]:
        cursor = await connection.execute("select distinct group_id from permaflow.kafka_offset")
        return await cursor.fetchall()

    ((group,),) = await store.run(find)
    assert group.startswith(f"{settings.kafka_group}@")
    return await store.run(offsets.find, group)
