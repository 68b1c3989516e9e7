"""The description of the API is true: whatever it allows is answered as it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import CHECKS, load_all_checks

from pipeline import builtins
from pipeline.bus.jetstream import JetStreamBus
from pipeline.gateway.server import Gateway
from pipeline.ops import Ops
from pipeline.settings import Settings
from pipeline.store import keys
from pipeline.store.database import Database
from tests.fix_gateway import Gate, call, graph, save_active, webhook
from tests.fix_store import finish

EXAMPLES = 10
KEPT_PROMISES = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)


@pytest.fixture
async def served(
    gateway: Database,
    store: Database,
    nats_bus: JetStreamBus,
    gateway_settings: Settings,
    org: UUID,
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a gateway on a port of its own."""
    types = builtins.task_types(gateway_settings)
    vertex = Gateway(nats_bus, gateway, types, gateway_settings, Ops({}))
    serving = asyncio.create_task(vertex.run())
    _, text = await store.run(keys.create, org, "test", ["admin"])
    base = f"http://127.0.0.1:{vertex.port}"
    headers = {"authorization": f"Bearer {text}"}
    async with httpx.AsyncClient(base_url=base, headers=headers, timeout=20) as client:
        yield client
    await vertex.stop()
    await asyncio.wait_for(serving, 20)


# schemathesis draws from `random` in its own strategies; now and then Hypothesis warns of it.
@pytest.mark.filterwarnings(
    "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
)
async def test_every_door_answers_as_it_is_described(
    served: httpx.AsyncClient, store: Database
) -> None:
    active = await save_active(served, graph(webhook(verification="none"), call()))
    started = await served.post("/workflows/v1/runs", json={"workflow_id": active["id"]})
    await finish(store, UUID(started.json()["id"]))
    await served.put("/records/v1/orders/r1", json={"data": {"n": 1}})
    known = {
        "workflow_id": active["id"],
        "run_id": started.json()["id"],
        "version": 1,
        "node": "hook",
        "url_token": active["webhooks"][0]["path"].rpartition("/")[2],
        "object_name": "orders",
        "record_id": "r1",
    }
    described = (await served.get("/openapi.json")).json()
    base, headers = str(served.base_url), dict(served.headers)
    told = await asyncio.to_thread(_check_all, described, base, headers, known)
    assert told > EXAMPLES * 20


def _check_all(described: Any, base: str, headers: Any, known: dict[str, Any]) -> int:
    """Asks every operation with made-up and with known ids; answers how often."""
    load_all_checks()
    checks = [CHECKS.get_one(name) for name in KEPT_PROMISES]
    asked = 0
    for found in schemathesis.openapi.from_dict(described).get_all_operations():
        operation = found.ok()
        if operation.definition.raw["operationId"] == "stream_notifications":
            continue  # it has no end

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(), is_known=st.booleans())
        def check(case: Any, is_known: bool) -> None:
            nonlocal asked
            if is_known:
                for name in case.path_parameters or {}:
                    case.path_parameters[name] = known.get(name, case.path_parameters[name])
            case.call_and_validate(base_url=base, headers=headers, checks=checks, timeout=20)
            asked += 1

        check()
    return asked


def test_every_door_is_described_with_its_scope(gate: Gate) -> None:
    from pipeline.gateway.openapi import describe

    described = describe(gate.application.doors)
    for door in gate.application.doors.all:
        operation = described["paths"][door.path][door.method.lower()]
        assert operation.get("x-scope", "public") == door.needs
        assert operation["description"]
        assert operation["operationId"]
    names = [op["operationId"] for path in described["paths"].values() for op in path.values()]
    assert len(names) == len(set(names))
