"""The ends of runs on a Kafka topic."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import orjson
import pytest
from aiokafka import AIOKafkaConsumer

from permaflow.errors import ConnectorError
from pipeline.ids import new_id
from pipeline.run_events import RunEvents
from pipeline.settings import load_settings
from pipeline.store import stats
from pipeline.store.database import Database
from tests.fix_engine import Engine, graph, start_engine, task


async def ended_run(engine: Engine) -> tuple[str, str]:
    run, _ = await engine.finished(graph(task("a", "reject"), edges=["t>a"]))
    return str(run.id), str(run.workflow_id)


@pytest.fixture
async def unsettled(database_url: str, nats_url: str):
    """An engine that counts nothing, so that ends stay to be told."""
    async with AsyncExitStack() as stack:
        engine = await start_engine(database_url, nats_url, stack)

        async def nothing(_ids: object) -> list[object]:
            return []

        engine.completion._settle = nothing  # type: ignore[assignment]
        yield engine


async def test_the_end_of_a_run_is_told_with_the_runs_own_id(
    unsettled: Engine, database_url: str, kafka_bootstrap: str
) -> None:
    topic = f"runs-{new_id().hex}"
    run_id, workflow_id = await ended_run(unsettled)
    settings = load_settings(kafka_bootstrap=kafka_bootstrap, kafka_run_topic=topic)
    async with Database(database_url) as database:
        events = RunEvents(settings, database)
        wanted = [run.id for run in await database.run(stats.ended, [unsettled.last])]
        await events.tell(wanted)
        await events.tell(wanted)
        await events.close()
    consumer = AIOKafkaConsumer(
        topic, bootstrap_servers=kafka_bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        async with asyncio.timeout(20):
            told = [orjson.loads((await consumer.getone()).value) for _ in range(2)]
    finally:
        await consumer.stop()
    assert {event["id"] for event in told} == {run_id}
    assert told[0]["subject"] == workflow_id
    assert told[0]["data"]["status"] == "failed"
    assert told[0]["data"]["error"]["code"] == "refused"


async def test_a_broker_that_is_away_is_an_error_with_a_sentence(
    unsettled: Engine, database_url: str
) -> None:
    await ended_run(unsettled)
    settings = load_settings(kafka_bootstrap="127.0.0.1:1", kafka_run_topic="runs")
    async with Database(database_url) as database:
        events = RunEvents(settings, database)
        with pytest.raises(ConnectorError, match=r"127\.0\.0\.1:1"):
            await events.tell([unsettled.last])
        await events.close()
