"""Pictures of workflows: what they show, where it stands, and that no name can break out."""

from __future__ import annotations

import copy
import time
import xml.etree.ElementTree as ET
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from permaflow.plan import Json, Plan
from pipeline.builtins import task_types
from pipeline.drawing.formats import FORMATS
from pipeline.drawing.layout import lay_out
from pipeline.drawing.model import Drawing, draw
from pipeline.drawing.svg import svg
from pipeline.drawing.text import dot, mermaid
from pipeline.settings import Settings
from specs.dialects import compile_document
from tests.core.plans import plans

TYPES = task_types(Settings())
CALL = {"type": "action_http", "config": {"url": "https://example.com"}}
GRAPH: dict[str, Any] = {
    "nodes": [
        {"id": "start", "type": "trigger_manual"},
        {"id": "large", "type": "logic_condition", "config": {"expression": "trigger.n > 1"}},
        {"id": "ask", **CALL, "on_error": "goto:failed"},
        {"id": "each", "type": "logic_loop", "config": {"items": "{{trigger.lines}}"}},
        {"id": "one", **CALL, "parentId": "each"},
        {"id": "two", **CALL, "parentId": "each"},
        {"id": "end", **CALL},
        {"id": "alarm", **CALL},
        {"id": "failed", "type": "meta_error"},
    ],
    "edges": [
        {"source": "start", "target": "large"},
        {"source": "large", "sourceHandle": "true", "target": "ask"},
        {"source": "large", "sourceHandle": "false", "target": "each"},
        {"source": "one", "target": "two"},
        {"source": "ask", "target": "end"},
        {"source": "each", "target": "end"},
        {"source": "each", "sourceHandle": "error", "target": "alarm"},
    ],
}
DAG = {
    "dag": {
        "entrypoint": "a",
        "exitpoints": ["b"],
        "tasks": [
            {"name": "a", "type": "HTTP", "arguments": [{"url": "https://x"}]},
            {
                "name": "b",
                "type": "HTTP",
                "arguments": [{"url": "https://x"}],
                "depends": "a.FAILED || !a.SUCCESS",
            },
        ],
    },
    "triggers": [{"type": "trigger_record", "config": {"object": "orders", "event": "created"}}],
}
STEPS = {
    "triggerEvent": "Deal.created",
    "steps": [
        {"action": "Note.create", "mapping": {"a": "deal.a"}, "when": "deal.a > 1"},
        {"action": "Note.create", "mapping": {"a": "deal.a"}},
    ],
}


def drawing_of(document: Json) -> Drawing:
    compiled = compile_document(document, TYPES)
    assert compiled.problems == ()
    assert compiled.plan is not None
    return draw(compiled.plan, compiled.triggers)


def arrows(drawing: Drawing) -> set[tuple[str, str, str]]:
    return {(arrow.source, arrow.target, arrow.label) for arrow in drawing.arrows}


def test_a_graph_is_drawn_with_its_ways_loops_and_jumps() -> None:
    drawing = drawing_of(GRAPH)
    assert arrows(drawing) == {
        ("start", "large", ""),
        ("large", "ask", "true"),
        ("large", "each", "false"),
        ("one", "two", ""),
        ("ask", "end", ""),
        ("each", "end", ""),
        ("each", "alarm", "error"),
        ("ask", "failed", "on error"),
    }
    assert [box.id for box in drawing.within("each")] == ["one", "two"]
    shapes = {box.id: box.shape for box in drawing.boxes}
    assert (shapes["start"], shapes["large"], shapes["each"]) == ("trigger", "branch", "loop")


def test_a_dag_is_drawn_with_its_triggers_and_outcomes() -> None:
    assert arrows(drawing_of(DAG)) == {
        ("trigger_1", "a", ""),
        ("a", "b", "error"),
        ("a", "b", "not success"),
    }
    assert drawing_of(DAG).boxes[0].label == "orders created"


def test_steps_are_drawn_one_below_the_other() -> None:
    drawing = drawing_of(STEPS)
    placed = lay_out(drawing).placed
    assert placed["trigger"].y < placed["step_0:when"].y < placed["step_0"].y < placed["step_1"].y
    assert ("step_0:when", "step_1", "false") in arrows(drawing)


def test_what_follows_stands_below_and_a_handler_below_what_jumps_there() -> None:
    placed = lay_out(drawing_of(GRAPH)).placed
    assert placed["start"].y < placed["large"].y < placed["ask"].y < placed["failed"].y
    assert placed["one"].y < placed["two"].y


def check_layout(drawing: Drawing) -> None:
    layout = lay_out(drawing)
    assert layout.placed.keys() == {box.id for box in drawing.boxes}
    for scope in {box.scope for box in drawing.boxes}:
        here = [layout.placed[box.id] for box in drawing.within(scope)]
        for number, one in enumerate(here):
            assert one.x >= 0
            assert one.y >= 0
            assert one.x + one.width <= layout.width + 0.01
            assert one.bottom <= layout.height + 0.01
            for other in here[number + 1 :]:
                apart = (
                    one.x + one.width <= other.x
                    or other.x + other.width <= one.x
                    or one.bottom <= other.y
                    or other.bottom <= one.y
                )
                assert apart, (one, other)
            if scope:
                loop = layout.placed[scope]
                assert loop.x <= one.x
                assert one.x + one.width <= loop.x + loop.width
                assert loop.y <= one.y
                assert one.bottom <= loop.bottom


@pytest.mark.parametrize("document", [GRAPH, DAG, STEPS])
def test_nothing_stands_on_anything_else(document: Json) -> None:
    check_layout(drawing_of(document))


@settings(max_examples=60, deadline=None)
@given(plans())
def test_every_plan_can_be_drawn(plan: Plan) -> None:
    drawing = draw(plan)
    check_layout(drawing)
    for _, write in FORMATS.values():
        assert write(drawing)
    ET.fromstring(svg(drawing))


EVIL = [
    "</text><script>alert(1)</script>",
    '"] --> x["',
    "a;b%%{init: {}}%%",
    "click n0 href 'javascript:alert(1)'",
    '", shape=none, URL="javascript:alert(1)',
    "end",
    "]]>&amp;<!--",
    "a\u2028b\u202ec",
]


@pytest.mark.parametrize("name", EVIL)
def test_a_name_is_text_and_nothing_else(name: str) -> None:
    """Ids of nodes exclude most of this; handles, objects and names of cases do not."""
    document = copy.deepcopy(GRAPH)
    document["nodes"][1] = {
        "id": "large",
        "type": "logic_switch",
        "config": {"value": "{{trigger.x}}", "cases": [name, "true", "false"]},
    }
    document["edges"].append({"source": "large", "sourceHandle": name, "target": "alarm"})
    document["nodes"].append(
        {"id": "t", "type": "trigger_record", "config": {"object": name, "event": "created"}}
    )
    document["edges"].append({"source": "t", "target": "large"})
    drawing = drawing_of(document)
    root = ET.fromstring(svg(drawing))
    tags = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert tags <= {"svg", "style", "defs", "marker", "path", "g", "rect", "polygon", "text"}
    for element in root.iter():
        assert not [a for a in element.attrib if a.startswith("on") or "href" in a]
    # The same picture with a harmless name has as many lines.
    tame = drawing_of(_renamed(document, name, "tame"))
    for write in (mermaid, dot):
        assert write(drawing).count("\n") == write(tame).count("\n")
    for line in mermaid(drawing).splitlines():
        inner = line.partition('"')[2].rpartition('"')[0]
        assert '"' not in inner
        assert "<" not in inner.replace("<br/>", "")


def _renamed(value: Any, old: str, new: str) -> Any:
    match value:
        case dict():
            return {key: _renamed(part, old, new) for key, part in value.items()}
        case list():
            return [_renamed(part, old, new) for part in value]
        case _:
            return new if value == old else value


def test_a_large_workflow_is_drawn_in_time() -> None:
    nodes = [{"id": f"n{i}", **CALL} for i in range(2_000)]
    edges = [{"source": f"n{i}", "target": f"n{i + 1 + i % 3}"} for i in range(1_990)]
    drawing = drawing_of({"nodes": nodes, "edges": edges})
    began = time.perf_counter()
    svg(drawing)
    assert time.perf_counter() - began < 3


@given(st.text(max_size=20))
def test_any_label_can_be_written(name: str) -> None:
    document = copy.deepcopy(DAG)
    document["triggers"][0]["config"]["object"] = name or "x"
    if compile_document(document, TYPES).plan is None:
        return
    drawing = drawing_of(document)
    ET.fromstring(svg(drawing))
