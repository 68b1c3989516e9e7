"""Schemas and pictures over HTTP."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from uuid import UUID

import httpx
import jsonschema_rs
import pytest
from uuid_utils.compat import uuid7

from tests.fix_gateway import DEFINITIONS, Doors, by_hand, call, graph, save

pytestmark = pytest.mark.service


@pytest.mark.parametrize("name", ["graph", "dag.json", "steps"])
async def test_anybody_may_read_the_schema_of_a_dialect(doors: Doors, name: str) -> None:
    stranger = await doors(key="")
    answer = await stranger.get(f"/schemas/{name}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/schema+json"
    schema = answer.json()
    jsonschema_rs.meta.validate(schema)
    assert schema["$id"] == f"urn:permaflow:schemas:{name.removesuffix('.json')}"


async def test_the_schema_of_this_installation_wants_a_key(
    doors: Doors, door: httpx.AsyncClient
) -> None:
    answer = await door.get("/workflows/v1/schemas/graph")
    assert answer.status_code == 200
    stranger = await doors(key="")
    assert (await stranger.get("/workflows/v1/schemas/graph")).status_code == 401


async def test_a_schema_that_is_not_there_is_a_404(door: httpx.AsyncClient) -> None:
    answer = await door.get("/schemas/bpmn")
    assert answer.status_code == 404
    assert "graph, dag, steps" in answer.json()["detail"]


async def test_a_workflow_is_drawn_in_every_format(door: httpx.AsyncClient) -> None:
    saved = await save(door, graph(call()))
    path = f"{DEFINITIONS}/{saved['id']}/graph"
    text = await door.get(path)
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert text.text.startswith("flowchart TD")
    dot = await door.get(path, params={"format": "dot"})
    assert dot.text.startswith("digraph workflow")
    picture = await door.get(path, params={"format": "svg"})
    assert picture.headers["content-type"] == "image/svg+xml"
    assert "sandbox" in picture.headers["content-security-policy"]
    assert picture.headers["x-content-type-options"] == "nosniff"
    assert ET.fromstring(picture.text).tag.endswith("svg")
    assert (await door.get(path, params={"format": "png"})).status_code == 400


async def test_an_older_version_is_drawn_as_it_was(door: httpx.AsyncClient) -> None:
    saved = await save(door, graph(call()))
    path = f"{DEFINITIONS}/{saved['id']}"
    first = (await door.get(f"{path}/graph")).text
    changed = {"name": "x", "definition": graph(by_hand(), call())}
    assert (await door.put(path, json=changed)).status_code == 200
    assert "trigger_manual" in (await door.get(f"{path}/graph")).text
    assert (await door.get(f"{path}/graph", params={"version": 1})).text == first
    assert (await door.get(f"{path}/graph", params={"version": 9})).status_code == 404


async def test_nobody_sees_the_workflows_of_others(
    doors: Doors, door: httpx.AsyncClient, other_org: UUID
) -> None:
    saved = await save(door, graph(call()))
    stranger = await doors(org=other_org)
    assert (await stranger.get(f"{DEFINITIONS}/{saved['id']}/graph")).status_code == 404
    assert (await door.get(f"{DEFINITIONS}/{uuid7()}/graph")).status_code == 404
