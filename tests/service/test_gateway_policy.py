"""Who may do what: every route has a policy, every key its scopes, every organisation its own."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from fastapi import FastAPI
from starlette.responses import Response
from starlette.routing import Route
from uuid_utils.compat import uuid7

from permaflow.errors import ContractError
from permaflow.ports import Document
from pipeline.gateway import auth
from pipeline.gateway.auth import PUBLIC, SCOPES, Guard
from pipeline.gateway.doors import Door
from pipeline.gateway.doors import Doors as GatewayDoors
from pipeline.store import documents, keys, payloads
from pipeline.store.database import Connection, Database
from tests.fix_gateway import DEFINITIONS, RUNS, Doors, Gate, call, graph, save_active, webhook
from tests.fix_store import append, finish

OPEN = {
    "GET /livez",
    "GET /readyz",
    "GET /metrics",
    "GET /version",
    "GET /openapi.json",
    "GET /schemas/{dialect}",
    "POST /webhooks/workflow/{url_token}",
    "GET /workflows/v1/approvals/links/{token}",
    "POST /workflows/v1/approvals/links/{token}",
}

APPROVAL = b"""
    insert into permaflow.approval (id, org_id, run_id, scope, node, attempt, to_all, terms)
    values (%(id)s, %(org)s, %(run)s, '', 'ask', 1, true, '{"title": "canary", "description": "",
      "users": [], "groups": [], "to_all": true, "need": 1, "veto": true, "escalation": [],
      "delegation": true, "self_approval": true, "on_reject": "fail", "on_timeout": "fail"}')"""


def name_of(door: Door) -> str:
    return f"{door.method} {door.path}"


def guarded(gate: Gate) -> Iterator[Door]:
    return (door for door in gate.application.doors.all if door.needs != PUBLIC)


async def ask(client: httpx.AsyncClient, door: Door, **names: object) -> httpx.Response:
    path = door.path
    parts = ("workflow_id", "run_id", "version", "node", "value_id", "record_id", "approval_id")
    for part in (*parts, "group", "notification_id", "document_id", "secret_name"):
        path = path.replace(f"{{{part}}}", str(names.get(part, uuid7())))
    path = path.replace("{object_name}", str(names.get("object_name", "orders")))
    path = path.replace("{dialect}", "graph")
    body = {"definition": graph(call()), "status": "paused", "secret": "s", "data": {}}
    body |= {"decision": "approve", "to": "bob", "members": [], "outcome": "fail"}
    if door.needs == "admin":
        body["user"] = "ana"
    if door.body is not None:
        allowed = door.body.model_fields
        sent: dict[str, Any] = {name: value for name, value in body.items() if name in allowed}
        if "name" in allowed:
            sent["name"] = "x"
        if "workflow_id" in allowed:
            sent["workflow_id"] = str(names.get("workflow_id", uuid7()))
        return await client.request(door.method, path, json=sent)
    return await client.request(door.method, path)


# --- policies ---


def test_what_is_open_to_all_is_declared_here_too(gate: Gate) -> None:
    assert {name_of(d) for d in gate.application.doors.all if d.needs == PUBLIC} == OPEN


def test_every_route_of_the_application_is_a_door(gate: Gate) -> None:
    gate.application.doors.check_sealed()
    gate.application.api.router.routes.append(Route("/back", lambda _: Response()))
    with pytest.raises(ContractError, match="/back"):
        gate.application.doors.check_sealed()


@pytest.mark.parametrize("needs", ["", "everything", "runs:Read"])
def test_a_route_without_a_policy_is_not_registered(needs: str) -> None:
    async def endpoint(request: object) -> Response:
        return Response()

    async def nobody(_: str) -> None:
        return None

    doors = GatewayDoors(FastAPI(), Guard(nobody))
    for add in (doors.add, doors.add_hot):
        with pytest.raises(ContractError, match="declares no policy"):
            add("GET", "/x", endpoint, needs=needs)
    assert not doors.all


@pytest.mark.parametrize(
    "header",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer pf_0123456789abcdef_" + "x" * 43},
        {"authorization": "Basic YTpi"},
        {"authorization": "Bearer ; drop table"},
        {"authorization": b"Bearer \xff\x00"},
    ],
)
async def test_without_a_good_key_nothing_but_what_is_open_answers(
    gate: Gate, doors: Doors, header: dict[str, Any]
) -> None:
    client = await doors(key="")
    for door in guarded(gate):
        answer = await client.request(door.method, door.path, headers=header)
        assert answer.status_code == 401, name_of(door)
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["code"] == "unauthorized"


async def test_a_key_opens_the_doors_of_its_scopes_and_no_others(gate: Gate, doors: Doors) -> None:
    for scope in sorted(SCOPES):
        client = await doors(scope)
        for door in guarded(gate):
            answer = await ask(client, door)
            allowed = scope in ("admin", door.needs)
            assert (answer.status_code != 403) is allowed, f"{scope}: {name_of(door)}"
            if not allowed:
                assert door.needs in answer.json()["detail"]


async def test_a_revoked_key_is_refused_within_seconds(
    doors: Doors, store: Database, org: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert auth.KEPT <= 5
    key, text = await store.run(keys.create, org, "short", ["admin"])
    client = await doors(key=text)
    assert (await client.get(RUNS)).status_code == 200
    await store.run(keys.revoke, org, key.id)
    loop = asyncio.get_running_loop()
    now = loop.time()
    monkeypatch.setattr("pipeline.gateway.cache._now", lambda: now + auth.KEPT)
    assert (await client.get(RUNS)).status_code == 401


async def test_an_expired_key_is_refused(doors: Doors, store: Database, org: UUID) -> None:
    past = datetime.now(UTC) - timedelta(seconds=1)
    _, text = await store.run(keys.create, org, "old", ["admin"], expires_at=past)
    assert (await (await doors(key=text)).get(RUNS)).status_code == 401


# --- organisations ---


@pytest.fixture
async def theirs(doors: Doors, store: Database, org: UUID) -> dict[str, object]:
    """One of everything, of the default organisation; its texts hold the word canary."""
    door = await doors()
    active = await save_active(
        door, graph({**webhook(verification="none"), "name": "canary"}, call())
    )
    started = await door.post(
        RUNS,
        json={"workflow_id": active["id"], "trigger_data": "canary", "type": "canary"},
        headers={"idempotency-key": "shared"},
    )
    run_id = UUID(started.json()["id"])
    rows = [["started", "hook"], ["succeeded", "", "call", 1, "canary"], ["finished", "completed"]]
    await append(store, org, run_id, 1, orjson.dumps(rows).decode())
    await finish(store, run_id)
    value_id = uuid7()
    await store.run(payloads.put, [payloads.Payload(value_id, org, b'"canary"', run_id)])
    body = {"id": "r1", "data": {"text": "canary"}}
    assert (await door.post("/records/v1/orders", json=body)).status_code == 201
    approval = uuid7()
    await store.run(Connection.execute, APPROVAL, {"id": approval, "org": org, "run": run_id})
    members = {"members": ["canary"]}
    assert (await door.put("/workflows/v1/groups/staff", json=members)).status_code == 201
    document = Document("canary.csv", "text/csv", b"canary")
    document_id = uuid7()
    await store.run(documents.put, org, document_id, document, run_id)
    return {
        "approval_id": approval,
        "document_id": document_id,
        "group": "staff",
        "workflow_id": active["id"],
        "version": 1,
        "node": "hook",
        "run_id": run_id,
        "value_id": value_id,
        "record_id": "r1",
        "object_name": "orders",
    }


async def test_another_organisation_finds_nothing_of_ours(
    gate: Gate, doors: Doors, theirs: dict[str, object], other_org: UUID
) -> None:
    stranger, owner = await doors(org=other_org), await doors()
    makes = {"PUT /records/v1/{object_name}/{record_id}", "PUT /workflows/v1/groups/{group}"}
    for door in sorted(guarded(gate), key=lambda door: name_of(door) in makes):
        answer = await ask(stranger, door, **theirs)
        assert b"canary" not in answer.content, name_of(door)
        named = any(f"{{{name}}}" in door.path for name in theirs if name != "object_name")
        if name_of(door) in makes:
            assert answer.status_code == 201  # their own, of the same name
        elif named:
            assert answer.status_code == 404, name_of(door)
        elif "/catalogue/" in door.path:
            assert answer.status_code == 404  # what is installed is everybody's, and has this not
        elif door.method == "GET" and door.path.startswith("/notifications/"):
            assert answer.status_code == 400, name_of(door)  # the key belongs to no user
        elif door.method == "GET":
            assert answer.status_code == 200, name_of(door)
    run = await owner.get(f"{RUNS}/{theirs['run_id']}")
    assert run.json()["trigger_data"] == "canary"
    assert (await owner.get("/records/v1/orders/r1")).json()["data"] == {"text": "canary"}
    workflow = await owner.get(f"{DEFINITIONS}/{theirs['workflow_id']}")
    assert (workflow.json()["status"], workflow.json()["version"]) == ("active", 1)


async def test_an_idempotency_key_is_the_organisations_own(
    doors: Doors, theirs: dict[str, object], other_org: UUID
) -> None:
    stranger = await doors(org=other_org)
    own = await save_active(stranger, graph(webhook(verification="none")))
    answer = await stranger.post(
        RUNS, json={"workflow_id": own["id"]}, headers={"idempotency-key": "shared"}
    )
    assert answer.status_code == 202
    assert answer.json()["id"] != str(theirs["run_id"])


# --- the surface ---


PATHS = [
    "/nothing",
    "//workflows/v1/runs",
    "/workflows/v1/runs/",
    "/workflows/v1/Runs",
    "/workflows/v1/runs/..;/",
    "/workflows/v1/runs%2f",
    "/workflows/v1/runs/configs",
    "/livez/../workflows/v1/runs",
    "/openapi.json/x",
    "/docs",
    "/redoc",
]


@pytest.mark.parametrize("path", PATHS)
async def test_a_path_that_is_none_leads_nowhere(doors: Doors, path: str) -> None:
    client = await doors(key="")
    request = client.build_request("GET", "http://gateway/")
    request.url = request.url.copy_with(raw_path=path.encode())
    answer = await client.send(request)
    assert answer.status_code in (401, 404)
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("bad", ["M%FCller", "M%00ller", "%ED%A0%80", "%C3"])
@pytest.mark.parametrize("path", ["/records/v1/customers/{}", "/records/v1/customers?cursor={}"])
async def test_an_address_that_is_no_text_is_refused(
    door: httpx.AsyncClient, path: str, bad: str
) -> None:
    answer = await door.put(path.format(bad), json={"data": {}})
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_address")
    assert ("query" if "?" in path else "path") in answer.json()["detail"]
    assert answer.headers["x-request-id"] == answer.json()["request_id"]
    assert (await door.get(path.format("M%C3%BCller%2500"))).json()["code"] != "bad_address"


async def test_another_method_is_told_which_there_are(door: httpx.AsyncClient) -> None:
    answer = await door.put(RUNS, json={}, headers={"x-http-method-override": "GET"})
    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, POST"
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_request_keeps_its_id(door: httpx.AsyncClient) -> None:
    answer = await door.get("/nothing", headers={"x-request-id": "abc-1"})
    assert answer.headers["x-request-id"] == answer.json()["request_id"] == "abc-1"
    made = await door.get("/nothing", headers={"x-request-id": "a b\n"})
    assert len(made.headers["x-request-id"]) == 32


async def test_a_bug_is_a_500_without_a_word_of_it(
    door: httpx.AsyncClient, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object, **__: object) -> None:
        raise RuntimeError("canary in the traceback")

    monkeypatch.setattr(gate.ports.pool, "_database", None)
    monkeypatch.setattr(gate.application.guard, "admit", broken)
    for method, path in (("GET", RUNS), ("POST", RUNS)):
        answer = await door.request(method, path)
        assert answer.status_code == 500
        assert answer.json()["code"] == "error"
        assert "canary" not in answer.text
        assert "Traceback" not in answer.text
        assert answer.headers["x-request-id"] == answer.json()["request_id"]


async def test_a_database_that_is_away_is_a_503_and_never_a_2xx(
    doors: Doors, gate: Gate, gateway: Database
) -> None:
    door = await doors()
    active = await save_active(door, graph(webhook(verification="none")))
    path = active["webhooks"][0]["path"]
    assert (await door.post(path, json={})).status_code == 202
    await gateway.close()
    for answer in (
        await door.post(path, json={}),
        await door.post(RUNS, json={"workflow_id": active["id"]}),
        await door.get(DEFINITIONS),
    ):
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "1"
        assert "5432" not in answer.text
        assert answer.json()["detail"].startswith("The database")


async def test_health_is_open_and_says_little(doors: Doors, gate: Gate) -> None:
    client = await doors(key="")
    assert (await client.get("/livez")).json() == {"status": "ok"}
    assert (await client.get("/readyz")).json() == {"status": "ok", "checks": {}}
    assert "permaflow_http_requests_total" in (await client.get("/metrics")).text
    assert (await client.get("/version")).json()["name"] == "permaflow"
