"""The limits at the doors of the gateway: below, at and above each; and what is hostile.

The sizes are those of an installation that sets none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest

from pipeline.gateway.definitions import ENVELOPE
from pipeline.settings import Settings
from pipeline.store import runs
from pipeline.store.database import Database
from specs.json_limits import MAX_EDGES, MAX_NODES
from specs.limits import Limits
from tests.fix_gateway import DEFINITIONS, RUNS, Gate, by_hand, graph, save, save_active, webhook

DOCUMENT = 1_000_000
INPUT = 16_000_000
INLINE = 32_000
AROUND = [-1, 0, 1]
RECORDS = "/records/v1/orders"

# What no part of the system may ever meet, in text. {"a": …} stands around each.
HOSTILE = {
    "above 64 bits": b"18446744073709551616",
    "below 64 bits": b"-9223372036854775809",
    "a number of 500 digits": b"1" * 500,
    "a fraction of 500 digits": b"0." + b"1" * 500,
    "above a double": b"1e400",
    "a bomb of an exponent": b"1e999999999",
    "NaN": b"NaN",
    "Infinity": b"-Infinity",
    "NUL": rb'"a\u0000b"',
    "NUL in a name": rb'{"a\u0000b": 1}',
    "half a surrogate pair": rb'"\ud800"',
    "no UTF-8": b'"\xff\xfe"',
    "cut off": b'{"b": ',
    "a bomb of brackets": b"[" * 100_000,
}
SOUND = {
    "the highest integer": b"18446744073709551615",
    "the lowest integer": b"-9223372036854775808",
    "the largest double": b"1.7976931348623157e308",
    "a whole surrogate pair": rb'"\ud83d\ude00"',
}


def problem(answer: httpx.Response, status: int, code: str) -> list[dict[str, str]]:
    """The problems of an answer, which must be a problem document of this kind."""
    assert answer.status_code == status, answer.text[:300]
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["code"] == code, answer.text[:300]
    assert body["detail"]
    errors: list[dict[str, str]] = body["errors"]
    assert all({"pointer", "code", "message"} == set(each) for each in errors)
    return errors


def document_of(size: int) -> bytes:
    """A workflow whose text has so many bytes."""
    text = orjson.dumps(graph(by_hand(), description=""))
    return text.replace(b'"description":""', b'"description":"%s"' % (b"x" * (size - len(text))))


def nested(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@contextmanager
def changed(settings: Settings, **values: int) -> Iterator[None]:
    """Other settings for a while."""
    before = {name: getattr(settings, name) for name in values}
    settings.__dict__.update(values)
    try:
        yield
    finally:
        settings.__dict__.update(before)


# --- documents ----------------------------------------------------------------------------------


@pytest.mark.parametrize("over", AROUND)
async def test_a_document_has_one_megabyte_at_most(door: httpx.AsyncClient, over: int) -> None:
    text = document_of(DOCUMENT + over)
    assert len(text) == DOCUMENT + over
    saved = await save(door, graph(by_hand()))
    body = b'{"name": "n", "definition": ' + text + b"}"
    answers = [
        await door.post(DEFINITIONS, content=body),
        await door.put(f"{DEFINITIONS}/{saved['id']}", content=body),
        await door.post(f"{DEFINITIONS}/validate", content=b'{"definition": ' + text + b"}"),
    ]
    if over <= 0:
        assert [each.status_code for each in answers] == [201, 200, 200]
        return
    for answer in answers:
        (found,) = problem(answer, 413, "too_large")
        assert found["pointer"] == "/definition"
        assert "1,000,001" in found["message"]
        assert "1,000,000" in found["message"]


async def test_what_stands_around_a_document_is_limited_too(door: httpx.AsyncClient) -> None:
    body = b'{"name": "n",' + b" " * (DOCUMENT + ENVELOPE) + b'"definition": {}}'
    (found,) = problem(await door.post(DEFINITIONS, content=body), 413, "too_large")
    assert found["pointer"] == ""


async def test_a_smaller_limit_of_an_installation_is_kept(
    door: httpx.AsyncClient, gate: Gate
) -> None:
    with changed(gate.ports.settings, max_document_bytes=500):
        for size, status in ((499, 201), (500, 201), (501, 413)):
            body = b'{"name": "n", "definition": ' + document_of(size) + b"}"
            assert (await door.post(DEFINITIONS, content=body)).status_code == status


def chain(count: int) -> dict[str, Any]:
    config = {"function_slug": "noop"}
    steps = [{"id": f"n{i}", "type": "code_function", "config": config} for i in range(count - 1)]
    return graph(by_hand(), *steps)


@pytest.mark.parametrize("over", AROUND)
async def test_a_document_has_2000_nodes_at_most(door: httpx.AsyncClient, over: int) -> None:
    assert MAX_NODES == 2_000
    answer = await door.post(
        DEFINITIONS, json={"name": "n", "definition": chain(MAX_NODES + over)}, timeout=30
    )
    if over <= 0:
        assert answer.status_code == 201, answer.text[:300]
    else:
        assert {
            "pointer": "/definition/nodes",
            "code": "too_large",
            "message": "A workflow may have 2,000 nodes.",
        } in problem(answer, 422, "invalid_document")


async def test_an_installation_may_allow_fewer_nodes(door: httpx.AsyncClient, gate: Gate) -> None:
    gate.ports.documents._limits = Limits(nodes=5)
    for count, status in ((4, 201), (5, 201), (6, 422)):
        answer = await door.post(DEFINITIONS, json={"name": "n", "definition": chain(count)})
        assert answer.status_code == status, answer.text
    (found,) = answer.json()["errors"]
    assert found["message"] == "The workflow has 6 nodes; at most 5 are allowed."


@pytest.mark.parametrize("over", AROUND)
async def test_a_document_has_10000_edges_at_most(door: httpx.AsyncClient, over: int) -> None:
    assert MAX_EDGES == 10_000
    nodes = [
        {"id": f"{side}{i}", "type": "code_function", "config": {"function_slug": "noop"}}
        for side in "ab"
        for i in range(101)
    ]
    pairs = [(f"a{i}", f"b{j}") for i in range(101) for j in range(101)]
    edges = [{"source": a, "target": b} for a, b in pairs[: MAX_EDGES + over]]
    document = {"version": 1, "nodes": nodes, "edges": edges}
    answer = await door.post(f"{DEFINITIONS}/validate", json={"definition": document}, timeout=30)
    found = [each["pointer"] for each in answer.json()["problems"] if each["code"] == "too_large"]
    assert found == (["/definition/edges"] if over > 0 else [])


# --- inputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", AROUND)
async def test_an_input_has_16_megabytes_at_most(
    door: httpx.AsyncClient, store: Database, org: UUID, over: int
) -> None:
    saved = await save_active(door, graph(by_hand()))
    text = b'"%s"' % (b"x" * (INPUT + over - 2))
    body = b'{"workflow_id": "%s", "trigger_data": %s}' % (saved["id"].encode(), text)
    answer = await door.post(RUNS, content=body, timeout=30)
    if over <= 0:
        assert answer.status_code == 202, answer.text
        run = await store.run(runs.get, org, UUID(answer.json()["id"]))
        assert run.input_ref is not None
    else:
        (found,) = problem(answer, 413, "too_large")
        assert found["pointer"] == "/trigger_data"
        assert await store.run(runs.find, org) == []


@pytest.mark.parametrize("over", AROUND)
async def test_the_body_of_a_webhook_has_16_megabytes_at_most(
    door: httpx.AsyncClient, store: Database, org: UUID, over: int
) -> None:
    saved = await save_active(door, graph(webhook(verification="none")))
    body = b'"%s"' % (b"x" * (INPUT + over - 2))
    answer = await door.post(saved["webhooks"][0]["path"], content=body, timeout=30)
    if over <= 0:
        assert answer.status_code == 202, answer.text
    else:
        problem(answer, 413, "too_large")
        assert await store.run(runs.find, org) == []


@pytest.mark.parametrize("over", AROUND)
async def test_an_input_above_32_kilobytes_is_kept_by_reference(
    door: httpx.AsyncClient, store: Database, org: UUID, over: int
) -> None:
    saved = await save_active(door, graph(by_hand()))
    text = "x" * (INLINE + over - 2)
    answer = await door.post(RUNS, json={"workflow_id": saved["id"], "trigger_data": text})
    run = await store.run(runs.get, org, UUID(answer.json()["id"]))
    assert (run.input is None, run.input_ref is not None) == (over > 0, over > 0)
    shown = await door.get(f"{RUNS}/{run.id}")
    assert shown.status_code == 200


@pytest.mark.parametrize("over", AROUND)
async def test_a_body_is_nested_64_deep_at_most(door: httpx.AsyncClient, over: int) -> None:
    saved = await save_active(door, graph(by_hand()))
    inner = nested(64 + over - 1)
    body = b'{"workflow_id": "%s", "trigger_data": %s}' % (saved["id"].encode(), inner)
    answer = await door.post(RUNS, content=body)
    if over <= 0:
        assert answer.status_code == 202, answer.text
    else:
        (found,) = problem(answer, 400, "invalid_json")
        assert found["message"] == "Nesting may be 64 levels deep."
        assert found["pointer"] == "/trigger_data" + "/0" * 63


# --- what is hostile ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
async def test_hostile_json_is_refused_at_every_door(
    door: httpx.AsyncClient, store: Database, org: UUID, name: str
) -> None:
    saved = await save_active(door, graph(webhook(verification="none")))
    value = HOSTILE[name]
    workflow = saved["id"].encode()
    node = b'{"id": "n", "type": "code_function", "config": {"input": %s}}' % value
    bodies = {
        DEFINITIONS: b'{"name": "n", "definition": {"nodes": [%s], "edges": []}}' % node,
        f"{DEFINITIONS}/validate": b'{"definition": {"nodes": [%s]}}' % node,
        RUNS: b'{"workflow_id": "%s", "trigger_data": %s}' % (workflow, value),
        RECORDS: b'{"data": {"a": %s}}' % value,
        saved["webhooks"][0]["path"]: b'{"a": %s}' % value,
    }
    for path, body in bodies.items():
        answer = await door.post(path, content=body, headers={"content-type": "application/json"})
        assert problem(answer, 400, "invalid_json"), path
    assert await store.run(runs.find, org) == []


@pytest.mark.parametrize("name", SOUND)
async def test_what_is_only_just_sound_is_taken(door: httpx.AsyncClient, name: str) -> None:
    saved = await save_active(door, graph(by_hand()))
    body = b'{"workflow_id": "%s", "trigger_data": {"a": %s}}' % (
        saved["id"].encode(),
        SOUND[name],
    )
    answer = await door.post(RUNS, content=body)
    assert answer.status_code == 202, answer.text
    shown = await door.get(answer.headers["location"])
    assert shown.json()["trigger_data"] == {"a": orjson.loads(SOUND[name])}


WRONG_FORMS: dict[str, tuple[Any, str, str]] = {
    "no object": ([], "", "model_type"),
    "nothing": ({}, "/name", "missing_field"),
    "a wrong type": ({"name": 5, "definition": {}}, "/name", "string_type"),
    "an unknown field": ({"name": "n", "definition": {}, "x": 1}, "/x", "unknown_field"),
    "a document that is none": ({"name": "n", "definition": 5}, "/definition", "dict_type"),
}


@pytest.mark.parametrize("name", WRONG_FORMS)
async def test_a_body_of_the_wrong_form_is_refused_with_a_pointer(
    door: httpx.AsyncClient, name: str
) -> None:
    body, pointer, code = WRONG_FORMS[name]
    found = problem(await door.post(DEFINITIONS, json=body), 422, "invalid_input")
    assert (pointer, code) in [(each["pointer"], each["code"]) for each in found]


def step(name: str, **more: Any) -> dict[str, Any]:
    return {"id": name, "type": "code_function", "config": {"function_slug": "noop"}, **more}


def edges(*pairs: str) -> list[dict[str, str]]:
    """Edges written `a>b`, or `a:handle>b`."""
    found = []
    for pair in pairs:
        source, _, target = pair.partition(">")
        name, _, handle = source.partition(":")
        found.append(
            {"source": name, "target": target} | ({"sourceHandle": handle} if handle else {})
        )
    return found


HAND = {"id": "hand", "type": "trigger_manual"}
BRANCH = {
    "id": "if",
    "type": "logic_condition",
    "config": {"condition": {"field": "trigger.a", "op": "gt", "value": 1}},
}
WRONG_DOCUMENTS: dict[str, tuple[dict[str, Any], str, str]] = {
    "an unknown node type": (
        {"nodes": [HAND, {"id": "a", "type": "action_htpp"}], "edges": edges("hand>a")},
        "/nodes/1/type",
        "unknown_type",
    ),
    "an unknown field": (
        {"nodes": [HAND, step("a", colour="red")], "edges": edges("hand>a")},
        "/nodes/1/colour",
        "unknown_field",
    ),
    "a cycle": (
        {"nodes": [HAND, step("a"), step("b")], "edges": edges("hand>a", "a>b", "b>a")},
        "/nodes/1",
        "cycle",
    ),
    "an unreachable node": (
        {"nodes": [HAND, step("a"), step("b")], "edges": edges("hand>a")},
        "/nodes/2",
        "unreachable",
    ),
    "a join that can never be satisfied": (
        {
            "nodes": [HAND, BRANCH, step("a", join={"at_least": 2})],
            "edges": edges("hand>if", "if:true>a", "if:false>a"),
        },
        "/nodes/2/join",
        "never_satisfied",
    ),
    "a template that is none": (
        {"nodes": [HAND, step("a", config={"function_slug": "noop", "input": "{{trigger.}}"})]}
        | {"edges": edges("hand>a")},
        "/nodes/1/config/input",
        "bad_template",
    ),
    "a template of a step that is not there": (
        {
            "nodes": [
                HAND,
                step("a", config={"function_slug": "noop", "input": "{{steps.b.output}}"}),
            ]
        }
        | {"edges": edges("hand>a")},
        "/nodes/1/config/input",
        "unknown_step",
    ),
    "a goto to nowhere": (
        {"nodes": [HAND, step("a", on_error="goto:b")], "edges": edges("hand>a")},
        "/nodes/1/on_error",
        "unknown_step",
    ),
    "an edge to nowhere": (
        {"nodes": [HAND, step("a")], "edges": edges("hand>a", "a>b")},
        "/edges/1/target",
        "unknown_node",
    ),
    "a wrong type": (
        {"nodes": [HAND, step("a", timeout_seconds="soon")], "edges": edges("hand>a")},
        "/nodes/1/timeout_seconds",
        "wrong_type",
    ),
}


@pytest.mark.parametrize("name", WRONG_DOCUMENTS)
async def test_a_wrong_document_is_refused_with_a_pointer(
    door: httpx.AsyncClient, name: str
) -> None:
    document, pointer, code = WRONG_DOCUMENTS[name]
    answer = await door.post(DEFINITIONS, json={"name": "n", "definition": document})
    found = problem(answer, 422, "invalid_document")
    assert [(each["pointer"], each["code"]) for each in found] == [("/definition" + pointer, code)]
    assert all(each["message"].endswith(".") for each in found)


async def test_an_unknown_token_is_a_404(door: httpx.AsyncClient) -> None:
    for token in ("x", "x" * 43, "x" * 10_000, "%01", "..%2f"):
        answer = await door.post(f"/webhooks/workflow/{token}", content=b"{}")
        assert answer.status_code == 404, token
        assert answer.headers["content-type"] == "application/problem+json"
