"""Workflows over HTTP: saved, changed, activated, removed; and what is wrong with them."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from pipeline.store import triggers
from pipeline.store.database import Database
from tests.fix_gateway import (
    DEFINITIONS,
    RUNS,
    activate,
    by_hand,
    call,
    graph,
    save,
    save_active,
    webhook,
)

DAG = {
    "dag": {
        "entrypoint": "fetch",
        "exitpoints": ["fetch"],
        "tasks": [
            {"name": "fetch", "type": "HTTP", "arguments": [{"url": "https://example.com/"}]}
        ],
    }
}


def pointers(answer: httpx.Response) -> set[str]:
    return {each["pointer"] for each in answer.json()["errors"]}


async def test_a_saved_workflow_is_a_draft_that_tells_where_it_is(door: httpx.AsyncClient) -> None:
    answer = await door.post(
        DEFINITIONS, json={"name": "Orders", "definition": graph(by_hand(), call())}
    )
    saved = answer.json()
    assert answer.status_code == 201
    assert (saved["status"], saved["version"], saved["dialect"]) == ("draft", 1, "graph")
    assert saved["trigger_type"] == "manual"
    assert answer.headers["location"] == f"{DEFINITIONS}/{saved['id']}" == saved["links"]["self"]
    assert answer.headers["etag"] == '"1"'
    assert (await door.get(answer.headers["location"])).json() == saved


async def test_a_document_comes_back_byte_for_byte(door: httpx.AsyncClient) -> None:
    text = b'{ "version": 1,\n "edges" : [],"nodes":[ {"id":"hand","type":"trigger_manual"}]}'
    body = b'{"name": "Orders", "definition": ' + text + b"}"
    answer = await door.post(DEFINITIONS, content=body)
    assert answer.status_code == 201, answer.text
    assert b'"definition":' + text in (await door.get(answer.headers["location"])).content


async def test_a_document_of_blocks_is_taken_too(door: httpx.AsyncClient) -> None:
    saved = await save(door, DAG)
    assert (saved["dialect"], saved["definition"]) == ("dag", DAG)


async def test_every_problem_is_told_at_once_with_its_place_in_the_body(
    door: httpx.AsyncClient,
) -> None:
    broken = graph(by_hand(), {"id": "a", "type": "action_htp"}, {"id": "a", "type": "action_http"})
    answer = await door.post(DEFINITIONS, json={"name": "Orders", "definition": broken})
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "invalid_document"
    assert {"/definition/nodes/1/type", "/definition/nodes/2/id"} <= pointers(answer)


@pytest.mark.parametrize(
    ("body", "pointer", "code"),
    [
        ({"definition": {}}, "/name", "missing_field"),
        ({"name": "x"}, "/definition", "missing_field"),
        ({"name": 3, "definition": {}}, "/name", "string_type"),
        ({"name": "", "definition": {}}, "/name", "string_too_short"),
        ({"name": "x", "definition": [], "nmae": 1}, "/nmae", "unknown_field"),
        ({"name": "x", "definition": "text"}, "/definition", "dict_type"),
        ([], "", "model_type"),
    ],
)
async def test_a_body_of_the_wrong_form_is_refused_with_its_place(
    door: httpx.AsyncClient, body: Any, pointer: str, code: str
) -> None:
    answer = await door.post(DEFINITIONS, json=body)
    assert answer.status_code == 422
    assert (pointer, code) in {(e["pointer"], e["code"]) for e in answer.json()["errors"]}


async def test_looking_at_a_document_saves_nothing(door: httpx.AsyncClient) -> None:
    good = await door.post(f"{DEFINITIONS}/validate", json={"definition": graph(by_hand(), call())})
    assert good.json() == {
        "valid": True,
        "dialect": "graph",
        "problems": [],
        "warnings": [],
        "triggers": [{"node": "hand", "kind": "manual"}],
    }
    bad = await door.post(f"{DEFINITIONS}/validate", json={"definition": {"nodes": []}})
    assert bad.status_code == 200
    assert bad.json()["valid"] is False
    assert bad.json()["problems"][0]["pointer"].startswith("/definition")
    assert (await door.get(DEFINITIONS)).json()["data"] == []


async def test_lists_go_on_where_the_page_before_ended(door: httpx.AsyncClient) -> None:
    saved = [(await save(door, graph(by_hand())))["id"] for _ in range(5)]
    found: list[str] = []
    url: str | None = f"{DEFINITIONS}?limit=2"
    while url:
        answer = await door.get(url)
        page = answer.json()
        found += [each["id"] for each in page["data"]]
        assert page["has_more"] == (page["next_cursor"] is not None)
        url = answer.links["next"]["url"] if "next" in answer.links else None
    assert found == saved[::-1]


async def test_a_list_may_have_one_status_only(door: httpx.AsyncClient) -> None:
    await save(door, graph(by_hand()))
    active = await save_active(door, graph(by_hand()))
    found = (await door.get(DEFINITIONS, params={"status": "active"})).json()["data"]
    assert [each["id"] for each in found] == [active["id"]]


@pytest.mark.parametrize("query", ["status=live", "limit=0", "limit=x", "cursor=%21", "cursor=aGk"])
async def test_a_bad_parameter_is_a_400_that_names_it(door: httpx.AsyncClient, query: str) -> None:
    answer = await door.get(f"{DEFINITIONS}?{query}")
    assert answer.status_code == 400
    assert pointers(answer) == {f"/query/{query.partition('=')[0]}"}


@pytest.mark.parametrize(
    ("path", "query", "said"),
    [
        (RUNS, "since=abc", "`since`: It must be a time such as `2030-01-31T09:00:00Z`"),
        (RUNS, "until=2030-02-31T00:00:00Z", "`until`: It must be a time such as"),
        ("/workflows/v1/metrics", "since=2030-01-31T25:00:00Z", "`since`: It must be a time"),
        ("/workflows/v1/metrics", "since=2026", "`since`: It must be a time such as"),
        (RUNS, "workflow_id=7", "`workflow_id`: It must be an id, such as"),
        (RUNS, "limit=many", "`limit`: It must be a whole number."),
        (RUNS, "limit=0", "`limit`: It must be 1 or more."),
        (RUNS, "limit=1000", "`limit`: It must be 200 or less."),
        (RUNS, "page=2", "`page`: There is no such parameter here."),
        (DEFINITIONS, "status=live", "`status`: It must be 'draft', 'active', 'paused' or"),
        (
            RUNS,
            "limit=x&since=x",
            "`since`: It must be a time such as `2030-01-31T09:00:00Z`; the `+` of an offset is "
            "`%2B`. `limit`: It must be a whole number.",
        ),
    ],
)
async def test_what_is_wrong_with_a_parameter_is_a_sentence(
    door: httpx.AsyncClient, path: str, query: str, said: str
) -> None:
    answer = await door.get(f"{path}?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "bad_parameter")
    assert answer.json()["detail"].startswith(said)
    assert "Input" not in answer.text


# --- versions -------------------------------------------------------------------------------------


async def test_saving_again_makes_a_version_and_keeps_the_old_one(door: httpx.AsyncClient) -> None:
    saved = await save(door, graph(by_hand()))
    path = f"{DEFINITIONS}/{saved['id']}"
    changed = await door.put(path, json={"definition": graph(by_hand(), call())})
    assert changed.status_code == 200
    assert (changed.json()["version"], changed.json()["name"]) == (2, "Orders")
    listed = (await door.get(f"{path}/versions")).json()["data"]
    assert [each["version"] for each in listed] == [2, 1]
    first = (await door.get(f"{path}/versions/1")).json()
    assert first["definition"] == graph(by_hand())
    assert (await door.get(f"{path}/versions/3")).status_code == 404


async def test_an_update_with_an_old_tag_is_refused(door: httpx.AsyncClient) -> None:
    saved = await save(door, graph(by_hand()))
    path = f"{DEFINITIONS}/{saved['id']}"
    body = {"definition": graph(by_hand(), call())}
    first = await door.put(path, json=body, headers={"if-match": '"1"'})
    assert first.status_code == 200
    assert first.headers["etag"] == '"2"'
    second = await door.put(path, json=body, headers={"if-match": '"1"'})
    assert second.status_code == 412
    assert "version 2" in second.json()["detail"]
    for tag in ("W/x", 'W/"2"', "2", ""):
        answer = await door.put(path, json=body, headers={"if-match": tag})
        assert answer.status_code == 412, tag


async def test_of_several_that_save_at_once_each_is_told_its_own_version(
    door: httpx.AsyncClient,
) -> None:
    path = f"{DEFINITIONS}/{(await save(door, graph(by_hand())))['id']}"
    for _ in range(3):
        bodies = [
            {"name": f"n{n}", "definition": graph(by_hand(), call(f"https://example.com/{n}"))}
            for n in range(6)
        ]
        told = await asyncio.gather(*(door.put(path, json=body) for body in bodies))
        for body, answer in zip(bodies, told, strict=True):
            assert {name: answer.json()[name] for name in body} == body
            assert answer.headers["etag"] == f'"{answer.json()["version"]}"'
        assert len({answer.headers["etag"] for answer in told}) == len(told)


# --- status ---------------------------------------------------------------------------------------


async def set_status(door: httpx.AsyncClient, workflow_id: str, status: str) -> httpx.Response:
    return await door.patch(f"{DEFINITIONS}/{workflow_id}/status", json={"status": status})


async def test_a_workflow_goes_through_its_life(door: httpx.AsyncClient) -> None:
    saved = await save(door, graph(by_hand()))
    for status in ("active", "paused", "active", "paused", "archived"):
        answer = await set_status(door, saved["id"], status)
        assert (answer.status_code, answer.json()["status"]) == (200, status)


async def test_an_impossible_status_is_refused_with_what_is_possible(
    door: httpx.AsyncClient,
) -> None:
    saved = await save(door, graph(by_hand()))
    answer = await set_status(door, saved["id"], "paused")
    assert answer.status_code == 409
    assert "active or archived" in answer.json()["detail"]
    assert (await set_status(door, saved["id"], "live")).status_code == 422


async def test_setting_the_same_status_again_changes_nothing(door: httpx.AsyncClient) -> None:
    active = await save_active(door, graph(by_hand()))
    again = await set_status(door, active["id"], "active")
    assert again.status_code == 200
    assert again.json()["updated_at"] == active["updated_at"]


async def test_a_removed_workflow_is_seen_no_more_and_starts_nothing(
    door: httpx.AsyncClient,
) -> None:
    active = await save_active(door, graph(by_hand()))
    path = f"{DEFINITIONS}/{active['id']}"
    assert (await door.delete(path)).status_code == 204
    assert (await door.get(path)).status_code == 404
    assert (await door.delete(path)).status_code == 404
    assert (await door.get(f"{path}/versions/1")).status_code == 404
    started = await door.post(RUNS, json={"workflow_id": active["id"]})
    assert started.status_code == 404
    assert started.json()["detail"] == "Workflow not found or not active"


async def test_everybody_who_keeps_triggers_hears_of_a_change(
    door: httpx.AsyncClient, store: Database
) -> None:
    saved = await save(door, graph(by_hand()))
    before = await store.run(triggers.generation)
    await activate(door, saved["id"])
    assert await store.run(triggers.generation) > before


# --- webhooks and their secrets -------------------------------------------------------------------


async def test_an_active_webhook_tells_its_address(door: httpx.AsyncClient) -> None:
    saved = await save(door, graph(webhook(verification="none"), call()))
    assert saved["webhooks"] == []
    [hook] = (await activate(door, saved["id"]))["webhooks"]
    assert hook["node"] == "hook"
    assert hook["path"].startswith("/webhooks/workflow/")
    assert hook["url"] == f"http://gateway{hook['path']}"
    assert hook["has_secret"] is False


async def test_an_address_stays_through_versions_and_pauses(door: httpx.AsyncClient) -> None:
    active = await save_active(door, graph(webhook(verification="none")))
    path = f"{DEFINITIONS}/{active['id']}"
    await door.put(path, json={"definition": graph(webhook(verification="none"), call())})
    await set_status(door, active["id"], "paused")
    assert (await activate(door, active["id"]))["webhooks"] == active["webhooks"]


async def test_a_webhook_that_nobody_signs_is_warned_about(door: httpx.AsyncClient) -> None:
    saved = await save(door, graph(webhook(), call()))
    [warning] = saved["warnings"]
    assert warning["pointer"] == "/definition/nodes/0/config/verification"
    assert (await save(door, graph(webhook(verification="none"))))["warnings"] == []


async def test_an_unknown_verification_is_a_problem_at_its_place(door: httpx.AsyncClient) -> None:
    document = graph(webhook(verification={"scheme": "hmca"}), {"id": "a", "type": "action_htp"})
    answer = await door.post(DEFINITIONS, json={"name": "x", "definition": document})
    assert answer.status_code == 422
    assert pointers(answer) == {
        "/definition/nodes/0/config/verification/scheme",
        "/definition/nodes/1/type",
    }


async def test_a_webhook_that_checks_signatures_needs_its_secret_first(
    door: httpx.AsyncClient,
) -> None:
    saved = await save(door, graph(webhook(verification={"scheme": "github"})))
    refused = await set_status(door, saved["id"], "active")
    assert refused.status_code == 409
    place = f"{DEFINITIONS}/{saved['id']}/webhooks/hook/secret"
    assert place in refused.json()["detail"]
    assert (await door.put(place, json={"secret": "s3cret"})).status_code == 204
    active = await set_status(door, saved["id"], "active")
    assert active.status_code == 200
    assert active.json()["webhooks"][0]["has_secret"] is True


async def test_an_active_workflow_does_not_start_to_sign_without_a_secret(
    door: httpx.AsyncClient,
) -> None:
    active = await save_active(door, graph(webhook(verification="none")))
    answer = await door.put(
        f"{DEFINITIONS}/{active['id']}",
        json={"definition": graph(webhook(verification="github"))},
    )
    assert answer.status_code == 409
    assert (await door.get(f"{DEFINITIONS}/{active['id']}")).json()["version"] == 1


async def test_a_secret_is_written_and_never_read(
    door: httpx.AsyncClient, store: Database, org: UUID
) -> None:
    saved = await save(door, graph(webhook(verification="hmac")))
    place = f"{DEFINITIONS}/{saved['id']}/webhooks/hook/secret"
    assert (await door.put(place, json={"secret": "canary-7391"})).status_code == 204
    assert (await door.get(place)).status_code == 405
    assert "canary-7391" not in (await door.get(f"{DEFINITIONS}/{saved['id']}")).text

    async def everything(connection: Any) -> bytes:
        rows = []
        for table in ("webhook", "audit", "workflow"):
            cursor = await connection.execute(f"select t::text from permaflow.{table} t".encode())
            rows += await cursor.fetchall()
        return orjson.dumps(rows)

    stored = await store.run(everything)
    assert b"hook" in stored
    assert b"canary-7391" not in stored
    assert b"canary-7391".hex().encode() not in stored


@pytest.mark.parametrize(
    ("scheme", "body", "status"),
    [
        ("hmac", {}, 422),
        ("hmac", {"secret": "a", "secrets": ["b"]}, 422),
        ("hmac", {"secret": " "}, 422),
        ("standard", {"secret": "whsec_???"}, 422),
        ("hmac", {"secrets": ["new", "old"]}, 204),
    ],
)
async def test_a_useless_secret_is_refused(
    door: httpx.AsyncClient, scheme: str, body: dict[str, Any], status: int
) -> None:
    saved = await save(door, graph(webhook(verification=scheme)))
    answer = await door.put(f"{DEFINITIONS}/{saved['id']}/webhooks/hook/secret", json=body)
    assert answer.status_code == status


async def test_a_node_that_is_no_webhook_has_no_secret(door: httpx.AsyncClient) -> None:
    saved = await save(door, graph(by_hand()))
    answer = await door.put(
        f"{DEFINITIONS}/{saved['id']}/webhooks/hand/secret", json={"secret": "s"}
    )
    assert answer.status_code == 404
