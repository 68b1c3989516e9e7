"""Everything at once: the engine in the test's own loop and the gateway on a port of its own.

site         a running one
sites        makes one with settings of its own: `async with sites(max_steps=10) as site: …`; with
             `keep_slot=True` the replication slot is left for the next one of the same `cdc_slot`
topic        the name of a Kafka topic with one partition
send         puts a value into it: bytes as they are, anything else as JSON
"""

from __future__ import annotations

import asyncio
import base64
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import psycopg
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from connectors.postgres_catalog import Catalog
from pipeline.gateway.server import Gateway
from pipeline.ops import Ops
from pipeline.store import keys
from pipeline.store.database import GATEWAY_ROLE, Database
from tests.fix_engine import WITHIN, Engine, start_engine
from tests.fix_gateway import DEFINITIONS, RUNS

Sites = Callable[..., AbstractAsyncContextManager["RunningSite"]]
Event = tuple[str, dict[str, Any]]
Send = Callable[..., Awaitable[None]]


@dataclass
class RunningSite:
    """The engine, and a client of the gateway with a key that may do everything."""

    engine: Engine
    door: httpx.AsyncClient
    gateway: Gateway

    async def active(self, body: dict[str, Any]) -> dict[str, Any]:
        """Save and activate a workflow; answers it."""
        saved = await self.door.post(DEFINITIONS, json=body)
        assert saved.status_code == 201, saved.text
        path = f"{DEFINITIONS}/{saved.json()['id']}/status"
        answer = await self.door.patch(path, json={"status": "active"})
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def start(self, workflow_id: str, data: Any = None) -> str:
        body = {"workflow_id": workflow_id, "trigger_data": data}
        answer = await self.door.post(RUNS, json=body)
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run_id"])

    async def watch(self, run_id: str) -> list[Event]:
        """The events of a run, as its stream tells them until it ends by itself."""
        events: list[Event] = []
        async with (
            asyncio.timeout(WITHIN),
            self.door.stream("GET", f"{RUNS}/{run_id}/stream", timeout=WITHIN) as answer,
        ):
            assert answer.status_code == 200
            name = ""
            async for line in answer.aiter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    events.append((name, orjson.loads(line.removeprefix("data: "))))
        return events

    async def runs(self, workflow_id: str) -> list[dict[str, Any]]:
        """Every run of a workflow, newest first."""
        answer = await self.door.get(RUNS, params={"workflow_id": workflow_id, "limit": 200})
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()["data"]
        return found

    async def ended(self, workflow_id: str, count: int) -> list[dict[str, Any]]:
        """The runs of a workflow, once so many have ended."""

        async def look() -> list[dict[str, Any]] | None:
            found = await self.runs(workflow_id)
            return found if sum(run["finished_at"] is not None for run in found) >= count else None

        found = await self.engine.once(look)
        assert found is not None
        return found

    def forget_what_was_kept(self) -> None:
        """The gateway keeps for a moment what it found in the store; not any longer."""
        self.gateway.ports.entrances.forget()

    async def sql(self, *statements: str) -> list[Any]:
        """What somebody does in the database; answers the rows of the last statement."""
        rows: list[Any] = []
        url = self.engine.settings.database_url
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
            for statement in statements:
                cursor = await session.execute(statement.encode())
                rows = await cursor.fetchall() if cursor.description else []
        return rows

    async def published(self, table: str) -> None:
        """Comes back when changes of the table are read."""
        slot = self.engine.settings.cdc_slot
        listed = f"pg_publication_tables where pubname = '{slot}' and tablename = '{table}'"
        read = f"pg_replication_slots where slot_name = '{slot}' and active"
        async with asyncio.timeout(WITHIN):
            while not await self.sql(f"select 1 from {listed} and exists (select from {read})"):  # noqa: ASYNC110 - the server tells nobody
                await asyncio.sleep(0.02)


@pytest.fixture
def sites(database_url: str, nats_url: str) -> Sites:
    @asynccontextmanager
    async def start(**flags: object) -> AsyncIterator[RunningSite]:
        slot = str(flags.pop("cdc_slot", f"test_{uuid.uuid4().hex[:12]}"))
        async with AsyncExitStack() as stack:
            if not flags.pop("keep_slot", False):
                stack.push_async_callback(Catalog(database_url, slot, slot).drop)
            key = base64.b64encode(bytes(range(32))).decode()
            wanted = {"cdc_slot": slot, "http_port": 0, "encryption_keys": f"k1:{key}", **flags}
            engine = await start_engine(database_url, nats_url, stack, **wanted)
            database = await stack.enter_async_context(
                Database(database_url, size=4, role=GATEWAY_ROLE)
            )
            gateway = Gateway(engine.bus, database, engine.types, engine.settings, Ops({}))
            serving = asyncio.create_task(gateway.run())

            async def stop() -> None:
                await gateway.stop()
                async with asyncio.timeout(WITHIN):
                    await serving

            stack.push_async_callback(stop)
            _, key = await engine.database.run(keys.create, engine.org, "test", ["admin"])
            url = f"http://127.0.0.1:{gateway.port}"
            headers = {"authorization": f"Bearer {key}"}
            door = await stack.enter_async_context(
                httpx.AsyncClient(base_url=url, headers=headers, timeout=WITHIN)
            )
            yield RunningSite(engine, door, gateway)

    return start


@pytest.fixture
async def site(sites: Sites) -> AsyncIterator[RunningSite]:
    async with sites() as running:
        yield running


@pytest.fixture
async def topic(kafka_bootstrap: str) -> str:
    name = f"shop.t{uuid.uuid4().hex[:8]}.orders"
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1)])
    await admin.close()
    return name


@pytest.fixture
async def send(kafka_bootstrap: str, topic: str) -> AsyncIterator[Send]:
    producer = AIOKafkaProducer(bootstrap_servers=kafka_bootstrap)
    await producer.start()

    async def put(*values: Any) -> None:
        for value in values:
            raw = value if isinstance(value, bytes) else orjson.dumps(value)
            await producer.send_and_wait(topic, raw, key=b"1")

    yield put
    await producer.stop()
