"""The examples that the product was asked for, from the outside in, over HTTP."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any
from uuid import UUID

import orjson
from pydantic import BaseModel

from permaflow.plan import Json
from permaflow.task import Done, TaskType
from tests.connectors.sites import Seen, Site, answer
from tests.fix_gateway import DEFINITIONS, RUNS
from tests.fix_site import RunningSite, Sites

FUNCTIONS = "tests.order_functions"
ORDERS = "create table public.orders (id int primary key, name text, amount numeric)"


def example_1(url: str) -> dict[str, Any]:
    """A new order is validated, and somebody is told. Only the address is ours."""
    return {
        "name": "New Order Processing",
        "trigger_type": "cdc",
        "definition": {
            "nodes": [
                {
                    "id": "trigger",
                    "type": "trigger_record",
                    "config": {"event": "created", "object": "orders"},
                },
                {
                    "id": "validate",
                    "type": "code_function",
                    "config": {"function_slug": "validate-order"},
                },
                {
                    "id": "notify",
                    "type": "action_http",
                    "config": {
                        "url": url,
                        "method": "POST",
                        "body": {"text": "New order: {{trigger.record.id}}"},
                    },
                },
            ],
            "edges": [
                {"id": "e1", "source": "trigger", "target": "validate"},
                {"id": "e2", "source": "validate", "target": "notify"},
            ],
        },
    }


def example_2(url: str, **changed: Any) -> dict[str, Any]:
    """A large order is told to the sales team; if that fails, the run goes on."""
    action = {
        "id": "action_1",
        "type": "action_http",
        "config": {
            "url": url,
            "method": "POST",
            "body": {"channel": "#sales", "text": "New order: {{trigger.record.name}}"},
        },
        "retry": {"max_retries": 3, "backoff": "exponential"},
        "on_error": "continue",
        "timeout_seconds": 30,
    }
    trigger = {
        "id": "trigger_1",
        "type": "trigger_record",
        "config": {
            "object": "orders",
            "event": "created",
            "conditions": [{"field": "amount", "op": "gt", "value": 100}],
        },
        "on_error": "stop",
    }
    definition = {
        "version": 1,
        "nodes": [trigger, action | changed],
        "edges": [{"id": "edge_1", "source": "trigger_1", "target": "action_1"}],
    }
    return {"name": "Large orders", "definition": definition}


async def test_the_first_example_runs_from_its_three_calls_to_run_completed(sites: Sites) -> None:
    async with Site() as receiver, sites(http_allow=receiver.permit, functions=FUNCTIONS) as site:
        created = await site.door.post(DEFINITIONS, json=example_1(receiver.url))
        assert created.status_code == 201, created.text
        workflow_id = created.json()["id"]
        active = await site.door.patch(
            f"{DEFINITIONS}/{workflow_id}/status", json={"status": "active"}
        )
        assert active.json()["status"] == "active"
        started = await site.door.post(
            RUNS, json={"workflow_id": workflow_id, "trigger_data": {"id": "ord-123"}}
        )
        assert started.status_code == 202, started.text
        events = await site.watch(started.json()["run_id"])

        names = [name for name, _ in events]
        assert names[0] == "run_started"
        assert names[-1] == "run_completed"
        assert events[-1][1]["status"] == "completed"
        done = [data["node"] for name, data in events if name == "step_completed"]
        assert done == ["trigger", "validate", "notify"]
        (seen,) = receiver.seen
        assert (seen.method, orjson.loads(seen.body)) == ("POST", {"text": "New order: ord-123"})


async def test_the_first_example_runs_when_an_order_is_stored(sites: Sites) -> None:
    async with Site() as receiver, sites(http_allow=receiver.permit, functions=FUNCTIONS) as site:
        workflow_id = (await site.active(example_1(receiver.url)))["id"]
        await site.published("record")
        stored = await site.door.post("/records/v1/orders", json={"data": {"amount": 5}})
        assert stored.status_code == 201, stored.text
        (run,) = await site.ended(workflow_id, 1)
        assert run["status"] == "completed"
        text = f"New order: {stored.json()['id']}"
        assert [orjson.loads(seen.body) for seen in receiver.seen] == [{"text": text}]


async def test_the_second_example_tells_of_large_orders_and_of_no_others(sites: Sites) -> None:
    async with (
        Site() as receiver,
        sites(http_allow=receiver.permit, cdc_tables="auto") as site,
    ):
        await site.sql(ORDERS)
        workflow_id = (await site.active(example_2(receiver.url)))["id"]
        await site.published("orders")
        await site.sql("insert into public.orders values (1, 'small', 50)")
        await site.sql("insert into public.orders values (2, 'just not', 100)")
        await site.sql("insert into public.orders values (3, 'large', 150)")
        (run,) = await site.ended(workflow_id, 1)
        assert (run["status"], run["resource_id"]) == ("completed", "3")
        body = {"channel": "#sales", "text": "New order: large"}
        assert [orjson.loads(seen.body) for seen in receiver.seen] == [body]


async def test_a_failing_receiver_is_tried_four_times_and_the_run_still_completes(
    sites: Sites,
) -> None:
    times: list[float] = []

    def refuse(_seen: Seen) -> bytes:
        times.append(asyncio.get_running_loop().time())
        return answer(503)

    retry = {"max_retries": 3, "backoff": "exponential", "initial_delay_ms": 100, "jitter": 0}
    async with Site(refuse) as receiver, sites(http_allow=receiver.permit) as site:
        workflow_id = (await site.active(example_2(receiver.url, retry=retry)))["id"]
        events = await site.watch(await site.start(workflow_id, {"name": "Ada", "amount": 150}))

        assert len(times) == 1 + 3
        waits = [data["delay"] for name, data in events if name == "step_retrying"]
        assert waits == [0.1, 0.2, 0.4]
        gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
        assert all(gap >= wait for gap, wait in zip(gaps, waits, strict=True))
        assert [seen.headers["permaflow-attempt"] for seen in receiver.seen] == list("1234")
        assert len({seen.headers["idempotency-key"] for seen in receiver.seen}) == 1
        (failed,) = [data for name, data in events if name == "step_failed"]
        assert (failed["node"], failed["error"]["code"]) == ("action_1", "http_503")
        assert events[-1] == ("run_completed", events[-1][1])
        assert events[-1][1]["status"] == "completed"


async def test_the_retries_of_the_second_example_wait_longer_each_time_up_to_a_cap(
    sites: Sites,
) -> None:
    retry = {
        "max_retries": 4,
        "backoff": "exponential",
        "initial_delay_ms": 20,
        "max_delay_ms": 50,
        "jitter": 0,
    }
    async with (
        Site(lambda _seen: answer(500)) as receiver,
        sites(http_allow=receiver.permit) as site,
    ):
        workflow_id = (await site.active(example_2(receiver.url, retry=retry)))["id"]
        events = await site.watch(await site.start(workflow_id, {"name": "Ada"}))
        waits = [data["delay"] for name, data in events if name == "step_retrying"]
        assert waits == [0.02, 0.04, 0.05, 0.05]


async def test_a_receiver_that_never_answers_times_out_and_the_run_goes_on(sites: Sites) -> None:
    async with Site(lambda _seen: None) as receiver, sites(http_allow=receiver.permit) as site:
        body = example_2(receiver.url, timeout_seconds=0.3, retry={"max_retries": 0})
        workflow_id = (await site.active(body))["id"]
        run_id = await site.start(workflow_id, {"name": "Ada"})
        events = await site.watch(run_id)
        assert events[-1][1]["status"] == "completed"
        steps = (await site.door.get(f"{RUNS}/{run_id}/steps")).json()["data"]
        status = {step["node"]: step["status"] for step in steps}
        assert status == {"trigger_1": "completed", "action_1": "timed_out"}


async def test_edited_definitions_change_no_run_that_is_under_way(site: RunningSite) -> None:
    """X9, with 50 live runs."""
    go = asyncio.Event()
    waiting: list[object] = []
    all_wait = asyncio.Event()

    class Gate(BaseModel):
        """No config."""

    async def run(_config: Gate, ctx: Any) -> Done:
        waiting.append(ctx.run_id)
        if len(waiting) == 50:
            all_wait.set()
        await go.wait()
        return Done(None)

    site.engine.types.add(TaskType("test_gate", "code", Gate, Gate, run))

    def body(version: int) -> dict[str, Json]:
        echo = {"function_slug": "echo", "input": version}
        nodes: list[Json] = [
            {"id": "t", "type": "trigger_manual"},
            {"id": "gate", "type": "test_gate"},
            {"id": "say", "type": "code_function", "config": echo},
        ]
        if version == 2:
            nodes.append({"id": "more", "type": "code_function", "config": echo})
        names = [node["id"] for node in nodes]  # type: ignore[index,call-overload]
        edges = [{"source": a, "target": b} for a, b in itertools.pairwise(names)]
        return {"name": "Edited", "definition": {"nodes": nodes, "edges": edges}}

    workflow_id = (await site.active(body(1)))["id"]
    old = await asyncio.gather(*(site.start(workflow_id) for _ in range(50)))
    async with asyncio.timeout(20):
        await all_wait.wait()
    saved = await site.door.put(f"{DEFINITIONS}/{workflow_id}", json=body(2))
    assert saved.json()["version"] == 2
    new = await site.start(workflow_id)
    go.set()
    found = {run["id"]: run for run in await site.ended(workflow_id, 51)}
    assert {found[run_id]["version"] for run_id in old} == {1}
    assert found[new]["version"] == 2
    assert {run["status"] for run in found.values()} == {"completed"}
    outputs = [(await site.door.get(f"{RUNS}/{run_id}")).json()["output"] for run_id in old]
    assert outputs == [{"echo": 1}] * 50
    assert (await site.door.get(f"{RUNS}/{new}")).json()["output"] == {"echo": 2}
    steps = (await site.door.get(f"{RUNS}/{new}/steps")).json()["data"]
    assert "more" in {step["node"] for step in steps}


async def test_what_goes_wrong_says_what_to_do(site: RunningSite) -> None:
    """The rows about workflows of the guide's table of troubles."""
    draft = (await site.door.post(DEFINITIONS, json=example_1("https://example.com/"))).json()
    started = await site.door.post(RUNS, json={"workflow_id": draft["id"]})
    assert started.status_code == 404
    assert started.json()["detail"] == "Workflow not found or not active"
    await site.door.delete(f"{DEFINITIONS}/{draft['id']}")
    deleted = await site.door.post(RUNS, json={"workflow_id": draft["id"]})
    assert (deleted.status_code, deleted.json()["detail"]) == (404, started.json()["detail"])

    wrong = await site.door.post("/webhooks/workflow/wrong", json={})
    assert wrong.status_code == 404
    assert "no webhook at this address, or its workflow is not active" in wrong.json()["detail"]

    other = {"authorization": "Bearer wrong"}
    assert (await site.door.get(RUNS, headers=other)).status_code == 401


async def test_a_step_that_failed_is_found_in_the_steps_of_its_run(site: RunningSite) -> None:
    """Where the guide sends whoever finds a run that does not go on."""
    workflow_id = (await site.active(example_1("https://example.com/")))["id"]
    run_id = await site.start(workflow_id, {})
    events = await site.watch(run_id)
    assert events[-1] == ("run_completed", events[-1][1])
    assert events[-1][1]["status"] == "failed"
    steps = (await site.door.get(f"{RUNS}/{run_id}/steps")).json()["data"]
    (failed,) = [step for step in steps if step["status"] == "failed"]
    assert failed["error"]["code"] == "unknown_function"
    assert "PERMAFLOW_FUNCTIONS" in failed["error"]["message"]


async def test_a_long_operation_is_answered_at_once_and_can_be_asked_after(
    site: RunningSite,
) -> None:
    nodes = [
        {"id": "t", "type": "trigger_manual"},
        {"id": "long", "type": "logic_delay", "config": {"duration": "{{trigger.seconds}}"}},
    ]
    edges = [{"source": "t", "target": "long"}]
    body = {"name": "Long", "definition": {"nodes": nodes, "edges": edges}}
    workflow_id = (await site.active(body))["id"]

    async def start(seconds: float) -> dict[str, Any]:
        began = asyncio.get_running_loop().time()
        wanted = {"workflow_id": workflow_id, "trigger_data": {"seconds": seconds}}
        answer = await site.door.post(RUNS, json=wanted)
        assert answer.status_code == 202
        assert asyncio.get_running_loop().time() - began < 1
        found: dict[str, Any] = answer.json()
        return found

    first = await start(0.3)
    assert first["estimated_seconds"] is None  # nobody knows yet
    await site.ended(workflow_id, 1)
    site.forget_what_was_kept()
    second = await start(3600)
    assert 0.3 <= second["estimated_seconds"] < 10
    await site.engine.until(UUID(second["run_id"]), "waiting")
    polled = (await site.door.get(f"/v1/workflows/runs/{second['run_id']}")).json()
    assert (polled["id"], polled["status"]) == (second["run_id"], "waiting")


async def test_a_delay_outlives_every_process(sites: Sites) -> None:
    nodes = [
        {"id": "t", "type": "trigger_manual"},
        {"id": "pause", "type": "logic_delay", "config": {"duration": 0.5}},
        {"id": "after", "type": "code_function", "config": {"function_slug": "echo", "input": 1}},
    ]
    edges = [{"source": "t", "target": "pause"}, {"source": "pause", "target": "after"}]
    async with sites() as site:
        body = {"name": "Delayed", "definition": {"nodes": nodes, "edges": edges}}
        workflow_id = (await site.active(body))["id"]
        run_id = await site.start(workflow_id)
        await site.engine.until(UUID(run_id), "waiting")
    async with sites() as site:
        (run,) = await site.ended(workflow_id, 1)
        assert (run["id"], run["status"]) == (run_id, "completed")
        assert (await site.door.get(f"{RUNS}/{run_id}")).json()["output"] == {"echo": 1}


async def test_a_loop_over_nothing_is_done_at_once(site: RunningSite) -> None:
    nodes = [
        {"id": "t", "type": "trigger_manual"},
        {"id": "each", "type": "logic_loop", "config": {"items": "{{trigger.items}}"}},
        {"id": "body", "type": "code_function", "config": {"function_slug": "echo"}}
        | {"parentId": "each"},
    ]
    edges = [{"source": "t", "target": "each"}]
    body = {"name": "Loop", "definition": {"nodes": nodes, "edges": edges}}
    workflow_id = (await site.active(body))["id"]
    run_id = await site.start(workflow_id, {"items": []})
    (run,) = await site.ended(workflow_id, 1)
    assert run["status"] == "completed"
    output = (await site.door.get(f"{RUNS}/{run_id}")).json()["output"]
    assert output == {"items": [], "count": 0, "failed": 0}


async def test_a_large_integer_reaches_sql_digit_by_digit(sites: Sites, database_url: str) -> None:
    """From a body through a template and a function into a table; a double would round it."""
    number = 9_007_199_254_740_993
    row = {"operation": "create", "source": "shop", "table": "sums"}
    nodes = [
        {"id": "t", "type": "trigger_manual"},
        {"id": "echo", "type": "code_function"}
        | {"config": {"function_slug": "echo", "input": "{{trigger.n}}"}},
        {"id": "store", "type": "action_record"}
        | {"config": {**row, "values": {"n": "{{steps.echo.output.echo}}"}}},
    ]
    edges = [{"source": "t", "target": "echo"}, {"source": "echo", "target": "store"}]
    async with sites(sources=f"shop={database_url}") as site:
        await site.sql("create table public.sums (n bigint)")
        body = {"name": "Sums", "definition": {"nodes": nodes, "edges": edges}}
        workflow_id = (await site.active(body))["id"]
        await site.start(workflow_id, {"n": number})
        (run,) = await site.ended(workflow_id, 1)
        assert run["status"] == "completed"
        assert await site.sql("select n from public.sums") == [(number,)]
