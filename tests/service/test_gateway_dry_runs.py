"""Dry runs over HTTP: what would happen, told; and nothing that happens."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
import pytest

from pipeline.core.entries import Dispatched, Entry, Finished, Started, Succeeded, to_row
from pipeline.store.database import Database
from tests.fix_gateway import DEFINITIONS, RUNS, Doors, by_hand, call, graph, save, save_active
from tests.fix_store import execute

pytestmark = pytest.mark.service


def flow(**check: Any) -> dict[str, Any]:
    """By hand, then a call; then a second one if the answer says so."""
    test = {"field": "steps.call.output.status", "op": "eq", "value": 200, **check}
    document = graph(
        by_hand(),
        call("https://example.com/{{trigger.order}}"),
        {"id": "check", "type": "logic_condition", "config": {"condition": test}},
        {**call(), "id": "again"},
    )
    document["edges"][-1]["sourceHandle"] = "true"
    return document


async def record(store: Database, run_id: str, org: UUID, *entries: Entry) -> None:
    import orjson

    await execute(
        store,
        "insert into permaflow.journal (run_id, seq, org_id, entries) values (%s, 1, %s, %s)",
        (UUID(run_id), org, orjson.dumps(to_row(entries)).decode()),
    )


def steps(event: dict[str, Any]) -> dict[str, str]:
    return {step["node"]: step["status"] for step in event["steps"]}


async def test_a_document_that_is_not_saved_is_played(door: httpx.AsyncClient) -> None:
    body = {
        "definition": flow(),
        "trigger_data": {"order": 7},
        "mocks": {"call": {"output": {"status": 200}}},
    }
    answer = await door.post(f"{DEFINITIONS}/dry-run", json=body)
    assert answer.status_code == 200, answer.text
    (event,) = answer.json()["events"]
    assert event["status"] == "completed"
    assert steps(event)["again"] == "completed"
    first = next(step for step in event["steps"] if step["node"] == "call")
    assert first["config"]["url"] == "https://example.com/7"
    assert (first["mock"], first["output"]) == ("given", {"status": 200})


async def test_a_document_with_problems_is_refused_with_all_of_them(
    door: httpx.AsyncClient,
) -> None:
    answer = await door.post(f"{DEFINITIONS}/dry-run", json={"definition": {"nodes": [{}]}})
    assert answer.status_code == 422
    assert all(each["pointer"].startswith("/definition") for each in answer.json()["errors"])


async def test_nothing_happens(door: httpx.AsyncClient, store: Database) -> None:
    saved = await save_active(door, flow())
    for _ in range(2):
        await door.post(f"{DEFINITIONS}/{saved['id']}/dry-run", json={"trigger_data": {"order": 1}})
    assert (await door.get(RUNS, params={"workflow_id": saved["id"]})).json()["data"] == []
    assert (await execute(store, "select count(*) from permaflow.journal"))[0][0] == 0


async def test_the_last_events_are_played_with_what_came_of_them_and_compared(
    door: httpx.AsyncClient, store: Database, org: UUID
) -> None:
    saved = await save_active(door, flow())
    body = {"workflow_id": saved["id"], "trigger_data": {"order": 3}}
    run_id = (await door.post(RUNS, json=body)).json()["id"]
    entries = (
        Started("hand"),
        Succeeded("", "hand", 0),
        Dispatched("", "call", 1),
        Succeeded("", "call", 1, {"status": 200}),
        Finished("completed"),
    )
    await record(store, run_id, org, *entries)
    new = {"definition": flow(value=201), "events": 5}
    answer = await door.post(f"{DEFINITIONS}/{saved['id']}/dry-run", json=new)
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["compared_with"] == 1
    (event,) = told["events"]
    assert (event["run_id"], event["trigger_data"]) == (run_id, {"order": 3})
    assert steps(event)["again"] == "skipped"
    assert {each["node"]: each["what"] for each in event["differences"]} == {
        "check": ["port", "output"],
        "again": ["status", "config"],
    }
    apart = await door.post(
        f"{DEFINITIONS}/{saved['id']}/dry-run", json={**new, "recorded": False, "compare": False}
    )
    (event,) = apart.json()["events"]
    assert event["differences"] == []
    assert next(s for s in event["steps"] if s["node"] == "call")["mock"] == "empty"


async def test_an_earlier_version_is_played_against_the_current_one(
    door: httpx.AsyncClient,
) -> None:
    saved = await save(door, flow())
    await door.put(f"{DEFINITIONS}/{saved['id']}", json={"definition": flow(value=404)})
    mocks = {"call": {"output": {"status": 200}}}
    body = {"version": 1, "trigger_data": {"order": 3}, "mocks": mocks}
    told = (await door.post(f"{DEFINITIONS}/{saved['id']}/dry-run", json=body)).json()
    assert (told["version"], told["compared_with"]) == (1, 2)
    assert [each["node"] for each in told["events"][0]["differences"]] == ["check", "again"]


async def test_recorded_events_need_the_right_to_read_runs(
    door: httpx.AsyncClient, doors: Doors
) -> None:
    saved = await save(door, flow())
    reader = await doors("workflows:read")
    path = f"{DEFINITIONS}/{saved['id']}/dry-run"
    assert (await reader.post(path, json={"trigger_data": {"order": 1}})).status_code == 200
    refused = await reader.post(path, json={"events": 1})
    assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")


async def test_another_organisation_finds_nothing_to_play(
    door: httpx.AsyncClient, doors: Doors, other_org: UUID
) -> None:
    saved = await save(door, flow())
    stranger = await doors(org=other_org)
    path = f"{DEFINITIONS}/{saved['id']}/dry-run"
    assert (await stranger.post(path, json={"trigger_data": {}})).status_code == 404
    taken = {"definition": flow(), "events": 5, "events_of": saved["id"]}
    assert (await stranger.post(f"{DEFINITIONS}/dry-run", json=taken)).json()["events"] == []


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"events": 1, "trigger_data": {}}, "/events"),
        ({"events": 51}, "/events"),
        ({"mocks": {"call": []}}, "/mocks/call"),
        ({"mocks": {"call": {"error": {"code": ""}}}}, "/mocks/call"),
        ({"mock": {}}, "/mock"),
    ],
)
async def test_what_cannot_be_asked_is_refused_with_its_place(
    door: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    answer = await door.post(f"{DEFINITIONS}/dry-run", json={"definition": flow(), **body})
    assert answer.status_code in (400, 422), answer.text
    problem = answer.json()
    found = [each["pointer"] for each in problem["errors"]]
    assert any(each.startswith(pointer) for each in found), problem
