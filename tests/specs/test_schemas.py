"""The published schemas: what compiles fits (see conftest.py), and typical mistakes do not."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from permaflow.plan import Json
from pipeline.builtins import TASK_TYPES, task_types
from pipeline.catalogue import Catalogue
from pipeline.schemas import NAMES, box_schema, dialect_schema
from pipeline.settings import Settings
from specs.dialects import DIALECTS, compile_document
from specs.triggers import KINDS
from specs.work import INLINE
from tests.specs.test_any_document import DAG, GRAPH, STEPS

ROOT = Path(__file__).parents[2]
TYPES = task_types(Settings())
CALL = {"id": "call", "type": "action_http", "config": {"url": "https://x"}}
BLOCK = {"name": "a", "type": "HTTP", "arguments": [{"url": "https://x"}]}
ORDERS = {"object": "orders", "event": "created"}
PUSH = {"connection_id": "c", "event": "push"}
NOTE = {"action": "Note.create", "mapping": {"text": "x"}}


def validator(dialect: str) -> jsonschema_rs.Validator:
    return jsonschema_rs.validator_for(box_schema(dialect))


def graph(**node: Json) -> dict[str, Any]:
    return {"nodes": [{**CALL, **node}], "edges": []}


def dag(**block: Json) -> dict[str, Any]:
    tasks = [{**BLOCK, **block}]
    return {"dag": {"entrypoint": "a", "exitpoints": ["a"], "tasks": tasks}}


def steps(**step: Json) -> dict[str, Any]:
    return {"triggerEvent": "Deal.won", "steps": [{**NOTE, **step}]}


def examples() -> Iterator[Json]:
    for file in (*ROOT.glob("examples/**/*.json"), *ROOT.glob("pipeline/demo/**/*.json")):
        value = json.loads(file.read_text())
        if isinstance(value, dict):
            yield value.get("definition", value)


@pytest.mark.parametrize("dialect", NAMES)
def test_a_schema_is_one_and_has_an_id(dialect: str) -> None:
    schema = box_schema(dialect)
    jsonschema_rs.meta.validate(schema)
    assert schema["$id"] == f"urn:permaflow:schemas:{dialect}"
    json.dumps(schema)


def test_every_dialect_has_a_schema() -> None:
    assert set(NAMES) == {dialect.name for dialect in DIALECTS}


def test_every_example_fits_the_schema_of_its_dialect() -> None:
    found = 0
    for document in examples():
        for dialect in DIALECTS:
            if dialect.recognises(document):
                validator(dialect.name).validate(document)
                found += 1
    assert found >= 3


def test_a_schema_offers_every_type_with_its_config() -> None:
    schema = box_schema("graph")
    offered = types_of(schema)
    assert set(offered) == {*TASK_TYPES, *INLINE, *KINDS}
    for name in offered:
        assert f"config.{name}" in schema["$defs"]
    http = schema["$defs"]["config.action_http"]
    assert "url" in http["properties"]
    assert "HTTP" in box_schema("dag")["$defs"]["block"]["properties"]["type"]["anyOf"][0]["enum"]


def types_of(schema: Json) -> list[str]:
    member: Any = schema["$defs"]["node"]["properties"]["type"]
    offered: list[str] = member["enum"] if "enum" in member else member["anyOf"][0]["enum"]
    return offered


def test_a_task_type_of_somebody_else_is_offered_as_well() -> None:
    types = task_types(Settings(plugins="tests.catalogue_forms"))
    schema = dialect_schema("graph", Catalogue(types))
    assert "geo/sync" in types_of(schema)
    assert "geo/sync" not in types_of(box_schema("graph"))
    check = jsonschema_rs.validator_for(schema)
    sound = {**CALL, "type": "geo/sync", "config": {"country": "{{trigger.country}}"}}
    assert check.is_valid({"nodes": [sound]})
    assert not check.is_valid({"nodes": [{**sound, "config": {}}]})
    assert not check.is_valid({"nodes": [{**sound, "type": "geo/other"}]})
    # What is published for everybody cannot know it, and lets it pass.
    assert validator("graph").is_valid({"nodes": [sound]})


MISTAKES: list[tuple[str, Json]] = [
    ("graph", {"nodes": []}),
    ("graph", {"edges": []}),
    ("graph", {"nodes": [CALL], "edges": [{"source": "call"}]}),
    ("graph", {"nodes": [CALL], "node": []}),
    ("graph", {"nodes": [CALL], "version": 2}),
    ("graph", graph(id=5)),
    ("graph", graph(type="action_htp")),
    ("graph", graph(type="HTTP")),
    ("graph", graph(config=None)),
    ("graph", graph(config={})),
    ("graph", graph(config={"url": 5})),
    ("graph", graph(config={"url": "https://x", "methd": "GET"})),
    ("graph", graph(config={"url": "https://x", "method": "FETCH"})),
    ("graph", graph(on_error="goto")),
    ("graph", graph(on_error="ignore")),
    ("graph", graph(retry={"retries": 3})),
    ("graph", graph(retry={"backoff": "slow"})),
    ("graph", graph(timeout_seconds="30s")),
    ("graph", graph(timeout_seconds=-1)),
    ("graph", graph(join="most")),
    ("graph", graph(confg={})),
    ("graph", graph(type="trigger_record", config={"object": "o"})),
    ("graph", graph(type="trigger_record", config={"object": "o", "event": "changed"})),
    ("graph", graph(type="trigger_record", config={**ORDERS, "events": ["deleted"]})),
    ("graph", graph(type="trigger_record", config={**ORDERS, "source": 5})),
    ("graph", graph(type="trigger_schedule", config={"cron": "@daily", "start_at": "soon"})),
    ("graph", graph(type="trigger_schedule", config={"cron": "@daily", "end_at": 5})),
    ("graph", graph(type="trigger_webhook", config={"verificaton": "none"})),
    ("graph", graph(type="trigger_webhook", config={"headers": ["x id"]})),
    ("graph", graph(type="trigger_integration", config={"event": "push"})),
    ("graph", graph(type="trigger_integration", config={**PUSH, "evnt": "x"})),
    ("graph", graph(type="logic_condition", config={})),
    ("graph", graph(type="logic_condition", config={"field": "trigger.a", "value": 1, "x": 1})),
    ("graph", graph(type="logic_condition", config={"condition": {"field": "a", "op": "is"}})),
    ("graph", graph(type="logic_condition", config={"conditions": [{"field": "a"}]})),
    ("graph", graph(type="logic_condition", config={"conditions": [{"field": "a", "op": "eq"}]})),
    ("graph", graph(type="logic_switch", config={"value": 1})),
    ("graph", graph(type="logic_loop", config={})),
    ("graph", graph(type="logic_loop", config={"items": [], "mode": "fast"})),
    ("graph", graph(type="action_record", config={"operation": "upsert", "object": "o"})),
    ("graph", graph(type="action_record", config={"operation": "create"})),
    ("dag", {"dag": {"entrypoint": "a", "tasks": [BLOCK]}}),
    ("dag", {"dag": {"entrypoint": "a", "exitpoints": [], "tasks": [BLOCK]}}),
    ("dag", {"dag": {"entrypoint": "a", "exitpoints": ["a"], "tasks": []}}),
    ("dag", {**dag(), "trigger": []}),
    ("dag", {**dag(), "triggers": [{"type": "record"}]}),
    ("dag", {**dag(), "triggers": [{"type": "trigger_record", "config": {"object": "o"}}]}),
    ("dag", dag(type="Http")),
    ("dag", dag(arguments=[{"ur": "https://x"}])),
    ("dag", dag(arguments="url")),
    ("dag", dag(depends=["a"])),
    ("dag", dag(after="a")),
    ("steps", {"triggerEvent": "Deal.won"}),
    ("steps", {"steps": [NOTE]}),
    ("steps", {"triggerEvent": "Deal.won", "steps": []}),
    ("steps", {"triggerEvent": "won", "steps": [NOTE]}),
    ("steps", {**steps(), "errorHandling": "stop"}),
    ("steps", {**steps(), "timeout": "30s"}),
    ("steps", {**steps(), "retryPolicy": {"tries": 3}}),
    ("steps", {**steps(), "trigger": "Deal.won"}),
    ("steps", {**steps(), "onFailure": [{"mapping": {}}]}),
    ("steps", {**steps(), "onFailure": {**NOTE, "whenUnknown": True}}),
    ("steps", steps(action="note.create")),
    ("steps", steps(action="logic_loop")),
    ("steps", steps(mapping=["a"])),
    ("steps", steps(action="action_http", mapping={"method": "GET"})),
    ("steps", steps(action="action_http", mapping={"url": "https://x", "methd": "GET"})),
    ("steps", steps(map={})),
]


@pytest.mark.parametrize(("dialect", "document"), MISTAKES)
def test_a_typical_mistake_does_not_fit(dialect: str, document: Json) -> None:
    assert not validator(dialect).is_valid(document)
    assert compile_document(document, TYPES).plan is None


@pytest.mark.parametrize(
    ("dialect", "document"),
    [
        ("graph", graph()),
        ("graph", graph(config={"url": "{{trigger.url}}", "timeout_seconds": "{{trigger.n}}"})),
        ("graph", graph(position={"x": 1}, data={}, **{"x-mine": 1})),
        ("graph", graph(type="logic_condition", config={"expression": "trigger.a > 1"})),
        ("graph", graph(type="logic_loop", config={"items": "trigger.a.filter(x, x > 1)"})),
        ("dag", dag()),
        ("dag", dag(arguments={"url": "https://x"}, status="PENDING", updated_at=1)),
        ("steps", steps()),
        ("steps", {**steps(), "onFailure": NOTE}),
        ("steps", {**steps(), "onFailure": [{**NOTE, "id": "told"}, NOTE]}),
        ("steps", {**steps(), "steps": json.dumps([NOTE]), "retryPolicy": "3"}),
        ("steps", steps(action="action_http", mapping={"url": "deal.url", "method": "deal.how"})),
    ],
)
def test_what_is_meant_fits(dialect: str, document: Json) -> None:
    validator(dialect).validate(document)


def test_editors_need_nothing_but_the_schema_itself() -> None:
    for name in NAMES:
        for reference in references(box_schema(name)):
            assert reference.startswith("#/$defs/")
            assert reference.removeprefix("#/$defs/") in box_schema(name)["$defs"]


def references(schema: Json) -> Iterator[str]:
    stack = [copy.deepcopy(schema)]
    while stack:
        match stack.pop():
            case dict() as members:
                if isinstance(found := members.get("$ref"), str):
                    yield found
                stack.extend(members.values())
            case list() as items:
                stack.extend(items)


def test_the_documents_of_the_other_tests_are_held_against_the_schemas(types: Any) -> None:
    """`conftest.py` looks at every document that compiles; here is that it does."""
    for document in (GRAPH, DAG, STEPS):
        assert compile_document(document, types).plan is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.specs.conftest.schema_of", lambda *_: {"not": {}})
        from tests.specs.conftest import FewTypes

        with pytest.raises(jsonschema_rs.ValidationError):
            compile_document(GRAPH, FewTypes())
