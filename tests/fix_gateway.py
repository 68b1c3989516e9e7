"""The gateway over the real store and the real NATS.

door        a client of the application, with a key that may do everything
doors       makes further clients: `await doors("runs:read")`, `await doors(org=other_org)`
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import pytest

from pipeline import builtins
from pipeline.bus.jetstream import JetStreamBus, connect
from pipeline.gateway.app import Application
from pipeline.gateway.ports import Ports, open_ports
from pipeline.ops import Ops
from pipeline.settings import Settings
from pipeline.store import keys
from pipeline.store.database import Database

DEFINITIONS = "/workflows/v1/definitions"
RUNS = "/workflows/v1/runs"

Doors = Callable[..., Awaitable[httpx.AsyncClient]]


@dataclass
class Gate:
    """The application with what it stands on."""

    application: Application
    ports: Ports
    bus: JetStreamBus


@pytest.fixture
async def nats_bus(nats_url: str) -> AsyncIterator[JetStreamBus]:
    bus = await connect(nats_url, name="test")
    yield bus
    await bus.close()


@pytest.fixture
def gateway_settings() -> Settings:
    key = base64.b64encode(bytes(range(32))).decode()
    return Settings(encryption_keys=f"k1:{key}", http_port=0, _env_file=None)  # type: ignore[call-arg]


@pytest.fixture
async def gate(
    gateway: Database, nats_bus: JetStreamBus, gateway_settings: Settings
) -> AsyncIterator[Gate]:
    ports = open_ports(nats_bus, gateway, builtins.task_types(gateway_settings), gateway_settings)
    yield Gate(Application(ports, Ops({})), ports, nats_bus)
    await ports.starts.close()
    await ports.tables.aclose()


@pytest.fixture
async def doors(gate: Gate, store: Database, org: UUID) -> AsyncIterator[Doors]:
    async with AsyncExitStack() as stack:

        async def make(*scopes: str, org: UUID = org, key: str | None = None) -> httpx.AsyncClient:
            text = key
            if text is None:
                _, text = await store.run(keys.create, org, "test", list(scopes or ("admin",)))
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(app=gate.application.asgi),
                base_url="http://gateway",
                headers={"authorization": f"Bearer {text}"} if text else {},
            )
            return await stack.enter_async_context(client)

        yield make


@pytest.fixture
async def door(doors: Doors) -> httpx.AsyncClient:
    return await doors()


def graph(*nodes: dict[str, Any], **extra: Any) -> dict[str, Any]:
    """A graph whose nodes follow each other."""
    pairs = itertools.pairwise(nodes)
    edges = [
        {"id": f"e{number}", "source": one["id"], "target": two["id"]}
        for number, (one, two) in enumerate(pairs)
    ]
    return {"version": 1, "nodes": list(nodes), "edges": edges, **extra}


def webhook(**config: Any) -> dict[str, Any]:
    return {"id": "hook", "type": "trigger_webhook", "config": config}


def by_hand(**config: Any) -> dict[str, Any]:
    return {"id": "hand", "type": "trigger_manual", "config": config}


def call(url: str = "https://example.com/") -> dict[str, Any]:
    return {"id": "call", "type": "action_http", "config": {"url": url, "method": "POST"}}


async def save(door: httpx.AsyncClient, document: dict[str, Any], **extra: Any) -> dict[str, Any]:
    """Saves a workflow; answers it."""
    answer = await door.post(DEFINITIONS, json={"name": "Orders", "definition": document, **extra})
    assert answer.status_code == 201, answer.text
    saved: dict[str, Any] = answer.json()
    return saved


async def activate(door: httpx.AsyncClient, workflow_id: str) -> dict[str, Any]:
    answer = await door.patch(f"{DEFINITIONS}/{workflow_id}/status", json={"status": "active"})
    assert answer.status_code == 200, answer.text
    active: dict[str, Any] = answer.json()
    return active


async def save_active(door: httpx.AsyncClient, document: dict[str, Any]) -> dict[str, Any]:
    return await activate(door, (await save(door, document))["id"])
