"""A document compiles to the same plan each time: by that, versions are compared."""

from __future__ import annotations

from typing import Any

import pytest

from permaflow.plan import Json, Node
from tests.replay.record import START, call, compiled, graph

CONDITIONS: list[Json] = [
    {"field": "trigger.n", "op": "gt", "value": 1},
    {"field": "trigger.name", "op": "in", "value": ["a", "b"]},
    {"field": "trigger.name", "op": "eq", "value": "{{trigger.other}}"},
    {"any": [{"field": "trigger.name", "op": "starts_with", "value": "a"}, "trigger.n > 1"]},
    "trigger.n + 1 > 2 && trigger.name == 'x'",
]


def nodes(condition: Json, text: str = "{{trigger.name}} {{= trigger.n + 1 }}") -> dict[str, Node]:
    branch = {"id": "way", "type": "logic_condition", "config": {"condition": condition}}
    each = {"id": "each", "type": "logic_loop", "config": {"items": "{{trigger.items}}"}}
    document = graph(
        [START, branch, call("a", text), each, call("b", "{{loop.item}}", parentId="each")],
        *("start way", "way:true a", "a each"),
    )
    return dict(compiled(document).nodes)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_the_same_document_gives_equal_nodes(condition: Any) -> None:
    first, second = nodes(condition), nodes(condition)
    assert first == second
    assert repr(first) == repr(second)


def test_another_value_gives_another_node() -> None:
    seen = [nodes(condition)["way"] for condition in CONDITIONS]
    seen.append(nodes({"field": "trigger.n", "op": "gt", "value": 2})["way"])
    assert all(seen[i] != seen[j] for i in range(len(seen)) for j in range(i))
    assert nodes(CONDITIONS[0])["a"] != nodes(CONDITIONS[0], "{{trigger.nam}}")["a"]
