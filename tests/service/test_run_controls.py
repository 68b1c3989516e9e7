"""Runs that people retry, pause and resume, over HTTP and on real servers."""

from __future__ import annotations

import asyncio
import itertools
import threading
from contextlib import AsyncExitStack
from typing import Any

import httpx
import pytest

from pipeline.core.entries import Continued, Dispatched, Paused, Reopened, Resumed
from pipeline.outputs import folded
from pipeline.store import controls, keys, runs, stats
from tests.fix_engine import Engine, graph, start_engine, task
from tests.fix_gateway import RUNS
from tests.fix_served import started, watch
from tests.fix_store import execute

FAILS = {"retry": {"max_retries": 0}}


def delay(name: str, duration: str = "1h") -> dict[str, Any]:
    return {"id": name, "type": "logic_delay", "config": {"duration": duration}}


async def told(served: httpx.AsyncClient, run: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = (await served.get(run["links"]["self"])).json()
    return found


async def control(served: httpx.AsyncClient, run: dict[str, Any], name: str) -> httpx.Response:
    return await served.post(f"{RUNS}/{run['id']}/{name}")


# --- retry ----------------------------------------------------------------------------------------


async def test_a_failed_run_goes_on_from_its_failed_step(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    document = graph(
        task("a"), task("b", "reject", "done", **FAILS), task("c"), edges=["t>a", "a>b", "b>c"]
    )
    run = await started(served, document, {})
    assert (await engine.until(run["id"])).status == "failed"
    await until_settled(engine, run["id"])
    answer = await control(served, run, "retry")
    assert answer.status_code == 202
    assert (answer.json()["id"], answer.json()["status"]) == (run["id"], "running")
    assert (await engine.until(run["id"])).status == "completed"
    found = await told(served, run)
    assert (found["reopened"], found["error"], found["output"]) == (1, None, {"from": "c"})
    assert [attempt[2:] for attempt in engine.attempts] == [("a", 1), ("b", 1), ("b", 2), ("c", 1)]
    entries = await engine.entries(run["id"])
    assert [type(e) for e in entries if isinstance(e, Reopened | Continued)] == [
        Reopened,
        Continued,
    ]


async def test_the_stream_of_a_retried_run_goes_on_after_its_first_end(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    document = graph(task("a", "reject", "done", **FAILS), edges=["t>a"])
    run = await started(served, document, {})
    await watch(served, run)
    await control(served, run, "retry")
    names = [name for name, _ in await watch(served, run)]
    assert names.count("run_completed") == 2
    assert names[-1] == "run_completed"
    assert "run_reopened" in names
    steps = (await served.get(run["links"]["steps"])).json()["data"]
    assert [(s["node"], s["status"], s["attempts"]) for s in steps] == [
        ("t", "completed", 1),
        ("a", "completed", 2),
    ]


async def test_a_run_that_did_not_fail_is_not_retried(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    run = await started(served, graph(task("a"), edges=["t>a"]), {})
    await engine.until(run["id"])
    answer = await control(served, run, "retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "wrong_state")
    assert "completed" in answer.json()["detail"]
    waiting = await started(served, graph(delay("wait"), edges=["t>wait"]), {})
    await engine.until(waiting["id"], "waiting")
    assert (await control(served, waiting, "retry")).status_code == 409


async def test_a_run_that_is_gone_with_its_month_is_not_found(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    run = await started(served, graph(task("a", "reject", **FAILS), edges=["t>a"]), {})
    await engine.until(run["id"])
    await execute(engine.database, "delete from permaflow.run where id = %s", (run["id"],))
    for name in ("retry", "pause", "resume"):
        assert (await control(served, run, name)).status_code == 404


async def test_of_many_retries_at_once_one_counts(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    document = graph(task("a", "reject", "done", **FAILS), delay("wait"), edges=["t>a", "a>wait"])
    run = await started(served, document, {})
    await engine.until(run["id"])
    answers = await asyncio.gather(*(control(served, run, "retry") for _ in range(8)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 7
    await engine.until(run["id"], "waiting")
    entries = await engine.entries(run["id"])
    assert sum(isinstance(entry, Reopened) for entry in entries) == 1
    assert sum(isinstance(entry, Dispatched) for entry in entries) == 2


async def test_counts_stay_right_when_runs_are_retried(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    document = graph(task("a", "reject", "done", **FAILS), edges=["t>a"])
    run = await started(served, document, {})
    await engine.until(run["id"])
    await until_settled(engine, run["id"])
    assert await counts(engine, run) == (1, 0, 1, 0)
    await control(served, run, "pause")
    await control(served, run, "retry")
    await engine.until(run["id"])
    assert await counts(engine, run) == (1, 1, 0, 0)
    await until_settled(engine, run["id"])
    assert await counts(engine, run) == (1, 1, 0, 0)


async def counts(engine: Engine, run: dict[str, Any]) -> tuple[int, int, int, int]:
    found = await engine.database.run(stats.of, engine.org, [run["workflow_id"]])
    (one,) = found.values()
    return one.run_count, one.success_count, one.failure_count, one.open_count


async def until_settled(engine: Engine, run_id: Any) -> None:
    async with asyncio.timeout(20):
        while run_id in map(str, await engine.database.run(stats.unsettled)):  # noqa: ASYNC110
            await asyncio.sleep(0.01)


# --- pause and resume -----------------------------------------------------------------------------


async def test_a_paused_run_takes_its_result_in_and_goes_on_when_it_is_resumed(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    document = graph(task("a", seconds=0.3), task("b"), edges=["t>a", "a>b"])
    run = await started(served, document, {})
    await asyncio.wait_for(engine.started.setdefault("a", asyncio.Event()).wait(), 20)
    answer = await control(served, run, "pause")
    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["paused"]) == ("waiting", True)
    assert answer.json()["paused_by"] == "key:test"
    await until_ended(served, run, "a")
    found = await told(served, run)
    assert (found["status"], found["paused"], found["steps"]) == ("waiting", True, {"completed": 2})
    assert (await control(served, run, "pause")).status_code == 200
    assert (await control(served, run, "resume")).json()["paused"] is False
    assert (await engine.until(run["id"])).status == "completed"
    kinds = [type(e) for e in await engine.entries(run["id"])]
    assert kinds.count(Paused) == kinds.count(Resumed) == kinds.count(Continued) == 1
    assert (await control(served, run, "resume")).status_code == 409
    assert (await control(served, run, "pause")).status_code == 409


async def until_ended(served: httpx.AsyncClient, run: dict[str, Any], node: str) -> None:
    async with asyncio.timeout(20):
        while True:
            steps = (await served.get(run["links"]["steps"], params={"node": node})).json()["data"]
            if steps and steps[0]["finished_at"]:
                return
            await asyncio.sleep(0.02)


async def test_a_delay_that_is_over_during_a_pause_ends_when_the_run_is_resumed(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    document = graph(delay("wait", "1h"), task("a"), edges=["t>wait", "wait>a"])
    run = await started(served, document, {})
    await engine.until(run["id"], "waiting")
    await control(served, run, "pause")
    await execute(
        engine.database, "update permaflow.timer set due_at = clock_timestamp() - interval '1 s'"
    )
    other = await started(served, graph(delay("wait", "10ms"), edges=["t>wait"]), {})
    await engine.until(other["id"])
    assert (await told(served, run))["status"] == "waiting"
    await control(served, run, "resume")
    assert (await engine.until(run["id"])).status == "completed"


async def test_a_pause_does_not_use_up_the_time_that_a_run_may_take(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    document = graph(delay("wait", "1h"), edges=["t>wait"], timeout_seconds=60)
    run = await started(served, document, {})
    await engine.until(run["id"], "waiting")
    before = await timers(engine)
    await control(served, run, "pause")
    held = "update permaflow.timer set held_at = held_at - interval '30 s'"
    await execute(engine.database, held)
    await control(served, run, "resume")
    await engine.until(run["id"], "waiting")
    after = await timers(engine)
    assert 30 <= after["run"] - before["run"] < 40
    (other,) = before.keys() - {"run"}
    assert after[other] == before[other]


async def timers(engine: Engine) -> dict[str, float]:
    async with engine.database.connection() as connection:
        cursor = await connection.execute(
            "select key, extract(epoch from due_at)::float8 from permaflow.timer"
        )
        return dict(await cursor.fetchall())


async def test_a_timer_that_is_armed_during_a_pause_is_held(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    retry = {"max_retries": 1, "initial_delay_ms": 1}
    document = graph(task("a", "retry", "done", seconds=0.2, retry=retry), edges=["t>a"])
    run = await started(served, document, {})
    await asyncio.wait_for(engine.started.setdefault("a", asyncio.Event()).wait(), 20)
    await control(served, run, "pause")
    other = await started(served, graph(delay("wait", "400ms"), edges=["t>wait"]), {})
    await engine.until(other["id"])
    assert len(engine.attempts) == 1
    assert (await told(served, run))["steps"] == {"completed": 1, "retrying": 1}
    await control(served, run, "resume")
    assert (await engine.until(run["id"])).status == "completed"


async def test_a_paused_run_is_cancelled_at_once(served: httpx.AsyncClient, engine: Engine) -> None:
    run = await started(served, graph(delay("wait"), edges=["t>wait"]), {})
    await engine.until(run["id"], "waiting")
    await control(served, run, "pause")
    assert (await control(served, run, "cancel")).status_code == 202
    found = await engine.until(run["id"])
    assert found.status == "cancelled"
    assert await timers(engine) == {}


async def test_a_run_that_is_advanced_all_the_time_can_be_paused(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    loop = {"items": "{{trigger.items}}", "concurrency": 4}
    document = graph(
        {"id": "each", "type": "logic_loop", "config": loop},
        {**task("inner", output="{{loop.item}}"), "parentId": "each"},
        edges=["t>each"],
    )
    run = await started(served, document, {"items": list(range(2_000))})
    await engine.until(run["id"], "running")
    for _ in range(5):
        assert (await control(served, run, "pause")).status_code == 200
        assert (await control(served, run, "resume")).status_code == 200
    assert (await engine.until(run["id"])).status == "completed"
    done = [attempt[1:] for attempt in engine.attempts]
    assert len(done) == len(set(done)) == 2_000


async def test_one_organisation_cannot_control_the_runs_of_another(
    served: httpx.AsyncClient, engine: Engine, other_org: Any
) -> None:
    run = await started(served, graph(delay("wait"), edges=["t>wait"]), {})
    await engine.until(run["id"], "waiting")
    _, text = await engine.database.run(keys.create, other_org, "test", ["admin"])
    headers = {"authorization": f"Bearer {text}"}
    for name in ("retry", "pause", "resume"):
        answer = await served.post(f"{RUNS}/{run['id']}/{name}", headers=headers)
        assert answer.status_code == 404


async def test_a_paused_run_outlives_the_engine(database_url: str, nats_url: str) -> None:
    async with AsyncExitStack() as stack:
        engine = await start_engine(database_url, nats_url, stack)
        document = graph(delay("wait"), task("a"), edges=["t>wait", "wait>a"])
        (run_id,) = await engine.start(await engine.workflow(document))
        await engine.until(run_id, "waiting")
        await engine.database.run(controls.pause, engine.org, run_id, "ann")
        await execute(
            engine.database,
            "update permaflow.timer set due_at = clock_timestamp() - interval '1 s'",
        )
    async with AsyncExitStack() as stack:
        engine = await start_engine(database_url, nats_url, stack)
        other = graph(delay("wait", "10ms"), edges=["t>wait"])
        await engine.finished(other)
        assert (await engine.database.run(runs.get, engine.org, run_id)).status == "waiting"
        # Nobody is told: the reconciler finds it.
        await engine.database.run(controls.resume, engine.org, run_id, "ann")
        assert (await engine.until(run_id)).status == "completed"
        assert [attempt[2] for attempt in engine.attempts] == ["a"]


# --- rerun ----------------------------------------------------------------------------------------


async def rerun(served: httpx.AsyncClient, run: dict[str, Any], **body: Any) -> httpx.Response:
    return await served.post(f"{RUNS}/{run['id']}/rerun", json=body)


async def test_a_run_is_rerun_from_a_step_with_other_data_and_keeps_what_came_before(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    large = "x" * 40_000
    document = graph(
        task("a", output=large),
        task("beside", output="{{trigger.n}}"),
        task("b", output={"n": "{{trigger.n}}", "a": "{{steps.a.output}}"}),
        task("c", output=["{{steps.beside.output}}", "{{steps.b.output.n}}"]),
        edges=["t>a", "t>beside", "a>b", "b>c", "beside>c"],
    )
    run = await started(served, document, {"n": 1})
    await engine.until(run["id"])
    engine.attempts.clear()
    answer = await rerun(served, run, **{"from": "b", "input": {"n": 2}})
    assert answer.status_code == 202
    again = answer.json()
    assert again["id"] != run["id"]
    await engine.until(again["id"])
    found = await told(served, again)
    assert (found["status"], found["output"]) == ("completed", [1, 2])
    assert (found["rerun_of"], found["trigger_data"], found["source"]) == (
        run["id"],
        {"n": 2},
        "rerun",
    )
    assert [attempt[2] for attempt in engine.attempts] == ["b", "c"]
    steps = (await served.get(again["links"]["steps"], params={"node": "a"})).json()["data"]
    value = await served.get(steps[0]["output"]["$ref"])
    assert value.json() == large


async def test_a_replay_does_everything_again_on_the_version_that_is_wanted(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    run = await started(served, graph(task("a", output="old"), edges=["t>a"]), {"n": 1})
    await engine.until(run["id"])
    path = f"/workflows/v1/definitions/{run['workflow_id']}"
    new = graph(task("b", output="new"), edges=["t>b"])
    assert (await served.put(path, json={"definition": new})).status_code == 200
    outputs = {}
    for version in ("same", "latest", 1):
        again = (await rerun(served, run, version=version)).json()
        await engine.until(again["id"])
        outputs[version] = (await told(served, again))["output"]
    assert outputs == {"same": "old", "latest": "new", 1: "old"}
    refused = await rerun(served, run, **{"from": "a", "version": "latest"})
    assert refused.status_code == 409
    assert "`a`, from which it is to begin, is not there." in refused.json()["detail"]
    assert (await rerun(served, run, **{"from": "nobody"})).status_code == 422
    assert (await rerun(served, run, version=9)).status_code == 404


async def test_the_same_key_reruns_once(served: httpx.AsyncClient, engine: Engine) -> None:
    run = await started(served, graph(task("a"), edges=["t>a"]), {})
    await engine.until(run["id"])
    path, headers = f"{RUNS}/{run['id']}/rerun", {"idempotency-key": "again"}
    first = await served.post(path, headers=headers)
    second = await served.post(path, headers=headers)
    assert (first.status_code, second.status_code) == (202, 200)
    assert first.json()["id"] == second.json()["id"]


async def test_a_key_of_another_request_reruns_nothing(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    one = await started(served, graph(task("a"), edges=["t>a"]), {"n": 1})
    begun = {"workflow_id": one["workflow_id"], "trigger_data": {"n": 1}}
    other = (await served.post(RUNS, json=begun)).json()
    for run in (one, other):
        await engine.until(run["id"])
    again, anew = {"idempotency-key": "again"}, {"idempotency-key": "anew"}

    async def ask(path: str, body: dict[str, Any], key: dict[str, str]) -> tuple[int, str]:
        answer = await served.post(f"{RUNS}{path}", json=body, headers=key)
        return answer.status_code, str(answer.json().get("code"))

    assert (await ask(f"/{one['id']}/rerun", {}, again))[0] == 202
    assert (await ask("", begun, anew))[0] == 202
    for path, body, key in (
        (f"/{other['id']}/rerun", {}, again),
        (f"/{one['id']}/rerun", {"input": {"n": 2}}, again),
        ("", begun, again),
        (f"/{one['id']}/rerun", {}, anew),
    ):
        assert await ask(path, body, key) == (422, "idempotency_key_reused"), (path, body)
    assert (await ask(f"/{one['id']}/rerun", {"input": {"n": 1}}, again))[0] == 200


async def test_a_loop_with_large_results_is_kept_as_a_whole(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    document = graph(
        {"id": "each", "type": "logic_loop", "config": {"items": "{{trigger.items}}"}},
        {**task("inner", output="{{loop.item}}"), "parentId": "each"},
        task("after", output="{{steps.each.output.count}}"),
        edges=["t>each", "each>after"],
    )
    run = await started(served, document, {"items": ["x" * 40_000, "y"]})
    await engine.until(run["id"])
    engine.attempts.clear()
    again = (await rerun(served, run, **{"from": "after"})).json()
    await engine.until(again["id"])
    assert (await told(served, again))["output"] == 2
    assert [attempt[2] for attempt in engine.attempts] == ["after"]


async def test_a_run_that_has_not_ended_is_not_rerun_from_a_step(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    run = await started(served, graph(delay("wait"), edges=["t>wait"]), {})
    await engine.until(run["id"], "waiting")
    assert (await rerun(served, run, **{"from": "wait"})).status_code == 409


# --- migration ------------------------------------------------------------------------------------


async def save_version(served: httpx.AsyncClient, run: dict[str, Any], document: Any) -> None:
    path = f"/workflows/v1/definitions/{run['workflow_id']}"
    assert (await served.put(path, json={"definition": document})).status_code == 200


async def test_a_waiting_run_goes_over_to_the_new_version(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    edges = ["t>a", "a>wait", "wait>z"]
    run = await started(served, graph(task("a"), delay("wait"), task("z"), edges=edges), {})
    await engine.until(run["id"], "waiting")
    new = graph(
        task("a"),
        delay("wait"),
        task("z", output="new"),
        task("beside"),
        edges=[*edges, "a>beside"],
    )
    await save_version(served, run, new)
    dry = await served.post(f"{RUNS}/{run['id']}/migrate", json={"dry_run": True})
    assert (dry.status_code, dry.json()["version"]) == (200, 1)
    answer = await control(served, run, "migrate")
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    await until_ended(served, run, "beside")
    await execute(engine.database, "update permaflow.timer set due_at = clock_timestamp()")
    await engine.until(run["id"], "completed")
    steps = (await served.get(run["links"]["steps"], params={"node": "z"})).json()["data"]
    assert steps[0]["output"] == "new"
    assert [attempt[2] for attempt in engine.attempts] == ["a", "beside", "z"]


async def test_the_time_of_a_run_begins_when_it_goes_over_to_a_version_that_limits_it(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    run = await started(served, graph(delay("wait"), edges=["t>wait"]), {})
    await engine.until(run["id"], "waiting")
    await save_version(served, run, graph(delay("wait"), edges=["t>wait"], timeout_seconds=1))
    assert (await control(served, run, "migrate")).status_code == 200
    assert (await engine.until(run["id"])).status == "timed_out"


async def test_a_run_that_does_not_fit_says_why_and_stays_as_it_is(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    run = await started(served, graph(task("a"), delay("wait"), edges=["t>a", "a>wait"]), {})
    await engine.until(run["id"], "waiting")
    await save_version(served, run, graph(delay("wait"), edges=["t>wait"]))
    answer = await control(served, run, "migrate")
    assert (answer.status_code, answer.json()["code"]) == (409, "does_not_fit")
    assert [each["message"] for each in answer.json()["errors"]] == [
        "`a` has ended, and is not there any more.",
        "`wait` is under way, and is changed: what it waits for.",
    ]
    assert (await told(served, run))["version"] == 1


async def test_the_open_runs_of_a_workflow_go_over_those_that_can(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    document = graph(
        {
            "id": "way",
            "type": "logic_condition",
            "config": {"condition": {"field": "trigger.n", "op": "gt", "value": 1}},
        },
        delay("early"),
        delay("late"),
        task("z"),
        edges=["t>way", "way:true>early", "way:false>late", "late>z"],
    )
    first = await started(served, document, {"n": 1})
    runs_of = [first]
    for n in (1, 2, 2):
        body = {"workflow_id": first["workflow_id"], "trigger_data": {"n": n}}
        runs_of.append((await served.post(RUNS, json=body)).json())
    for run in runs_of:
        await engine.until(run["id"], "waiting")
    document["nodes"][2] = delay("early", "2h")
    await save_version(served, first, document)
    path = f"/workflows/v1/definitions/{first['workflow_id']}/migrate-runs"
    for dry in (True, False):
        found = (await served.post(path, json={"dry_run": dry})).json()
        assert (found["version"], found["checked"], found["migrated"]) == (2, 4, 2)
        assert {each["run_id"] for each in found["refused"]} == {r["id"] for r in runs_of[2:]}
        assert found["refused"][0]["reasons"] == [
            "`early` is under way, and is changed: what it does."
        ]
    versions = [(await told(served, run))["version"] for run in runs_of]
    assert versions == [2, 2, 1, 1]
    assert (await served.post(path, json={"from": 7})).json()["checked"] == 0


async def test_the_runs_of_a_workflow_go_over_bit_by_bit_and_off_the_loop(
    served: httpx.AsyncClient, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: set[str] = set()

    def watched(*args: Any) -> Any:
        threads.add(threading.current_thread().name)
        return folded(*args)

    monkeypatch.setattr("pipeline.gateway.histories.folded", watched)
    document = graph(delay("wait"), edges=["t>wait"])
    first = await started(served, document, {})
    runs_of = [first]
    for _ in range(2):
        body = {"workflow_id": first["workflow_id"], "trigger_data": {}}
        runs_of.append((await served.post(RUNS, json=body)).json())
    for run in runs_of:
        await engine.until(run["id"], "waiting")
    await save_version(served, first, graph(delay("wait", "2h"), edges=["t>wait"]))
    path = f"/workflows/v1/definitions/{first['workflow_id']}/migrate-runs"
    # None of them fits, and each is looked at once all the same.
    hours = itertools.count(step=3600.0)
    for name, value in (("MOST_AT_ONCE", 1), ("monotonic", lambda: next(hours))):
        monkeypatch.setattr(f"pipeline.gateway.migrations.{name}", value)
        seen: list[str] = []
        body = {}
        for _ in range(5):
            told_of = (await served.post(path, json=body)).json()
            seen += [each["run_id"] for each in told_of["refused"]]
            if not told_of["has_more"]:
                break
            assert told_of["checked"] == 1
            body = {"before": told_of["next_before"]}
        assert (told_of["has_more"], told_of["next_before"]) == (False, None)
        assert seen == [run["id"] for run in reversed(runs_of)]
        monkeypatch.setattr("pipeline.gateway.migrations.MOST_AT_ONCE", 500)
    assert threads
    assert threading.main_thread().name not in threads


async def test_a_run_that_has_ended_does_not_go_over(
    served: httpx.AsyncClient, engine: Engine
) -> None:
    run = await started(served, graph(task("a"), edges=["t>a"]), {})
    await engine.until(run["id"])
    await save_version(served, run, graph(task("b"), edges=["t>b"]))
    assert (await control(served, run, "migrate")).status_code == 409
    waiting = await started(served, graph(delay("wait"), edges=["t>wait"]), {})
    await engine.until(waiting["id"], "waiting")
    answer = await served.post(f"{RUNS}/{waiting['id']}/migrate", json={"version": 9})
    assert answer.status_code == 404
