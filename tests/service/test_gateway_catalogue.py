"""The catalogue over HTTP: blocks with their schemas, and options that depend on other fields."""

from __future__ import annotations

import asyncio
import base64
from typing import Any
from uuid import UUID

import httpx
import psycopg
import pytest

from pipeline.settings import Settings
from tests import catalogue_forms
from tests.fix_gateway import Doors, by_hand, graph, save

CATALOGUE = "/workflows/v1/catalogue"
pytestmark = pytest.mark.service


@pytest.fixture
def gateway_settings(database_url: str) -> Settings:
    return Settings(
        encryption_keys="k1:" + base64.b64encode(bytes(range(32))).decode(),
        http_port=0,
        plugins="tests.catalogue_forms",
        sources=f"shop={database_url} default/gone=postgresql://nobody@127.0.0.1:9/none "
        f"other/theirs={database_url}",
        _env_file=None,  # type: ignore[call-arg]
    )


async def options(door: httpx.AsyncClient, field: str, config: Any) -> list[Any]:
    answer = await door.post(f"{CATALOGUE}/geo/sync/options/{field}", json={"config": config})
    assert answer.status_code == 200, answer.text
    found: list[Any] = answer.json()["options"]
    return found


async def test_the_catalogue_lists_triggers_logic_and_tasks_with_their_labels(
    door: httpx.AsyncClient,
) -> None:
    answer = (await door.get(CATALOGUE)).json()
    blocks = {block["name"]: block for block in answer["blocks"]}
    assert {"trigger_record", "logic_condition", "action_http", "geo/sync"} <= blocks.keys()
    assert "geo/lost" not in blocks
    assert blocks["trigger_record"]["kind"] == "trigger"
    assert blocks["logic_loop"]["kind"] == "logic"
    assert blocks["geo/sync"] == {
        "name": "geo/sync",
        "kind": "task",
        "label": "Sync places",
        "category": "Geo",
        "description": "Bring places together.",
        "icon": "map",
        "stage": "code",
        "remote": False,
        "links": {"self": f"{CATALOGUE}/geo/sync"},
    }
    assert answer["integrations"] == [
        {
            "type": "geo",
            "label": "Geo",
            "description": "Places",
            "icon": "map",
            "form_fields": [
                {
                    "id": "apiKey",
                    "label": "API Key",
                    "type": "password",
                    "placeholder": "your key",
                    "config_key": "key",
                }
            ],
            "actions": {"geo/sync": "Sync places", "geo/lost": "Lost"},
        }
    ]


async def test_every_block_that_is_listed_can_be_seen_with_its_schemas(
    door: httpx.AsyncClient,
) -> None:
    for block in (await door.get(CATALOGUE)).json()["blocks"]:
        answer = await door.get(block["links"]["self"])
        assert answer.status_code == 200, answer.text
        shown = answer.json()
        assert {name: shown[name] for name in block} == block
        assert shown["description"]
        assert {"type", "oneOf", "$ref"} & shown["config"].keys()


async def test_a_block_is_shown_with_the_fields_of_its_form(door: httpx.AsyncClient) -> None:
    shown = (await door.get(f"{CATALOGUE}/geo/sync")).json()
    fields = {field["key"]: field for field in shown["fields"]}
    assert fields["country"]["type"] == "select"
    assert fields["country"]["required"] is True
    assert fields["row"]["type"] == "single-row-update"
    assert fields["row"]["singleRowMode"] == "update"
    assert shown["config"]["properties"]["country"]["x-permaflow"]["type"] == "select"
    assert shown["ports"] == ["error"]


async def test_an_action_of_a_plug_in_is_a_node_like_any_other(door: httpx.AsyncClient) -> None:
    node = {"id": "sync", "type": "geo/sync", "config": {"country": "de"}}
    await save(door, graph(by_hand(), node))
    wrong = graph(by_hand(), {**node, "config": {"country": "atlantis"}})
    answer = await door.post("/workflows/v1/definitions", json={"name": "x", "definition": wrong})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/definition/nodes/1/config/country"


async def test_options_follow_from_other_fields_and_are_none_without_them(
    door: httpx.AsyncClient,
) -> None:
    first = {"value": "de-1", "label": "The first", "primary_key": False}
    assert await options(door, "city", {"country": "de"}) == [first]
    assert await options(door, "city", {}) == []
    assert await options(door, "city", {"country": ""}) == []


async def test_data_sources_are_the_objects_and_the_tables_of_the_organisation(
    door: httpx.AsyncClient, doors: Doors, other_org: UUID, database_url: str
) -> None:
    other = await doors(org=other_org)
    for client, name in ((door, "orders"), (door, "customers"), (other, "secrets")):
        await client.post(f"/records/v1/{name}", json={"data": {"amount": 1, "state": "new"}})
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as c:
        await c.execute(
            "create table visits (name text, shop int, at date, primary key (shop, at))"
        )
    found = [option["value"] for option in await options(door, "datasourceId", {})]
    assert found == ["customers", "orders", "shop:public.visits"]

    def keys(shown: list[Any]) -> list[tuple[str, bool]]:
        return [(option["value"], option["primary_key"]) for option in shown]

    others = [option["value"] for option in await options(other, "datasourceId", {})]
    assert others == ["secrets", "theirs:public.visits"]

    records = await options(door, "row", {"datasourceId": "orders"})
    assert keys(records) == [("id", True), ("amount", False), ("state", False)]
    rows = await options(door, "match", {"datasourceId": "shop:public.visits"})
    assert keys(rows) == [("shop", True), ("at", True), ("name", False)]
    for elsewhere in ("secrets", "shop:public.nothing", "theirs:public.visits", ""):
        config = {"datasourceId": elsewhere}
        assert await options(door, "row", config) == []


async def test_a_data_source_that_is_away_is_no_bug_of_ours(door: httpx.AsyncClient) -> None:
    body = {"config": {"datasourceId": "gone:public.visits"}}
    answer = await door.post(f"{CATALOGUE}/geo/sync/options/row", json=body)
    assert (answer.status_code, answer.json()["code"]) == (502, "options_failed")
    assert "cannot be reached" in answer.json()["detail"]


async def test_what_is_not_there_is_a_404_and_what_fails_keeps_its_secrets(
    door: httpx.AsyncClient,
) -> None:
    body: dict[str, Any] = {"config": {}}
    assert (await door.get(f"{CATALOGUE}/nothing")).status_code == 404
    assert (await door.post(f"{CATALOGUE}/nothing/options/x", json=body)).status_code == 404
    assert (await door.post(f"{CATALOGUE}/geo/sync/options/x", json=body)).status_code == 404
    lost = await door.get(f"{CATALOGUE}/geo/lost")
    assert (lost.status_code, lost.json()["code"]) == (409, "broken_plugin")
    failed = await door.post(f"{CATALOGUE}/geo/sync/options/broken", json=body)
    assert (failed.status_code, failed.json()["code"]) == (502, "options_failed")
    assert "secret" not in failed.text


async def test_what_a_plug_in_makes_of_the_data_sources_comes_from_them(
    door: httpx.AsyncClient,
) -> None:
    await door.post("/records/v1/orders", json={"data": {"amount": 1}})
    found = [option["value"] for option in await options(door, "place", {})]
    assert "at orders" in found


async def test_data_sources_are_for_who_may_read_records(doors: Doors) -> None:
    reader = await doors("workflows:read")
    for field, config in (
        ("datasourceId", {}),
        ("row", {"datasourceId": "orders"}),
        ("place", {}),
    ):
        refused = await reader.post(
            f"{CATALOGUE}/geo/sync/options/{field}", json={"config": config}
        )
        assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")
        assert "`records:read`" in refused.json()["detail"]
    assert await options(reader, "city", {"country": "de"}) != []
    both = await doors("workflows:read", "records:read")
    assert await options(both, "place", {}) == []


async def test_a_plug_in_that_blocks_keeps_nobody_else_waiting(
    door: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.gateway.catalogue.LONGEST", 0.2)
    monkeypatch.setattr("pipeline.gateway.foreign.MOST_THREADS", 1)
    catalogue_forms.BLOCKED.clear()
    path = f"{CATALOGUE}/geo/sync/options"
    try:
        slow = asyncio.create_task(door.post(f"{path}/blocking", json={"config": {}}))
        assert (await door.get(f"{CATALOGUE}/action_http")).status_code == 200
        answer = await slow
        assert (answer.status_code, answer.json()["code"]) == (502, "options_failed")
        assert "too long" in answer.json()["detail"]
        busy = await door.post(f"{path}/city", json={"config": {"country": "de"}})
        assert (busy.status_code, busy.json()["code"]) == (503, "busy")
    finally:
        catalogue_forms.BLOCKED.set()
    monkeypatch.setattr("pipeline.gateway.catalogue.LONGEST", 60)
    body = {"config": {"country": "de"}}
    async with asyncio.timeout(60):
        while (again := await door.post(f"{path}/city", json=body)).status_code == 503:
            pass
    assert again.status_code == 200


async def test_the_catalogue_needs_the_right_to_read_workflows(doors: Doors) -> None:
    stranger = await doors("runs:read")
    assert (await stranger.get(CATALOGUE)).status_code == 403
    assert (await stranger.get(f"{CATALOGUE}/action_http")).status_code == 403
    reader = await doors("workflows:read")
    assert (await reader.get(CATALOGUE)).status_code == 200
