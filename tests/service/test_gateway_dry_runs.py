"""Dry runs over HTTP: what would happen, told; and nothing that happens."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from permaflow.plan import Json
from pipeline.core.entries import Dispatched, Entry, Finished, Started, Succeeded, to_row
from pipeline.gateway import recorded, turns
from pipeline.ids import new_id
from pipeline.store.database import Database
from pipeline.store.payloads import Payload, put
from pipeline.store.starts import StartRequest, start_runs
from tests.fix_gateway import (
    DEFINITIONS,
    RUNS,
    Doors,
    Gate,
    by_hand,
    call,
    graph,
    save,
    save_active,
)
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


def on_orders(**condition: Any) -> dict[str, Any]:
    """A workflow of one call, for orders of a kind."""
    test = {"field": "amount", "op": "gt", "value": 100, **condition}
    config = {"object": "orders", "event": "created", "conditions": [test]}
    return graph({"id": "start", "type": "trigger_record", "config": config}, call())


async def started(
    store: Database, org: UUID, workflow_id: str, data: Json = None, **more: Any
) -> str:
    """A run as ingest starts it with a change, unless `more` says otherwise."""
    change = {"event": "created", "object": "orders", "namespace": "public", "source": "shop"}
    about: dict[str, Any] = {"source": "postgres", "trigger_node": "start", **more}
    text = orjson.dumps({**change, "record": {"id": 1, "amount": 120}} if data is None else data)
    request = StartRequest(new_id(), org, UUID(workflow_id), input=text, **about)
    await store.run_as(org, start_runs, [request])
    return str(request.run_id)


async def record(store: Database, run_id: str, org: UUID, *entries: Entry) -> None:
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


async def test_an_event_that_the_new_version_does_not_match_starts_no_run(
    door: httpx.AsyncClient, store: Database, org: UUID
) -> None:
    saved = await save_active(door, on_orders())
    run_id = await started(store, org, saved["id"])
    body = {"definition": on_orders(value=500), "events": 5}
    answer = await door.post(f"{DEFINITIONS}/{saved['id']}/dry-run", json=body)
    assert answer.status_code == 200, answer.text
    (event,) = answer.json()["events"]
    assert (event["run_id"], event["source"]) == (run_id, "postgres")
    assert (event["starts"], event["trigger"], event["status"]) == (False, None, None)
    assert event["why_not"] == "No trigger fires: `start` wants `amount gt 500`."
    assert event["steps"] == []
    assert (event["active_starts"], event["active_status"]) == (True, "completed")
    assert {each["node"]: each["what"] for each in event["differences"]} == {
        "start": ["missing"],
        "call": ["missing"],
    }


async def test_an_event_that_the_active_version_does_not_match_is_told_as_well(
    door: httpx.AsyncClient, store: Database, org: UUID
) -> None:
    saved = await save_active(door, on_orders())
    await started(store, org, saved["id"])
    path = f"{DEFINITIONS}/{saved['id']}"
    updated = await door.put(path, json={"definition": on_orders(op="lt")})
    assert updated.status_code == 200, updated.text
    told = (await door.post(f"{path}/dry-run", json={"version": 1, "events": 5})).json()
    (event,) = told["events"]
    assert (event["starts"], event["trigger"], event["status"]) == (True, "start", "completed")
    assert (event["active_starts"], event["active_status"]) == (False, None)
    assert event["active_why_not"] == "No trigger fires: `start` wants `amount lt 100`."


async def test_only_runs_that_an_event_started_are_events(
    door: httpx.AsyncClient, store: Database, org: UUID
) -> None:
    saved = await save_active(door, on_orders())
    first = await started(store, org, saved["id"])
    again = {"source": "rerun", "rerun_of": UUID(first), "allow_inactive": True}
    await started(store, org, saved["id"], **again)
    await started(store, org, saved["id"], source="workflow", parent_id=UUID(first))
    last = await started(store, org, saved["id"])
    body = {"definition": on_orders(), "events": 2}
    told = (await door.post(f"{DEFINITIONS}/{saved['id']}/dry-run", json=body)).json()
    assert [event["run_id"] for event in told["events"]] == [last, first]


def loop_of(count: int) -> dict[str, Any]:
    loop = {"id": "each", "type": "logic_loop", "config": {"items": list(range(count))}}
    document = graph(by_hand(), loop)
    document["nodes"].append({**call("https://example.com/{{loop.item}}"), "parentId": "each"})
    return document


async def record_loop(store: Database, run_id: str, org: UUID, count: int) -> None:
    """A journal with a row for each iteration."""
    rows = [[Succeeded(f"each[{n}]", "call", 1, {"number": n})] for n in range(count)]
    await execute(
        store,
        "insert into permaflow.journal (run_id, seq, org_id, entries) "
        "select %s, seq, %s, entries::json from unnest(%s::text[]) with ordinality as row "
        "(entries, seq)",
        (UUID(run_id), org, [orjson.dumps(to_row(row)).decode() for row in rows]),
    )


async def test_a_long_journal_is_read_to_its_end(
    door: httpx.AsyncClient, store: Database, org: UUID
) -> None:
    count = recorded.PAGE + 20
    saved = await save_active(door, loop_of(count))
    run_id = (await door.post(RUNS, json={"workflow_id": saved["id"]})).json()["id"]
    await record_loop(store, run_id, org, count)
    path = f"{DEFINITIONS}/{saved['id']}/dry-run"
    (event,) = (await door.post(path, json={"events": 1})).json()["events"]
    calls = [step for step in event["steps"] if step["node"] == "call"]
    assert (len(calls), {step["mock"] for step in calls}) == (count, {"recorded"})
    assert event["recording"] == "whole"


async def test_where_a_journal_is_too_long_it_is_said_so(
    door: httpx.AsyncClient, store: Database, org: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = await save_active(door, loop_of(10))
    run_id = (await door.post(RUNS, json={"workflow_id": saved["id"]})).json()["id"]
    await record_loop(store, run_id, org, 10)
    path = f"{DEFINITIONS}/{saved['id']}/dry-run"
    for most, recording, known in ((10, "whole", 10), (7, "part", 7)):
        monkeypatch.setattr(recorded, "MOST_ROWS", most)
        (event,) = (await door.post(path, json={"events": 1})).json()["events"]
        assert event["recording"] == recording
        assert sum(step["mock"] == "recorded" for step in event["steps"]) == known
    monkeypatch.setattr(recorded, "MOST_INPUT_BYTES", 1)
    told = (await door.post(path, json={"events": 1})).json()
    assert (told["events"], told["events_left_out"]) == ([], 1)


async def test_a_recorded_value_that_is_too_large_is_left_out_and_said_so(
    door: httpx.AsyncClient, store: Database, org: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = await save_active(door, flow())
    asked = {"workflow_id": saved["id"], "trigger_data": {"order": 3}}
    run_id = (await door.post(RUNS, json=asked)).json()["id"]
    large = Payload(new_id(), org, b'{"status": 200}', UUID(run_id))
    await store.run_as(org, put, [large])
    entries = (Dispatched("", "call", 1), Succeeded("", "call", 1, ref=str(large.id)))
    await record(store, run_id, org, *entries)
    path = f"{DEFINITIONS}/{saved['id']}/dry-run"
    for most, mock, recording in ((15, "recorded", "whole"), (14, "empty", "part")):
        monkeypatch.setattr(recorded, "MOST_VALUE_BYTES", most)
        (event,) = (await door.post(path, json={"events": 1})).json()["events"]
        step = next(step for step in event["steps"] if step["node"] == "call")
        assert (step["mock"], event["recording"]) == (mock, recording)


async def test_a_dry_run_that_takes_too_long_is_broken_off(
    door: httpx.AsyncClient, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(gate.ports.settings.__dict__, "dry_run_timeout", 1e-9)
    body = {"definition": loop_of(1_000), "trigger_data": {}}
    (event,) = (await door.post(f"{DEFINITIONS}/dry-run", json=body)).json()["events"]
    assert (event["starts"], event["status"], event["broken_off"]) == (True, None, "time")


async def test_who_finds_no_turn_is_asked_to_come_again(
    door: httpx.AsyncClient,
    doors: Doors,
    gate: Gate,
    org: UUID,
    other_org: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "LONGEST_QUEUE", 0.05)
    stranger = await doors(org=other_org)
    body = {"definition": flow(), "trigger_data": {}}
    async with gate.ports.turns.turn(org):
        busy = await door.post(f"{DEFINITIONS}/dry-run", json=body)
        assert (busy.status_code, busy.json()["code"]) == (503, "busy")
        assert busy.headers["retry-after"]
        # Another organisation does not wait for this one.
        assert (await stranger.post(f"{DEFINITIONS}/dry-run", json=body)).status_code == 200
    assert (await door.post(f"{DEFINITIONS}/dry-run", json=body)).status_code == 200


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


@pytest.mark.parametrize(
    ("more", "pointer", "said"),
    [
        ({"mocks": {"cal": {"output": 1}}}, "/mocks/cal", "did you mean 'call'?"),
        ({"trigger": "strt"}, "/trigger", "There is no trigger 'strt'"),
        ({"trigger": "call"}, "/trigger", "There is no trigger 'call'"),
    ],
)
async def test_a_name_that_is_none_is_refused(
    door: httpx.AsyncClient, more: dict[str, Any], pointer: str, said: str
) -> None:
    answer = await door.post(f"{DEFINITIONS}/dry-run", json={"definition": flow(), **more})
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert said in error["message"]
