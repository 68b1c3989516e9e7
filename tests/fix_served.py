"""The gateway before the whole engine.

served        a client over HTTP, with a key that may do everything
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson
import pytest

from pipeline.gateway.server import Gateway
from pipeline.ops import Ops
from pipeline.store import keys
from pipeline.store.database import Database
from tests.fix_engine import Engine
from tests.fix_gateway import RUNS, save_active

WITHIN = 20.0


@pytest.fixture
async def served(engine: Engine, gateway: Database) -> AsyncIterator[httpx.AsyncClient]:
    settings = engine.settings.model_copy(update={"http_port": 0})
    vertex = Gateway(engine.bus, gateway, engine.types, settings, Ops({}))
    serving = asyncio.create_task(vertex.run())
    _, text = await engine.database.run(keys.create, engine.org, "test", ["admin"])
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{vertex.port}",
        headers={"authorization": f"Bearer {text}"},
        timeout=WITHIN,
    ) as client:
        yield client
    await vertex.stop()
    await asyncio.wait_for(serving, WITHIN)


async def watch(served: httpx.AsyncClient, run: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Name and data of every event, until the stream ends."""
    found, name = [], ""
    async with (
        asyncio.timeout(WITHIN),
        served.stream("GET", run["links"]["stream"]) as answer,
    ):
        async for line in answer.aiter_lines():
            if line.startswith("event: "):
                name = line[7:]
            elif line.startswith("data: "):
                found.append((name, orjson.loads(line[6:])))
    return found


async def started(served: httpx.AsyncClient, document: dict[str, Any], data: Any) -> dict[str, Any]:
    active = await save_active(served, document)
    answer = await served.post(RUNS, json={"workflow_id": active["id"], "trigger_data": data})
    assert answer.status_code == 202, answer.text
    run: dict[str, Any] = answer.json()
    return run
