"""Code steps through every vertex, on real servers and in real processes of the jail."""

from __future__ import annotations

from typing import Any

import orjson

from permaflow.plan import Json
from pipeline.core.entries import Dispatched, Logged, Retrying, Succeeded
from pipeline.core.entries import Failed as NodeFailed
from tests.fix_engine import Engine, graph


def code(name: str, text: str, **more: Any) -> dict[str, Json]:
    config = {"code": text, **more.pop("config", {})}
    return {"id": name, "type": "code_snippet", "config": config, **more}


async def test_code_gets_the_outputs_of_other_steps_and_gives_its_own(engine: Engine) -> None:
    document = graph(
        code("sum", "return input.reduce((a, b) => a + b, 0)", config={"input": "{{trigger.all}}"}),
        code("text", "return `${input.n} {{x}}`", config={"input": {"n": "{{steps.sum.output}}"}}),
        edges=["t>sum", "sum>text"],
    )
    run, entries = await engine.finished(document, {"all": [1, 2, 3.5]})
    assert run.status == "completed"
    outputs = {e.node: e.output for e in entries if isinstance(e, Succeeded)}
    assert outputs["sum"] == 6.5
    assert outputs["text"] == "6.5 {{x}}"


async def test_code_that_throws_fails_its_step_and_names_the_line(engine: Engine) -> None:
    document = graph(code("bad", "const a = 1;\nthrow new Error('no')"), edges=["t>bad"])
    run, entries = await engine.finished(document)
    assert run.status == "failed"
    assert orjson.loads(run.error or b"")["message"] == "Error: no (line 2)"
    (failure,) = (e for e in entries if isinstance(e, NodeFailed))
    assert failure.details == {"name": "Error", "line": 2, "column": 11}


async def test_code_that_hangs_is_stopped_and_tried_again(engine: Engine) -> None:
    document = graph(
        code(
            "slow",
            "console.log('on it'); while (true);",
            config={"timeout_seconds": 0.2},
            retry={"max_retries": 1, "initial_delay_ms": 10},
        ),
        edges=["t>slow"],
    )
    run, entries = await engine.finished(document)
    assert run.status == "failed"
    assert [e.code for e in entries if isinstance(e, Retrying)] == ["snippet_timeout"]
    assert [e.attempt for e in entries if isinstance(e, Dispatched)] == [1, 2]
    assert [(e.attempt, e.lines) for e in entries if isinstance(e, Logged)] == [
        (1, ["on it"]),
        (2, ["on it"]),
    ]


async def test_code_in_a_loop_is_done_for_every_item(engine: Engine) -> None:
    loop = {"id": "each", "type": "logic_loop", "config": {"items": "{{trigger.all}}"}}
    body = code("twice", "return 2 * input", parentId="each", config={"input": "{{loop.item}}"})
    run, entries = await engine.finished(
        graph(loop, body, edges=["t>each"]), {"all": list(range(50))}
    )
    assert run.status == "completed"
    found = [e.output for e in entries if isinstance(e, Succeeded) and e.node == "twice"]
    assert sorted(found) == [2 * n for n in range(50)]
