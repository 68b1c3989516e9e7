"""Events reach runs, each once: rows, messages, records and webhooks, however often they come."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import time
import uuid
from typing import Any

import httpx
import pytest

from connectors.postgres_catalog import Catalog
from pipeline import telemetry
from pipeline.ingest import Changes
from pipeline.sources import PostgresChanges
from tests.fix_engine import task
from tests.fix_gateway import DEFINITIONS
from tests.fix_site import RunningSite, Send, Sites

RECORDS = "/records/v1/orders"


def large_orders() -> dict[str, Any]:
    """Starts with a new order above 100."""
    config = {
        "object": "orders",
        "event": "created",
        "conditions": [{"field": "amount", "op": "gt", "value": 100}],
    }
    nodes = [
        {"id": "t", "type": "trigger_record", "config": config},
        task("a", output="{{trigger.record.id}}"),
    ]
    edges = [{"source": "t", "target": "a"}]
    return {"name": "Large orders", "definition": {"nodes": nodes, "edges": edges}}


async def outputs(site: RunningSite, workflow_id: str, count: int) -> list[Any]:
    """What the runs of a workflow gave back, oldest first, once there are so many."""
    found = await site.ended(workflow_id, count)
    shown = [(await site.door.get(f"/workflows/v1/runs/{run['id']}")).json() for run in found]
    assert {run["status"] for run in shown} <= {"completed"}
    return [run["output"] for run in reversed(shown)]


def duplicates(source: str) -> float:
    return telemetry.DUPLICATE_STARTS.labels(source)._value.get()


async def test_a_row_starts_one_run_however_often_the_slot_tells_of_it(
    sites: Sites, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slot = f"test_{uuid.uuid4().hex[:12]}"
    flags = {"cdc_slot": slot, "cdc_tables": "auto"}
    try:
        with monkeypatch.context() as patch:
            # A process that dies between its commit and its word to the server.
            async def silent(self: PostgresChanges, batch: Changes) -> None: ...

            patch.setattr(PostgresChanges, "confirm", silent)
            async with sites(**flags, keep_slot=True) as site:
                await site.sql("create table public.orders (id int primary key, amount int)")
                workflow_id = (await site.active(large_orders()))["id"]
                await site.published("orders")
                await site.sql("insert into public.orders values (1, 50), (2, 150)")
                assert await outputs(site, workflow_id, 1) == [2]
        before = duplicates("postgres")
        async with sites(**flags, keep_slot=True) as site:
            await site.sql("insert into public.orders values (3, 300)")
            assert await outputs(site, workflow_id, 2) == [2, 3]
        assert duplicates("postgres") > before  # the row was told of again
    finally:
        await Catalog(database_url, slot, slot).drop()


def envelope(number: int, amount: int, op: str = "c") -> dict[str, Any]:
    """A message of Debezium's PostgreSQL connector."""
    row = {"id": number, "amount": amount}
    return {
        "before": None,
        "after": row,
        "source": {
            "version": "2.7.0.Final",
            "connector": "postgresql",
            "name": "shop",
            "ts_ms": int(time.time() * 1000) + number,
            "snapshot": "false",
            "db": "shop",
            "schema": "public",
            "table": "orders",
            "txId": 500 + number,
            "lsn": 24_023_128 + number,
        },
        "op": op,
        "ts_ms": int(time.time() * 1000),
        "transaction": None,
    }


@pytest.mark.slow
async def test_a_message_starts_one_run_and_the_whole_topic_again_starts_none(
    sites: Sites, kafka_bootstrap: str, topic: str, send: Send
) -> None:
    flags = {"kafka_bootstrap": kafka_bootstrap, "kafka_topics": topic, "kafka_group": topic}
    async with sites(**flags) as site:
        workflow_id = (await site.active(large_orders()))["id"]
        await send(envelope(1, 50), envelope(2, 150), envelope(3, 160), envelope(4, 170, "u"))
        assert await outputs(site, workflow_id, 2) == [2, 3]
    before = duplicates("kafka")
    await site.sql("update permaflow.kafka_offset set next_offset = 0")
    await send(envelope(2, 150), envelope(5, 500))  # the connector tells of a change twice, too
    async with sites(**flags) as site:
        assert await outputs(site, workflow_id, 3) == [2, 3, 5]
    assert duplicates("kafka") == before + 3
    assert await site.sql("select next_offset from permaflow.kafka_offset") == [(6,)]


async def test_a_record_that_is_stored_starts_one_run(site: RunningSite) -> None:
    workflow_id = (await site.active(large_orders()))["id"]
    await site.published("record")
    for amount in (50, 150):
        answer = await site.door.post(RECORDS, json={"data": {"amount": amount}})
        assert answer.status_code == 201, answer.text
    assert await outputs(site, workflow_id, 1) == [answer.json()["id"]]
    (run,) = await site.runs(workflow_id)
    assert (run["resource_type"], run["resource_id"]) == ("orders", answer.json()["id"])


async def test_two_deliveries_of_one_webhook_30_ms_apart_start_one_run(site: RunningSite) -> None:
    config = {"verification": "standard"}
    nodes = [{"id": "hook", "type": "trigger_webhook", "config": config}, task("a")]
    edges = [{"source": "hook", "target": "a"}]
    body = {"name": "Hook", "definition": {"nodes": nodes, "edges": edges}}
    saved = (await site.door.post(DEFINITIONS, json=body)).json()
    place = f"{DEFINITIONS}/{saved['id']}"
    secret = "whsec_" + base64.b64encode(b"k" * 24).decode()
    await site.door.put(f"{place}/webhooks/hook/secret", json={"secret": secret})
    active = (await site.door.patch(f"{place}/status", json={"status": "active"})).json()
    stamp = str(int(time.time()))
    signed = hmac.digest(b"k" * 24, f"msg_1.{stamp}.".encode() + b"{}", hashlib.sha256)
    headers = {
        "webhook-id": "msg_1",
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
    }

    async def deliver(after: float) -> httpx.Response:
        await asyncio.sleep(after)  # it is the distance that is tested
        return await site.door.post(active["webhooks"][0]["path"], content=b"{}", headers=headers)

    answers = await asyncio.gather(*(deliver(after) for after in (0, 0.03, 0.03, 0.06)))
    assert [answer.status_code for answer in answers] == [202] * 4
    assert len({answer.json()["run_id"] for answer in answers}) == 1
    (run,) = await site.ended(saved["id"], 1)
    assert run["status"] == "completed"
