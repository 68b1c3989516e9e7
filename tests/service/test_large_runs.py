"""Runs that are large in every direction: deep, wide, long, and heavy."""

from __future__ import annotations

from collections import Counter

import pytest

from pipeline.core.entries import Dispatched, LoopOpened, Succeeded
from tests.fix_engine import Engine, graph, task

pytestmark = [pytest.mark.service, pytest.mark.slow]

LARGE = "x" * 40_000
"""More than what stands in a journal row."""


async def test_a_thousand_steps_in_a_row(engine: Engine) -> None:
    names = [f"n{number}" for number in range(1_000)]
    edges = [f"{a}>{b}" for a, b in zip(["t", *names], names, strict=False)]
    nodes = [task(name, output=number) for number, name in enumerate(names)]
    run, entries = await engine.finished(graph(*nodes, edges=edges))
    assert run.status == "completed"
    done = [entry.node for entry in entries if isinstance(entry, Succeeded)]
    assert done == ["t", *names]


async def test_two_thousand_nodes_side_by_side_that_join_once(engine: Engine) -> None:
    names = [f"n{number}" for number in range(1_997)]
    join = {"id": "join", "type": "logic_join", "config": {"join": "all"}}
    edges = [*(f"t>{name}" for name in names), *(f"{name}>join" for name in names), "join>last"]
    document = graph(*(task(name) for name in names), join, task("last"), edges=edges)
    assert len(document["nodes"]) == 2_000
    run, entries = await engine.finished(document)
    assert run.status == "completed"
    done = Counter(entry.node for entry in entries if isinstance(entry, Succeeded))
    assert set(done.values()) == {1}
    assert len(done) == 2_000


async def test_a_long_loop_whose_body_has_several_nodes(engine: Engine) -> None:
    """The cost of an item must not grow with how many there are: `python -m bench loop` has the
    figures, up to 100,000 items.
    """
    body = [
        {**task("first", output={"seen": "{{loop.index}}"}), "parentId": "each"},
        {
            "id": "even",
            "type": "logic_condition",
            "parentId": "each",
            "config": {"expression": "loop.item % 2 == 0"},
        },
        {**task("second", output="{{steps.first.output.seen}}"), "parentId": "each"},
    ]
    loop = {"id": "each", "type": "logic_loop", "config": {"items": "{{trigger.items}}"}}
    document = graph(
        loop, *body, task("last"), edges=["t>each", "first>even", "even:true>second", "each>last"]
    )
    run, entries = await engine.finished(document, {"items": list(range(5_000))})
    assert run.status == "completed"
    sent = Counter(entry.node for entry in entries if isinstance(entry, Dispatched))
    assert sent == {"first": 5_000, "second": 2_500, "last": 1}
    assert sum(isinstance(entry, LoopOpened) for entry in entries) == 1


async def test_large_outputs_are_kept_once_and_handed_on(engine: Engine) -> None:
    """A hundred outputs of 40 KB each: by reference, and whole where a template wants them."""
    loop = {
        "id": "each",
        "type": "logic_loop",
        "config": {"items": "{{trigger.items}}", "concurrency": 10},
    }
    body = {**task("make", output={"n": "{{loop.item}}", "text": LARGE}), "parentId": "each"}
    last = task("last", output="{{steps.each.output.items[99].n}}")
    document = graph(loop, body, last, edges=["t>each", "each>last"])
    run, entries = await engine.finished(document, {"items": list(range(100))})
    assert run.status == "completed"
    made = [e for e in entries if isinstance(e, Succeeded) and e.node == "make"]
    assert len(made) == 100
    assert all(entry.ref is not None and entry.output is None for entry in made)
    (end,) = [e for e in entries if isinstance(e, Succeeded) and e.node == "last"]
    assert end.output == 99
