"""Workflows through every vertex but the gateway, on real PostgreSQL and NATS."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import orjson

from pipeline.bus.subjects import inbox, step
from pipeline.core.entries import (
    Cancelled,
    Dispatched,
    Finished,
    LoopOpened,
    Retrying,
    Skipped,
    Succeeded,
)
from pipeline.core.entries import Failed as NodeFailed
from pipeline.store import stats
from tests.fix_engine import Engine, graph, task


async def test_a_chain_runs_to_its_end_and_hands_outputs_on(engine: Engine) -> None:
    chain = graph(
        task("a", output={"n": 1}),
        task("b", output={"got": "{{steps.a.output.n}}", "name": "{{trigger.name}}"}),
        edges=["t>a", "a>b"],
    )
    run, entries = await engine.finished(chain, {"name": "Ada"})
    assert run.status == "completed"
    outputs = {e.node: e.output for e in entries if isinstance(e, Succeeded)}
    assert outputs["b"] == {"got": 1, "name": "Ada"}


async def test_a_failing_step_is_tried_again_and_then_succeeds(engine: Engine) -> None:
    retry = {"max_retries": 3, "initial_delay_ms": 10, "max_delay_ms": 50}
    run, entries = await engine.finished(
        graph(task("a", "retry", "raise", "done", retry=retry), edges=["t>a"])
    )
    assert run.status == "completed"
    assert [e.attempt for e in entries if isinstance(e, Retrying)] == [1, 2]
    assert [e.attempt for e in entries if isinstance(e, Dispatched)] == [1, 2, 3]


async def test_a_rejected_step_is_not_tried_again_and_fails_the_run(engine: Engine) -> None:
    run, entries = await engine.finished(
        graph(task("a", "reject", retry={"max_retries": 3}), edges=["t>a"])
    )
    assert run.status == "failed"
    assert orjson.loads(run.error or b"")["code"] == "refused"
    assert sum(isinstance(e, Dispatched) for e in entries) == 1


async def test_continue_goes_past_a_failed_step(engine: Engine) -> None:
    run, entries = await engine.finished(
        graph(task("a", "reject", on_error="continue"), task("b"), edges=["t>a", "a>b"])
    )
    assert run.status == "completed"
    assert [e.node for e in entries if isinstance(e, NodeFailed)] == ["a"]


async def test_goto_leads_to_the_error_handler(engine: Engine) -> None:
    document = graph(
        task("a", "reject", on_error="goto:rescue"),
        {"id": "rescue", "type": "meta_error", "config": {}},
        task("mend", output={"why": "{{error.message}}"}),
        edges=["t>a", "rescue>mend"],
    )
    run, entries = await engine.finished(document)
    assert run.status == "completed"
    outputs = {e.node: e.output for e in entries if isinstance(e, Succeeded)}
    assert outputs["mend"] == {"why": "never"}


async def test_an_error_handler_has_the_error_for_its_output(engine: Engine) -> None:
    document = graph(
        task("a", "reject", on_error="goto:rescue"),
        {"id": "rescue", "type": "meta_error", "config": {}},
        task("mend", output="{{steps.rescue.output.code}}"),
        edges=["t>a", "rescue>mend"],
    )
    run, entries = await engine.finished(document)
    assert run.status == "completed"
    outputs = {e.node: e.output for e in entries if isinstance(e, Succeeded)}
    assert outputs["rescue"] == {
        "node": "a",
        "code": "refused",
        "message": "never",
        "attempt": 1,
        "details": None,
    }
    assert outputs["mend"] == "refused"


async def test_only_the_taken_branch_is_dispatched(engine: Engine) -> None:
    condition = {"field": "trigger.amount", "op": "gt", "value": 100}
    document = graph(
        {"id": "big", "type": "logic_condition", "config": {"condition": condition}},
        task("yes"),
        task("no"),
        task("after"),
        edges=["t>big", "big:true>yes", "big:false>no", "yes>after", "no>after"],
    )
    run, entries = await engine.finished(document, {"amount": 250})
    assert run.status == "completed"
    assert [e.node for e in entries if isinstance(e, Dispatched)] == ["yes", "after"]
    assert [e.node for e in entries if isinstance(e, Skipped)] == ["no"]


async def test_an_any_join_cancels_the_slower_branch(engine: Engine) -> None:
    document = graph(
        task("fast"),
        task("slow", seconds=30),
        {"id": "join", "type": "logic_join", "join": "any", "config": {}},
        edges=["t>fast", "t>slow", "fast>join", "slow>join"],
    )
    run, entries = await engine.finished(document)
    assert run.status == "completed"
    assert [e.node for e in entries if isinstance(e, Cancelled)] == ["slow"]


async def test_a_parallel_loop_collects_its_outputs_in_order(engine: Engine) -> None:
    loop = {"items": "{{trigger.numbers}}", "mode": "parallel"}
    document = graph(
        {"id": "each", "type": "logic_loop", "config": loop},
        task("body", output="{{loop.item}}", parentId="each"),
        task("sum", output="{{steps.each.output.items}}"),
        edges=["t>each", "each>sum"],
    )
    run, entries = await engine.finished(document, {"numbers": list(range(150))})
    assert run.status == "completed"
    outputs = {e.node: e.output for e in entries if isinstance(e, Succeeded) and not e.scope}
    assert outputs["sum"] == list(range(150))


async def test_a_delay_waits_without_being_polled_and_then_goes_on(engine: Engine) -> None:
    document = graph(
        {"id": "pause", "type": "logic_delay", "config": {"duration": 0.3}},
        task("after"),
        edges=["t>pause", "pause>after"],
    )
    (run_id,) = await engine.start(await engine.workflow(document))
    waiting = await engine.until(run_id, "waiting")
    done = await engine.until(run_id)
    assert done.status == "completed"
    assert done.finished_at is not None
    assert done.finished_at - waiting.created_at >= timedelta(seconds=0.3)


async def test_a_step_that_takes_too_long_times_out(engine: Engine) -> None:
    run, entries = await engine.finished(
        graph(task("a", seconds=30, timeout_seconds=0.2), edges=["t>a"])
    )
    assert run.status == "failed"
    assert [e.timed_out for e in entries if isinstance(e, NodeFailed)] == [True]


async def test_a_run_that_takes_too_long_times_out(engine: Engine) -> None:
    run, _ = await engine.finished(graph(task("a", seconds=30), edges=["t>a"], timeout_seconds=0.3))
    assert run.status == "timed_out"


async def test_cancelling_a_run_stops_the_step_that_is_in_work(engine: Engine) -> None:
    document = graph(task("a", seconds=30), edges=["t>a"])
    (run_id,) = await engine.start(await engine.workflow(document))
    engine.started["a"] = started = asyncio.Event()
    async with asyncio.timeout(10):
        await started.wait()
    await engine.cancel(run_id)
    assert (await engine.until(run_id)).status == "cancelled"


async def test_a_finished_run_is_counted_once(engine: Engine) -> None:
    workflow_id = await engine.workflow(graph(task("a"), edges=["t>a"]))
    run_ids = await engine.start(workflow_id, count=5)
    for run_id in run_ids:
        await engine.until(run_id)
    async with asyncio.timeout(10):
        while True:
            found = await engine.database.run(stats.of, engine.org, [workflow_id])
            if workflow_id in found and found[workflow_id].success_count == 5:
                break
            await asyncio.sleep(0.05)
    assert found[workflow_id].run_count == 5


async def test_outputs_above_the_inline_limit_travel_by_reference(engine: Engine) -> None:
    big = "x" * 400_000
    document = graph(
        task("a", output={"text": big}),
        task("b", output="{{steps.a.output.text}}"),
        edges=["t>a", "a>b"],
    )
    run, entries = await engine.finished(document)
    assert run.status == "completed"
    assert all(e.ref for e in entries if isinstance(e, Succeeded) and e.attempt)


async def test_a_loop_over_items_above_the_inline_limit_says_how_many_they_are(
    engine: Engine,
) -> None:
    document = graph(
        {"id": "each", "type": "logic_loop", "config": {"items": "{{trigger.items}}"}},
        {**task("a"), "parentId": "each"},
        edges=["t>each"],
    )
    run, entries = await engine.finished(document, {"items": ["x" * 40_000, "y"]})
    assert run.status == "completed"
    (opened,) = [e for e in entries if isinstance(e, LoopOpened)]
    assert opened.ref is not None
    assert (opened.items, opened.size) == (None, 2)


async def test_a_message_that_cannot_be_read_is_put_aside(engine: Engine) -> None:
    await engine.bus.send(inbox(3, engine.org.hex), b"\xffnonsense")
    await engine.bus.send(step("code", engine.org.hex), b"\xffnonsense")
    run, _ = await engine.finished(graph(task("a"), edges=["t>a"]))
    assert run.status == "completed"
    assert sorted(source for source, _, _ in engine.dead) == ["inbox", "steps"]


async def test_a_lost_wake_is_made_good_by_the_reconciler(engine: Engine) -> None:
    workflow_id = await engine.workflow(graph(task("a"), edges=["t>a"]))
    bus, engine.bus = engine.bus, _Deaf()  # type: ignore[assignment]
    (run_id,) = await engine.start(workflow_id)
    engine.bus = bus
    assert (await engine.until(run_id)).status == "completed"


async def test_exactly_one_end_is_written(engine: Engine) -> None:
    _, entries = await engine.finished(graph(task("a"), edges=["t>a"]))
    assert sum(isinstance(e, Finished) for e in entries) == 1


class _Deaf:
    """Loses everything that is sent."""

    def send(self, *_: object) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future
