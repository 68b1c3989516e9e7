"""Runs over HTTP: started once, found, looked into, and ended."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from uuid_utils.compat import uuid7

from pipeline.store import payloads, runs
from pipeline.store.database import Database
from tests.fix_gateway import DEFINITIONS, RUNS, by_hand, call, graph, save, save_active
from tests.fix_store import append, finish

JOURNAL: list[list[Any]] = [
    [["started", "hand"], ["succeeded", "", "hand", 0], ["dispatched", "", "call", 1]],
    [["retrying", "", "call", 1, 0.5, "http_503", "busy"]],
    [["dispatched", "", "call", 2]],
    [["succeeded", "", "call", 2, {"status": 200}], ["finished", "completed"]],
]


ON_ORDERS = {
    "id": "changed",
    "type": "trigger_record",
    "config": {"object": "orders", "events": ["created"]},
}


async def start(door: httpx.AsyncClient, workflow_id: str, **body: Any) -> httpx.Response:
    headers = body.pop("headers", {})
    return await door.post(RUNS, json={"workflow_id": workflow_id, **body}, headers=headers)


async def run_of(door: httpx.AsyncClient, workflow_id: str, **body: Any) -> UUID:
    answer = await start(door, workflow_id, **body)
    assert answer.status_code == 202, answer.text
    return UUID(answer.json()["id"])


@pytest.fixture
async def workflow_id(door: httpx.AsyncClient) -> str:
    """An active workflow: a manual trigger and a call."""
    active = await save_active(door, graph(by_hand(), call()))
    return str(active["id"])


async def write(store: Database, org: UUID, run_id: UUID, rows: list[list[Any]]) -> None:
    for seq, row in enumerate(rows, start=1):
        await append(store, org, run_id, seq, orjson.dumps(row).decode())


@pytest.fixture
async def run_id(door: httpx.AsyncClient, store: Database, org: UUID, workflow_id: str) -> UUID:
    """A run that has ended."""
    found = await run_of(door, workflow_id, trigger_data={"n": 1})
    await write(store, org, found, JOURNAL)
    await finish(store, found)
    return found


# --- starting ---


async def test_a_started_run_tells_where_to_look(door: httpx.AsyncClient, workflow_id: str) -> None:
    answer = await start(door, workflow_id, trigger_data={"n": 1})
    body = answer.json()
    assert answer.status_code == 202
    assert (body["id"], body["status"], body["version"]) == (body["run_id"], "running", 1)
    assert answer.headers["location"] == body["links"]["self"] == f"{RUNS}/{body['id']}"
    for name in ("self", "steps"):
        assert (await door.get(body["links"][name])).status_code == 200
    assert (await door.get(f"/v1/workflows/runs/{body['id']}")).json()["id"] == body["id"]


async def test_a_run_keeps_who_asked_for_it_and_for_what(
    door: httpx.AsyncClient, workflow_id: str
) -> None:
    wanted = {
        "type": "server.deploy",
        "resource_type": "server",
        "resource_id": "srv-1",
        "requested_by": "ana",
    }
    run_id = await run_of(door, workflow_id, input=[1, 2], **wanted)
    run = (await door.get(f"{RUNS}/{run_id}")).json()
    assert wanted.items() <= run.items()
    assert run["trigger_data"] == [1, 2]
    assert run["source"] == "api"


async def test_without_a_name_the_key_asked_for_it(
    door: httpx.AsyncClient, workflow_id: str
) -> None:
    run_id = await run_of(door, workflow_id)
    assert (await door.get(f"{RUNS}/{run_id}")).json()["requested_by"] == "key:test"


@pytest.mark.parametrize("status", ["draft", "paused", "nobody"])
async def test_what_is_not_active_does_not_start(door: httpx.AsyncClient, status: str) -> None:
    workflow_id = str(uuid7())
    if status == "draft":
        workflow_id = (await save(door, graph(by_hand())))["id"]
    if status == "paused":
        workflow_id = (await save_active(door, graph(by_hand())))["id"]
        assert (await start(door, workflow_id)).status_code == 202
        await door.patch(f"{DEFINITIONS}/{workflow_id}/status", json={"status": "paused"})
    answer = await start(door, workflow_id)
    assert answer.status_code == 404
    assert answer.json()["detail"] == "Workflow not found or not active"


async def test_a_new_version_is_what_starts_next(door: httpx.AsyncClient, workflow_id: str) -> None:
    assert (await start(door, workflow_id)).json()["version"] == 1
    await door.put(f"{DEFINITIONS}/{workflow_id}", json={"definition": graph(by_hand())})
    assert (await start(door, workflow_id)).json()["version"] == 2


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/workflow_id"),
        ({"workflow_id": "x"}, "/workflow_id"),
        ({"workflow_id": 3}, "/workflow_id"),
        ({"workflow_id": str(UUID(int=1)), "data": {}}, "/data"),
        ({"workflow_id": str(UUID(int=1)), "type": "x" * 201}, "/type"),
    ],
)
async def test_a_body_of_the_wrong_form_is_refused_with_its_place(
    door: httpx.AsyncClient, body: dict[str, Any], pointer: str
) -> None:
    answer = await door.post(RUNS, json=body)
    assert answer.status_code == 422
    assert [each["pointer"] for each in answer.json()["errors"]] == [pointer]


@pytest.mark.parametrize("raw", [b"", b"{", b'{"a": 1e999}', b'{"a":' * 80, b"\xff", b'"\\u0000"'])
async def test_what_is_no_json_is_a_400(door: httpx.AsyncClient, raw: bytes) -> None:
    answer = await door.post(RUNS, content=raw)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")


async def test_another_media_type_is_a_415(door: httpx.AsyncClient) -> None:
    assert (await door.post(RUNS, data={"workflow_id": "x"})).status_code == 415


async def test_the_input_must_be_what_the_trigger_describes(door: httpx.AsyncClient) -> None:
    schema = {
        "type": "object",
        "properties": {"n": {"type": "integer"}},
        "required": ["n", "m"],
    }
    active = await save_active(door, graph(by_hand(input_schema=schema)))
    refused = await start(door, active["id"], trigger_data={"n": "one"})
    assert refused.status_code == 422
    assert {each["pointer"] for each in refused.json()["errors"]} == {
        "/trigger_data/n",
        "/trigger_data",
    }
    assert (await start(door, active["id"], input={"n": 1, "m": 2})).status_code == 202


async def test_a_schema_that_leads_elsewhere_is_no_schema(door: httpx.AsyncClient) -> None:
    document = graph(by_hand(input_schema={"$ref": "http://127.0.0.1:1/schema"}))
    answer = await door.post(DEFINITIONS, json={"name": "x", "definition": document})
    assert answer.status_code == 422
    assert "/definition/nodes/0/config/input_schema" in {
        each["pointer"] for each in answer.json()["errors"]
    }


# --- once ---


async def test_the_same_key_gives_the_same_run(door: httpx.AsyncClient, workflow_id: str) -> None:
    key = {"idempotency-key": "order-1"}
    first = await start(door, workflow_id, trigger_data={"n": 1, "m": 2}, headers=key)
    again = await start(door, workflow_id, trigger_data={"m": 2, "n": 1.0}, headers=key)
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json() == again.json()
    other = await start(door, workflow_id, trigger_data={"n": 1}, headers={"idempotency-key": "2"})
    assert other.json()["id"] != first.json()["id"]


async def test_the_same_key_for_something_else_is_refused(
    door: httpx.AsyncClient, workflow_id: str
) -> None:
    key = {"idempotency-key": "order-1"}
    first = await start(door, workflow_id, trigger_data={"n": 1}, headers=key)
    elsewhere = (await save_active(door, graph(by_hand())))["id"]
    for target, body in (
        (workflow_id, {"trigger_data": {"n": 2}}),
        (workflow_id, {"trigger_data": {"n": 1}, "type": "t"}),
        (workflow_id, {"trigger_data": {"n": True}}),
        (elsewhere, {"trigger_data": {"n": 1}}),
    ):
        answer = await start(door, target, headers=key, **body)
        assert answer.status_code == 422
        assert answer.json()["code"] == "idempotency_key_reused"
        assert first.json()["id"] in answer.json()["detail"]


@pytest.mark.parametrize("trigger", [by_hand(), ON_ORDERS])
async def test_a_key_gives_its_run_when_the_workflow_starts_no_more(
    door: httpx.AsyncClient, trigger: dict[str, Any]
) -> None:
    workflow_id = (await save_active(door, graph(trigger)))["id"]
    key, data = {"idempotency-key": "order-1"}, {"order_id": 7}
    first = await start(door, workflow_id, trigger_data=data, headers=key)
    await door.patch(f"{DEFINITIONS}/{workflow_id}/status", json={"status": "paused"})
    again = await start(door, workflow_id, trigger_data=data, headers=key)
    await door.delete(f"{DEFINITIONS}/{workflow_id}")
    later = await start(door, workflow_id, trigger_data=data, headers=key)
    assert (first.status_code, again.status_code, later.status_code) == (202, 200, 200)
    assert first.json()["id"] == again.json()["id"] == later.json()["id"]
    assert (await start(door, workflow_id, trigger_data={}, headers=key)).status_code == 422
    other = {"idempotency-key": "order-2"}
    assert (await start(door, workflow_id, trigger_data=data, headers=other)).status_code == 404


async def test_a_large_input_is_the_same_again(door: httpx.AsyncClient, workflow_id: str) -> None:
    key, data = {"idempotency-key": "large"}, {"text": "x" * 50_000}
    first = await start(door, workflow_id, trigger_data=data, headers=key)
    again = await start(door, workflow_id, trigger_data=data, headers=key)
    assert again.json()["id"] == first.json()["id"]
    shown = (await door.get(f"{RUNS}/{first.json()['id']}")).json()["trigger_data"]
    assert (await door.get(shown["$ref"])).json() == data


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_a_useless_key_is_refused(
    door: httpx.AsyncClient, workflow_id: str, key: str
) -> None:
    assert (await start(door, workflow_id, headers={"idempotency-key": key})).status_code == 400


# --- finding ---


async def found_by(door: httpx.AsyncClient, **query: Any) -> set[str]:
    answer = await door.get(RUNS, params=query)
    assert answer.status_code == 200, answer.text
    return {each["id"] for each in answer.json()["data"]}


async def test_runs_are_found_by_what_is_known_of_them(
    door: httpx.AsyncClient, store: Database, workflow_id: str
) -> None:
    one = str(
        await run_of(
            door, workflow_id, type="deploy", resource_type="vm", resource_id="1", requested_by="a"
        )
    )
    two = str(
        await run_of(
            door, workflow_id, type="deploy", resource_type="vm", resource_id="2", requested_by="b"
        )
    )
    await finish(store, UUID(one), "failed")
    assert await found_by(door) == {one, two}
    for query, expected in (
        ({"workflow_id": workflow_id}, {one, two}),
        ({"workflow_id": str(uuid7())}, set()),
        ({"type": "deploy"}, {one, two}),
        ({"type": "other"}, set()),
        ({"resource_type": "vm", "resource_id": "2"}, {two}),
        ({"resourceType": "vm", "resourceId": "1"}, {one}),
        ({"triggeredBy": "b"}, {two}),
        ({"requested_by": "a"}, {one}),
        ({"status": "failed"}, {one}),
        ({"status": "error"}, {one}),
        ({"status": "running,failed"}, {one, two}),
        ({"status": "success"}, set()),
        ({"status": "failed", "requested_by": "b"}, set()),
    ):
        assert await found_by(door, **query) == expected, query


async def test_runs_are_found_by_their_time(door: httpx.AsyncClient, workflow_id: str) -> None:
    one = str(await run_of(door, workflow_id))
    at = datetime.fromisoformat((await door.get(f"{RUNS}/{one}")).json()["created_at"])
    minute = timedelta(minutes=1)
    assert await found_by(door, since=(at - minute).isoformat()) == {one}
    assert await found_by(door, since=at.isoformat(), until=(at + minute).isoformat()) == {one}
    assert await found_by(door, until=at.isoformat()) == set()
    assert await found_by(door, since=(at + minute).isoformat()) == set()
    zoneless = (at - minute).astimezone(UTC).replace(tzinfo=None)
    assert await found_by(door, since=zoneless.isoformat()) == {one}
    for long_ago in ("1970-01-01", "1969-12-31T23:00:00Z", "0001-01-01"):
        assert await found_by(door, since=long_ago) == {one}
        counted = await door.get("/workflows/v1/metrics", params={"since": long_ago})
        assert counted.json()["total"] == 1


@pytest.mark.parametrize(
    "query",
    [
        "status=lost",
        "status=running,lost",
        "since=yesterday",
        "until=x",
        "since=2026",
        "since=20261122",
        "since=-1",
        "workflow_id=7",
        "limit=1000",
        "cursor=zz",
        "stauts=running",
    ],
)
async def test_a_bad_filter_is_a_400_that_names_it(door: httpx.AsyncClient, query: str) -> None:
    answer = await door.get(f"{RUNS}?{query}")
    assert answer.status_code == 400
    assert [each["pointer"] for each in answer.json()["errors"]] == [
        f"/query/{query.partition('=')[0]}"
    ]


async def test_a_list_of_runs_goes_on_with_its_filters(
    door: httpx.AsyncClient, workflow_id: str
) -> None:
    started = [str(await run_of(door, workflow_id, type="a")) for _ in range(3)]
    await run_of(door, workflow_id, type="b")
    first = await door.get(f"{RUNS}?type=a&limit=2")
    second = await door.get(first.links["next"]["url"])
    pages = [each["id"] for page in (first, second) for each in page.json()["data"]]
    assert pages == started[::-1]
    assert second.json()["next_cursor"] is None


# --- looking into one ---


async def test_a_finished_run_tells_what_it_gave_back(
    door: httpx.AsyncClient, run_id: UUID
) -> None:
    run = (await door.get(f"{RUNS}/{run_id}")).json()
    assert (run["status"], run["output"]) == ("completed", {"status": 200})
    assert run["steps"] == {"completed": 2}
    assert run["finished_at"].endswith("Z")
    assert run["duration_ms"] >= 0


async def test_the_steps_tell_attempts_times_and_results(
    door: httpx.AsyncClient, run_id: UUID
) -> None:
    answer = await door.get(f"{RUNS}/{run_id}/steps")
    hand, made = answer.json()["data"]
    assert (hand["node"], hand["type"], hand["status"]) == ("hand", "trigger_manual", "completed")
    assert hand["output"] == {"n": 1}
    assert (made["node"], made["type"], made["status"]) == ("call", "action_http", "completed")
    assert (made["attempts"], made["output"], made["error"]) == (2, {"status": 200}, None)
    assert made["started_at"] <= made["finished_at"]


async def test_steps_come_in_pages_and_by_node(door: httpx.AsyncClient, run_id: UUID) -> None:
    first = await door.get(f"{RUNS}/{run_id}/steps?limit=1")
    second = await door.get(first.links["next"]["url"])
    pages = [each["node"] for page in (first, second) for each in page.json()["data"]]
    assert pages == ["hand", "call"]
    assert not second.json()["has_more"]
    only = await door.get(f"{RUNS}/{run_id}/steps?node=call")
    assert [each["node"] for each in only.json()["data"]] == ["call"]
    assert (await door.get(f"{RUNS}/{run_id}/steps?status=failed")).json()["data"] == []


async def test_pages_of_steps_leave_none_out_while_the_run_goes_on(
    door: httpx.AsyncClient, store: Database, org: UUID, workflow_id: str
) -> None:
    run_id = await run_of(door, workflow_id)
    begun: list[Any] = [["skipped", "", "call"], *(["dispatched", "", n, 1] for n in "abc")]
    await write(store, org, run_id, [begun])
    page = await door.get(f"{RUNS}/{run_id}/steps?limit=2")
    seen = [each["node"] for each in page.json()["data"]]
    goto = [["failed", "", "a", 1, "x", "y"], ["jumped", "", "a", "call"]]
    await append(
        store, org, run_id, 2, orjson.dumps([*goto, ["dispatched", "", "call", 1]]).decode()
    )
    while page.json()["has_more"]:
        page = await door.get(page.links["next"]["url"])
        seen += [each["node"] for each in page.json()["data"]]
    assert seen == ["call", "a", "b", "c", "call"]


async def test_a_large_output_is_given_by_reference(
    door: httpx.AsyncClient, store: Database, org: UUID, workflow_id: str
) -> None:
    run_id, ref = await run_of(door, workflow_id), uuid7()
    await store.run(payloads.put, [payloads.Payload(ref, org, b'{"large": true}', run_id)])
    last = [["succeeded", "", "call", 1, None, None, str(ref)], ["finished", "completed"]]
    await write(store, org, run_id, [JOURNAL[0], last])
    await finish(store, run_id)
    shown = {"$ref": f"{RUNS}/{run_id}/values/{ref}"}
    assert (await door.get(f"{RUNS}/{run_id}")).json()["output"] == shown
    steps = (await door.get(f"{RUNS}/{run_id}/steps")).json()["data"]
    assert steps[1]["output"] == shown
    assert (await door.get(shown["$ref"])).json() == {"large": True}
    assert (await door.get(f"{RUNS}/{run_id}/values/{uuid7()}")).status_code == 404
    assert (await door.get(f"{RUNS}/{uuid7()}/values/{ref}")).status_code == 404


# --- ending ---


async def test_a_running_run_is_asked_to_end(
    door: httpx.AsyncClient, store: Database, org: UUID, workflow_id: str
) -> None:
    run_id = await run_of(door, workflow_id)
    answer = await door.post(f"{RUNS}/{run_id}/cancel")
    assert answer.status_code == 202
    assert answer.json()["cancel_requested_by"] == "key:test"
    assert (await store.run(runs.get, org, run_id)).cancel_at is not None
    again = await door.post(f"{RUNS}/{run_id}/cancel", json={"reason": "twice"})
    assert again.json()["cancel_requested_at"] == answer.json()["cancel_requested_at"]


async def test_a_run_that_has_ended_cannot_be_cancelled(
    door: httpx.AsyncClient, run_id: UUID
) -> None:
    answer = await door.post(f"{RUNS}/{run_id}/cancel")
    assert answer.status_code == 409
    assert "completed already" in answer.json()["detail"]


async def test_a_cancelled_run_is_answered_as_it_is(
    door: httpx.AsyncClient, store: Database, workflow_id: str
) -> None:
    run_id = await run_of(door, workflow_id)
    await finish(store, run_id, "cancelled")
    answer = await door.post(f"{RUNS}/{run_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


async def test_a_run_that_is_not_there_is_a_404(door: httpx.AsyncClient) -> None:
    for name in (str(uuid7()), "x", "%01"):
        assert (await door.get(f"{RUNS}/{name}")).status_code == 404
        assert (await door.get(f"{RUNS}/{name}/steps")).status_code == 404
        assert (await door.get(f"{RUNS}/{name}/stream")).status_code == 404
        assert (await door.post(f"{RUNS}/{name}/cancel")).status_code == 404


async def test_metrics_count_runs_by_status_and_type(
    door: httpx.AsyncClient, store: Database, workflow_id: str
) -> None:
    ended = [await run_of(door, workflow_id, type="deploy") for _ in range(4)]
    await run_of(door, workflow_id, type="backup")
    for run_id in ended[:3]:
        await finish(store, run_id)
    await finish(store, ended[3], "failed")
    found = (await door.get("/workflows/v1/metrics")).json()
    assert found["total"] == 5
    assert found["by_status"] == {"completed": 3, "failed": 1, "running": 1}
    assert found["by_type"] == {"deploy": 4, "backup": 1}
    assert found["success_rate"] == 0.75
    late = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    assert (await door.get("/workflows/v1/metrics", params={"since": late})).json()["total"] == 0
