"""Runs that start runs, on real servers: what they hand over, get back, and end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import orjson
import psycopg
import pytest

from permaflow.errors import StoreError
from permaflow.plan import Json
from pipeline.core.entries import Asked, Retrying, Succeeded
from pipeline.core.entries import Failed as NodeFailed
from pipeline.ids import new_id
from pipeline.store import runs, starts
from pipeline.store.journal import Append, Journal
from pipeline.store.runs import Run, RunFilter
from tests.fix_engine import Engine, graph, start_engine, task
from tests.fix_site import RunningSite
from tests.fix_store import execute

pytestmark = pytest.mark.service

LIMIT = 20.0


def sub(name: str = "child", **config: Json) -> dict[str, Any]:
    more = {key: config.pop(key) for key in ("retry", "on_error", "parentId") if key in config}
    timeout = config.pop("timeout_seconds", None)
    if timeout is not None:
        more["timeout_seconds"] = timeout
    return {"id": name, "type": "meta_subworkflow", "config": config, **more}


def calls(workflow_id: UUID, **config: Json) -> dict[str, Json]:
    """A workflow that does nothing but start another and hand on its output."""
    return graph(sub(workflow_id=str(workflow_id), **config), edges=["t>child"])


async def children_of(engine: Engine, run_id: UUID) -> list[Run]:
    return await engine.database.run(
        runs.find, engine.org, RunFilter(parent_id=run_id), limit=2_000
    )


def output(entries: list[Any], node: str = "child") -> Json:
    return next(e.output for e in entries if isinstance(e, Succeeded) and e.node == node)


def failure(entries: list[Any], node: str = "child") -> NodeFailed:
    return next(e for e in entries if isinstance(e, NodeFailed) and e.node == node)


async def test_a_run_hands_input_to_its_child_and_gets_its_output(engine: Engine) -> None:
    child = await engine.workflow(graph(task("a", output={"got": "{{trigger.n}}"}), edges=["t>a"]))
    run, entries = await engine.finished(
        calls(child, input={"n": "{{trigger.number}}"}), {"number": 7}
    )
    assert run.status == "completed"
    assert output(entries) == {"got": 7}
    (found,) = await children_of(engine, run.id)
    assert (found.parent_id, found.source, found.status) == (run.id, "workflow", "completed")
    assert [UUID(e.run) for e in entries if isinstance(e, Asked)] == [found.id]


async def test_a_child_is_found_by_the_name_of_its_workflow(engine: Engine) -> None:
    await engine.workflow(graph(task("a", output=1), edges=["t>a"]))
    document = graph(sub(workflow="test"), edges=["t>child"])
    run, entries = await engine.finished(document)
    # The parent has the same name: which of the two is meant cannot be told.
    assert run.status == "failed"
    assert failure(entries).code == "workflow_ambiguous"
    await execute(
        engine.database,
        "update permaflow.workflow set name = 'other' where id <> %s",
        (run.workflow_id,),
    )
    (again,) = await engine.start(
        await engine.workflow(graph(sub(workflow="other"), edges=["t>child"]))
    )
    assert (await engine.until(again)).status == "completed"


async def test_a_mapping_says_what_of_the_child_becomes_the_output(engine: Engine) -> None:
    child = await engine.workflow(
        graph(task("a", output={"sum": 3, "rest": "x" * 50_000}), edges=["t>a"])
    )
    mapping = {
        "sum": "{{run.output.sum}}",
        "next": "{{= run.output.sum + 1}}",
        "was": "{{run.status}}",
    }
    run, entries = await engine.finished(calls(child, output=mapping))
    assert run.status == "completed"
    assert output(entries) == {"sum": 3, "next": 4, "was": "completed"}


async def test_a_large_output_travels_by_reference(engine: Engine) -> None:
    child = await engine.workflow(graph(task("a", output={"text": "x" * 100_000}), edges=["t>a"]))
    document = graph(
        sub(workflow_id=str(child)),
        task("after", output="{{steps.child.output.text}}"),
        edges=["t>child", "child>after"],
    )
    run, entries = await engine.finished(document)
    assert run.status == "completed"
    assert all(
        e.ref and e.output is None for e in entries if isinstance(e, Succeeded) and e.attempt
    )


async def test_a_large_input_travels_by_reference(engine: Engine) -> None:
    child = await engine.workflow(graph(task("a", output="{{trigger.text}}"), edges=["t>a"]))
    run, _ = await engine.finished(
        calls(child, input={"text": "{{trigger.text}}"}), {"text": "y" * 90_000}
    )
    assert run.status == "completed"
    (found,) = await children_of(engine, run.id)
    stored = await engine.database.run(runs.get, engine.org, found.id)
    assert stored.input is None
    assert stored.input_ref is not None


async def test_the_failure_of_a_child_fails_the_step_with_its_error(engine: Engine) -> None:
    child = await engine.workflow(graph(task("a", "reject"), edges=["t>a"]))
    run, entries = await engine.finished(calls(child))
    assert run.status == "failed"
    failed = failure(entries)
    assert failed.code == "child_failed"
    assert "never" in failed.message
    assert failed.details["error"] == {"code": "refused", "message": "never", "node": "a"}
    (found,) = await children_of(engine, run.id)
    assert failed.details["run_id"] == str(found.id)


async def test_a_step_may_go_on_with_how_its_child_ended(engine: Engine) -> None:
    child = await engine.workflow(graph(task("a", "reject"), edges=["t>a"]))
    run, entries = await engine.finished(calls(child, on_child_failure="continue"))
    assert run.status == "completed"
    told = output(entries)
    assert (told["status"], told["output"], told["error"]["code"]) == ("failed", None, "refused")


async def test_each_attempt_of_the_step_starts_another_child(engine: Engine) -> None:
    child = await engine.workflow(graph(task("a", "reject"), edges=["t>a"]))
    retry = {"max_retries": 2, "initial_delay_ms": 1, "max_delay_ms": 1}
    run, entries = await engine.finished(calls(child, retry=retry))
    assert run.status == "failed"
    assert sum(isinstance(e, Retrying) for e in entries) == 2
    found = await children_of(engine, run.id)
    assert sorted(str(each.id) for each in found) == sorted(
        e.run for e in entries if isinstance(e, Asked)
    )
    assert len(found) == 3


async def test_nobody_waits_for_the_end_of_an_async_child(engine: Engine) -> None:
    child = await engine.workflow(graph(task("slow", seconds=30), edges=["t>slow"]))
    run, entries = await engine.finished(calls(child, mode="async"))
    assert run.status == "completed"
    (found,) = await children_of(engine, run.id)
    assert output(entries) == {"run_id": str(found.id)}
    started = engine.started.setdefault("slow", asyncio.Event())
    async with asyncio.timeout(LIMIT):
        await started.wait()
    now = await engine.database.run(runs.get, engine.org, found.id)
    assert (now.finished_at, now.cancel_at) == (None, None)
    await engine.cancel(found.id)


@pytest.mark.parametrize(
    ("config", "code"),
    [
        ({"workflow_id": "00000000-0000-7000-8000-000000000000"}, "workflow_not_found"),
        ({"workflow_id": "{{trigger.nonsense}}"}, "workflow_not_found"),
        ({"workflow": "nobody"}, "workflow_not_found"),
        ({"workflow_id": "draft"}, "workflow_inactive"),
        ({"workflow_id": "active", "version": 7}, "version_not_found"),
        ({"workflow_id": "active", "version": "{{trigger.nonsense}}"}, "version_not_found"),
    ],
)
async def test_what_cannot_be_started_is_a_failure_that_says_why(
    engine: Engine, config: dict[str, Json], code: str
) -> None:
    document = graph(task("a"), edges=["t>a"])
    if config["workflow_id" if "workflow_id" in config else "workflow"] in ("draft", "active"):
        active = config["workflow_id"] == "active"
        config = {**config, "workflow_id": str(await engine.workflow(document, active=active))}
    run, entries = await engine.finished(
        graph(sub(**config), edges=["t>child"]), {"nonsense": "12-x"}
    )
    assert run.status == "failed"
    assert failure(entries).code == code
    assert await children_of(engine, run.id) == []


async def test_a_parent_that_is_cancelled_ends_its_children_and_theirs(engine: Engine) -> None:
    last = await engine.workflow(graph(task("slow", seconds=60), edges=["t>slow"]))
    middle = await engine.workflow(calls(last))
    (run_id,) = await engine.start(await engine.workflow(calls(middle)))
    async with asyncio.timeout(LIMIT):
        await engine.started.setdefault("slow", asyncio.Event()).wait()
    await engine.cancel(run_id)
    assert (await engine.until(run_id)).status == "cancelled"
    (child,) = await children_of(engine, run_id)
    assert (await engine.until(child.id)).status == "cancelled"
    (grandchild,) = await children_of(engine, child.id)
    ended = await engine.until(grandchild.id)
    assert ended.status == "cancelled"
    assert ended.cancel_by == f"run:{child.id}"


async def test_a_step_that_times_out_ends_its_child(engine: Engine) -> None:
    child = await engine.workflow(graph(task("slow", seconds=60), edges=["t>slow"]))
    run, _ = await engine.finished(calls(child, timeout_seconds=0.3))
    assert run.status == "failed"
    (found,) = await children_of(engine, run.id)
    assert (await engine.until(found.id)).status == "cancelled"


async def test_the_loser_of_a_join_is_ended_with_its_child(engine: Engine) -> None:
    child = await engine.workflow(graph(task("slow", seconds=60), edges=["t>slow"]))
    document = graph(
        sub(workflow_id=str(child)),
        task("fast"),
        {"id": "join", "type": "logic_join", "join": "any", "config": {}},
        edges=["t>child", "t>fast", "child>join", "fast>join"],
    )
    run, _ = await engine.finished(document)
    assert run.status == "completed"
    (found,) = await children_of(engine, run.id)
    assert (await engine.until(found.id)).status == "cancelled"


async def test_a_child_that_somebody_cancels_fails_the_step_at_once(engine: Engine) -> None:
    child = await engine.workflow(graph(task("slow", seconds=60), edges=["t>slow"]))
    retry = {"max_retries": 5, "initial_delay_ms": 1}
    (run_id,) = await engine.start(await engine.workflow(calls(child, retry=retry)))
    async with asyncio.timeout(LIMIT):
        await engine.started.setdefault("slow", asyncio.Event()).wait()
    (found,) = await children_of(engine, run_id)
    await engine.cancel(found.id)
    assert (await engine.until(run_id)).status == "failed"
    assert failure(await engine.entries(run_id)).message.endswith("ended as cancelled: cancelled")
    assert len(await children_of(engine, run_id)) == 1


async def nested(engine: Engine, depth: int) -> Run:
    """The outermost of so many runs in each other."""
    workflow_id = await engine.workflow(graph(task("a", output="bottom"), edges=["t>a"]))
    for _ in range(depth):
        workflow_id = await engine.workflow(calls(workflow_id))
    (run_id,) = await engine.start(workflow_id)
    return await engine.until(run_id)


@pytest.mark.parametrize(("depth", "status"), [(9, "completed"), (10, "completed"), (11, "failed")])
async def test_children_may_stand_ten_deep_in_each_other(
    engine: Engine, depth: int, status: str
) -> None:
    run = await nested(engine, depth)
    assert run.status == status
    if status == "failed":
        assert b"would be number 11" in (run.error or b"")


async def test_a_workflow_that_starts_itself_comes_to_an_end(engine: Engine) -> None:
    document = graph(sub(workflow="itself"), edges=["t>child"])
    workflow_id = await engine.workflow(document)
    await execute(engine.database, "update permaflow.workflow set name = 'itself'")
    (run_id,) = await engine.start(workflow_id)
    assert (await engine.until(run_id)).status == "failed"
    found = await engine.database.run(runs.find, engine.org)
    assert len(found) == 11
    assert failure(await engine.entries(found[0].id)).code == "depth_limit"


def many(workflow_id: UUID | str, count: int, **config: Json) -> dict[str, Json]:
    """A workflow that starts another so many times, one after the other."""
    key = "workflow_id" if isinstance(workflow_id, UUID) else "workflow"
    return graph(
        {"id": "each", "type": "logic_loop", "config": {"items": list(range(count))}},
        sub(**{key: str(workflow_id)}, parentId="each", **config),
        edges=["t>each"],
    )


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_so_many_runs_are_started_below_one_and_no_more(
    database_url: str, nats_url: str, mode: str
) -> None:
    async with AsyncExitStack() as stack:
        engine = await start_engine(database_url, nats_url, stack, max_child_runs=6)
        leaf = await engine.workflow(graph(task("a"), edges=["t>a"]))
        middle = await engine.workflow(many(leaf, 2))
        for count, status in ((2, "completed"), (3, "failed")):
            top = await engine.workflow(many(middle, count, mode=mode))
            (run_id,) = await engine.start(top)
            run = await engine.until(run_id)
            below: list[Run] = []
            for child in await children_of(engine, run_id):
                await engine.until(child.id)
                below += [child, *await children_of(engine, child.id)]
            if mode == "sync" or count == 2:
                assert run.status == status
            assert len(below) == 6
        codes = [
            entry.code
            for each in (run, *below)
            for entry in await engine.entries(each.id)
            if isinstance(entry, NodeFailed)
        ]
        assert "child_limit" in codes


async def test_a_workflow_that_starts_itself_again_and_again_comes_to_an_end(
    database_url: str, nats_url: str
) -> None:
    """Each of its runs starts three and waits for none: ten deep that would be 88,572."""
    async with AsyncExitStack() as stack:
        engine = await start_engine(database_url, nats_url, stack, max_child_runs=50)
        workflow_id = await engine.workflow(many("itself", 3, mode="async"))
        await execute(engine.database, "update permaflow.workflow set name = 'itself'")
        await engine.start(workflow_id)
        for _ in range(60):
            found = await engine.database.run(runs.find, engine.org, limit=200)
            for each in found:
                await engine.until(each.id)
            if len(found) == 51:
                break
        found = await engine.database.run(runs.find, engine.org, limit=200)
        assert len(found) == 51
        assert Counter(each.status for each in found)["failed"] > 0
        refused = [each for each in found if each.status == "failed"]
        assert {orjson.loads(each.error or b"{}")["code"] for each in refused} == {"child_limit"}
        assert b"at most 50" in (refused[0].error or b"").lower()


async def test_a_loop_waits_for_a_thousand_children(engine: Engine) -> None:
    child = await engine.workflow(graph(task("a", output="{{trigger.n}}"), edges=["t>a"]))
    document = graph(
        {"id": "each", "type": "logic_loop", "config": {"items": "{{trigger.numbers}}"}},
        sub(workflow_id=str(child), input={"n": "{{loop.item}}"}, parentId="each"),
        task("sum", output="{{steps.each.output.items}}"),
        edges=["t>each", "each>sum"],
    )
    numbers = list(range(1_000))
    run, entries = await engine.finished(document, {"numbers": numbers})
    assert run.status == "completed"
    assert output(entries, "sum") == numbers
    assert len(await children_of(engine, run.id)) == 1_000


async def test_nothing_is_left_behind(engine: Engine) -> None:
    child = await engine.workflow(graph(task("a", "reject"), edges=["t>a"]))
    for mode in ("sync", "async"):
        await engine.finished(calls(child, mode=mode))
    await nothing_is_left(engine)


async def nothing_is_left(engine: Engine) -> None:
    """Until the last question and the last answer are gone."""
    async with asyncio.timeout(LIMIT):
        while await execute(  # noqa: ASYNC110 - the reconciler tells nobody
            engine.database,
            "select 1 from permaflow.question union all select 1 from permaflow.answer",
        ):
            await asyncio.sleep(0.05)


async def test_lost_messages_cost_seconds_and_no_child(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody is told of what was committed: neither the child, nor its end, nor its parent's."""
    for module in ("pipeline.asking", "pipeline.children"):
        monkeypatch.setattr(f"{module}.post_answers", lambda *_: None)
    monkeypatch.setattr("pipeline.asking.wake", lambda *_: None)
    monkeypatch.setattr("pipeline.asking.post", lambda *_: None)
    child = await engine.workflow(graph(task("a"), edges=["t>a"]))
    (run_id,) = await engine.start(await engine.workflow(calls(child)))
    (other,) = await engine.start(await engine.workflow(calls(child, mode="async")))
    slow = await engine.workflow(graph(task("slow", seconds=60), edges=["t>slow"]))
    (late,) = await engine.start(await engine.workflow(calls(slow, timeout_seconds=0.3)))
    assert (await engine.until(run_id)).status == "completed"
    assert (await engine.until(other)).status == "completed"
    (found,) = await children_of(engine, late)
    assert (await engine.until(found.id)).status == "cancelled"


async def test_a_child_whose_end_is_told_again_answers_once(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle, told = engine.completion._settle, []

    async def falter(run_ids: Sequence[UUID]) -> Sequence[UUID]:
        """The store is away after the parent was told, and before that was settled."""
        told.extend(run_ids)
        if len(told) < 4:
            raise StoreError("away")
        return await settle(run_ids)

    monkeypatch.setattr(engine.completion, "_settle", falter)
    child = await engine.workflow(graph(task("a", output=1), edges=["t>a"]))
    run, entries = await engine.finished(calls(child))
    assert run.status == "completed"
    assert sum(isinstance(e, Succeeded) and e.node == "child" for e in entries) == 1
    (found,) = await children_of(engine, run.id)
    async with asyncio.timeout(LIMIT):
        while told.count(found.id) < 2:  # noqa: ASYNC110 - the list tells nobody
            await asyncio.sleep(0.02)
    assert await engine.entries(run.id) == entries


async def test_a_parent_that_is_cancelled_as_its_child_ends_leaves_nothing_behind(
    engine: Engine,
) -> None:
    child = await engine.workflow(graph(task("a"), edges=["t>a"]))
    workflow_id = await engine.workflow(calls(child))
    for _ in range(2):  # the first one waits for the engine to begin
        began = asyncio.get_running_loop().time()
        await engine.until(*await engine.start(workflow_id))
    undisturbed = asyncio.get_running_loop().time() - began
    parents: list[UUID] = []
    for number in range(60):
        parents += await engine.start(workflow_id)
        await asyncio.sleep(1.5 * undisturbed * number / 60)
        await engine.cancel(parents[-1])
    ended = Counter([(await engine.until(run_id)).status for run_id in parents])
    assert set(ended) <= {"completed", "cancelled"}
    assert len(ended) == 2, f"the moment was never met: {ended}"
    for run_id in parents:
        for found in await children_of(engine, run_id):
            assert (await engine.until(found.id)).finished_at is not None
    await nothing_is_left(engine)


async def test_a_step_that_times_out_as_its_child_ends_has_one_outcome(engine: Engine) -> None:
    child = await engine.workflow(graph(task("a"), edges=["t>a"]))
    workflow_id = await engine.workflow(calls(child, timeout_seconds=0.06))
    parents = await engine.start(workflow_id, count=60)
    for run_id in parents:
        run = await engine.until(run_id)
        entries = await engine.entries(run_id)
        ends = [e for e in entries if isinstance(e, Succeeded | NodeFailed) and e.node == "child"]
        assert len(ends) == 1
        assert run.status == ("completed" if isinstance(ends[0], Succeeded) else "failed")
        for found in await children_of(engine, run_id):
            assert (await engine.until(found.id)).finished_at is not None
    await nothing_is_left(engine)


async def test_what_a_child_changes_its_parent_has_changed(engine: Engine) -> None:
    """A circle that goes through a child has as many runs as one that does not."""
    workflow_id = await engine.workflow(graph(task("a"), edges=["t>a"]))
    cause, parent = None, None
    for number in range(6):
        is_child = number % 2 == 1
        request = starts.StartRequest(
            new_id(),
            engine.org,
            workflow_id,
            "workflow" if is_child else "postgres",
            requested_by="" if is_child or cause is None else f"run:{cause}",
            parent_id=parent if is_child else None,
        )
        await engine.database.run(starts.start_runs, [request])
        cause = parent = request.run_id
    assert cause is not None
    assert await engine.database.run(starts.at_depth, [cause], 2) == {cause}
    assert await engine.database.run(starts.at_depth, [cause], 3) == frozenset()


async def test_the_door_shows_children_and_which_step_started_them(site: RunningSite) -> None:
    child = await site.engine.workflow(graph(task("a"), edges=["t>a"]))
    run, _ = await site.engine.finished(calls(child))
    listed = (await site.door.get(f"/workflows/v1/runs?parent_id={run.id}")).json()["data"]
    assert [each["parent_id"] for each in listed] == [str(run.id)]
    steps = (await site.door.get(f"/workflows/v1/runs/{run.id}/steps?node=child")).json()["data"]
    assert [step["run_id"] for step in steps] == [listed[0]["id"]]


async def test_a_run_that_is_ended_from_outside_ends_its_children(engine: Engine) -> None:
    slow = await engine.workflow(graph(task("slow", seconds=60), edges=["t>slow"]))
    (run_id,) = await engine.start(await engine.workflow(calls(slow)))
    await engine.until(run_id, "waiting")
    entries = len(await engine.database.run(runs.journal, engine.org, run_id))
    url = engine.settings.database_url
    journal = Journal(lambda: psycopg.AsyncConnection.connect(url, autocommit=True))
    told = await journal.commit(
        Append(
            runs=[run_id],
            seqs=[entries + 1],
            orgs=[engine.org],
            entries=['[["finished","failed","quarantined","x",""]]'],
            finished=[(run_id, "failed", '{"code": "quarantined"}')],
            abandoned=[run_id],
        )
    )
    await journal.close()
    (found,) = await children_of(engine, run_id)
    assert told.ending == [(found.id, engine.org)]
    assert (await engine.until(found.id)).status == "cancelled"
    await nothing_is_left(engine)


async def test_a_parent_that_is_retried_starts_another_child(site: RunningSite) -> None:
    engine = site.engine
    child = await engine.workflow(graph(task("a", "reject"), edges=["t>a"]))
    run, _ = await engine.finished(calls(child))
    assert run.status == "failed"
    mended = orjson.dumps(graph(task("b", output=3), edges=["t>b"])).decode()
    await execute(
        engine.database,
        "insert into permaflow.workflow_version (workflow_id, version, org_id, document, dialect)"
        " values (%s, 2, %s, %s, 'graph')",
        (child, engine.org, mended),
    )
    await execute(
        engine.database, "update permaflow.workflow set version = 2 where id = %s", (child,)
    )
    answer = await site.door.post(f"/workflows/v1/runs/{run.id}/retry")
    assert answer.status_code == 202, answer.text
    assert (await engine.until(run.id, "completed")).status == "completed"
    found = await children_of(engine, run.id)
    assert sorted((each.version, each.status) for each in found) == [
        (1, "failed"),
        (2, "completed"),
    ]
    assert output(await engine.entries(run.id)) == 3
