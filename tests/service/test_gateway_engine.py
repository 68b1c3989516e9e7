"""The gateway before the whole engine: started, watched, looked into and cancelled over HTTP."""

from __future__ import annotations

import asyncio

import httpx

from tests.fix_engine import Engine, graph, task
from tests.fix_gateway import RUNS, save_active
from tests.fix_served import started, watch


async def test_a_run_is_watched_from_its_start_to_its_end(served: httpx.AsyncClient) -> None:
    document = graph(
        task("a", "retry", "done", retry={"max_retries": 2, "initial_delay_ms": 1}),
        task("b", output={"id": "{{trigger.order.id}}"}),
        edges=["t>a", "a>b"],
    )
    run = await started(served, document, {"order": {"id": 7}})
    events = await watch(served, run)
    names = [name for name, _ in events]
    assert names[0] == "run_started"
    assert names[-1] == "run_completed"
    assert names.count("run_completed") == 1
    assert "step_retrying" in names


async def test_a_finished_run_tells_steps_and_output(served: httpx.AsyncClient) -> None:
    document = graph(
        task("a"), task("b", output={"id": "{{trigger.order.id}}"}), edges=["t>a", "a>b"]
    )
    run = await started(served, document, {"order": {"id": 7}})
    events = await watch(served, run)
    assert events[-1][1]["status"] == "completed"
    told = (await served.get(run["links"]["self"])).json()
    assert (told["status"], told["output"]) == ("completed", {"id": 7})
    steps = (await served.get(run["links"]["steps"])).json()["data"]
    assert [(step["node"], step["status"]) for step in steps] == [
        ("t", "completed"),
        ("a", "completed"),
        ("b", "completed"),
    ]


async def test_a_loop_tells_every_iteration_and_its_joined_output(
    served: httpx.AsyncClient,
) -> None:
    document = graph(
        {"id": "each", "type": "logic_loop", "config": {"items": "{{trigger.items}}"}},
        {**task("inner", output="{{loop.item}}"), "parentId": "each"},
        edges=["t>each"],
    )
    run = await started(served, document, {"items": [1, 2, 3]})
    await watch(served, run)
    told = (await served.get(run["links"]["self"])).json()
    assert told["output"] == {"items": [1, 2, 3], "count": 3, "failed": 0}
    steps = (await served.get(run["links"]["steps"], params={"node": "inner"})).json()["data"]
    assert {(step["scope"], step["output"]) for step in steps} == {
        ("each[0]", 1),
        ("each[1]", 2),
        ("each[2]", 3),
    }
    [loop] = (await served.get(run["links"]["steps"], params={"node": "each"})).json()["data"]
    assert loop["output"] == {"count": 3, "failed": 0}


async def test_a_cancelled_run_ends_its_stream_with_that(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    document = graph(
        {"id": "wait", "type": "logic_delay", "config": {"duration": "1h"}}, edges=["t>wait"]
    )
    run = await started(served, document, {})
    watching = asyncio.create_task(watch(served, run))
    await engine.until(run["id"], "waiting")
    assert (await served.post(run["links"]["cancel"], json={"reason": "enough"})).status_code == 202
    events = await watching
    assert events[-1][0] == "run_completed"
    assert events[-1][1]["status"] == "cancelled"
    assert "run_cancel_requested" in [name for name, _ in events]
    assert (await served.post(run["links"]["cancel"])).status_code == 200


async def test_a_webhook_runs_what_it_started(served: httpx.AsyncClient, engine: Engine) -> None:
    document = {
        "nodes": [
            {"id": "hook", "type": "trigger_webhook", "config": {"verification": "none"}},
            task("a", output="{{trigger.body.name}} {{trigger.query.q}}"),
        ],
        "edges": [{"id": "e", "source": "hook", "target": "a"}],
    }
    active = await save_active(served, document)
    answer = await served.post(f"{active['webhooks'][0]['path']}?q=2", json={"name": "one"})
    run_id = answer.json()["run_id"]
    await engine.until(run_id)
    assert (await served.get(f"{RUNS}/{run_id}")).json()["output"] == "one 2"


async def test_what_code_writes_to_the_console_is_kept_with_its_step(
    served: httpx.AsyncClient,
) -> None:
    code = {"id": "say", "type": "code_snippet", "config": {"code": "console.log('a', 1)"}}
    run = await started(served, graph(code, edges=["t>say"]), {})
    events = await watch(served, run)
    assert ("step_logged", ["a 1"]) in [(name, data.get("lines")) for name, data in events]
    steps = (await served.get(run["links"]["steps"])).json()["data"]
    assert [(step["node"], step["log"]) for step in steps if step["node"] == "say"] == [
        ("say", ["a 1"])
    ]
