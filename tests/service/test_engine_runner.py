"""What tasks may do to a runner, and what a runner makes of it."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any
from uuid import UUID

import orjson
import pytest
from structlog.testing import capture_logs

from permaflow.errors import NotFoundError, StoreUnavailableError
from permaflow.task import Done, Reject, Retry, TaskType
from permaflow.task_types import TaskTypeRegistry
from pipeline import runner, runner_services, telemetry
from pipeline.bus.port import Message
from pipeline.bus.subjects import step as step_subject
from pipeline.core.entries import Failed, Retrying, Succeeded
from pipeline.ids import new_id
from pipeline.runner import Runner
from pipeline.settings import load_settings
from pipeline.store import leases, runs
from pipeline.wire import Dispatch, Dispatches, Stopped, encode
from specs.dialects import compile_document
from tests.fix_engine import WITHIN, Engine, Script, graph, start_engine, task
from tests.service.test_orchestrator import Letter


async def cancelled(_config: Script, _ctx: Any) -> Done:
    child = asyncio.ensure_future(asyncio.sleep(60))
    child.cancel()
    await child
    return Done()


async def nothing(_config: Script, _ctx: Any) -> None:
    return None


async def leave(_config: Script, _ctx: Any) -> None:
    raise SystemExit(3)


async def told_badly(_config: Script, _ctx: Any) -> Retry:
    return Retry(ValueError("no text"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (nothing, "bad_verdict"),
        (cancelled, "crashed"),
        (leave, "crashed"),
        (told_badly, "crashed"),
    ],
)
async def test_a_task_that_breaks_its_promise_fails_its_step(
    engine: Engine, run: Any, code: str
) -> None:
    engine.types.add(TaskType("test_bad", "code", Script, Script, run))
    node = {"id": "a", "type": "test_bad", "config": {}}
    _, entries = await engine.finished(graph(node, edges=["t>a"]))
    assert [entry.code for entry in entries if isinstance(entry, Failed)] == [code]


class Marked(str):
    """What libraries give back for text: Markup, NavigableString, numpy.str_."""


class Ten(int):
    """A number with a meaning."""


async def test_kinds_of_text_and_of_numbers_are_carried_as_what_they_are(engine: Engine) -> None:
    async def run(config: Script, _ctx: Any) -> Done | Reject:
        if config.output == "fail":
            said = Marked("sold out")
            return Reject(said, code=Marked("none_left"), details={"left": Ten(10)})
        return Done({"text": Marked("a"), "large": [Marked("b" * 40_000)], "n": Ten(10)})

    engine.types.add(TaskType("test_kinds", "code", Script, Script, run))
    node = {"id": "a", "type": "test_kinds", "config": {}}
    ended, entries = await engine.finished(graph(node, edges=["t>a"]))
    assert ended.status == "completed"
    fails = node | {"config": {"output": "fail"}}
    ended, entries = await engine.finished(graph(fails, edges=["t>a"]))
    [failed] = [entry for entry in entries if isinstance(entry, Failed)]
    assert (failed.code, failed.message) == ("none_left", "sold out")
    assert failed.details == {"left": 10}


async def test_an_error_of_ours_after_a_task_fails_its_step(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_value: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(runner, "fault_of", broken)
    node = {"id": "a", "type": "test_script", "config": {"output": 1}}
    ended, _ = await engine.finished(graph(node, edges=["t>a"]))
    assert orjson.loads(ended.error or b"")["code"] == "crashed"


class Touchy:
    """A schema that is wrong itself."""

    @staticmethod
    def model_validate(value: Any) -> Any:
        return value["x"] if isinstance(value["x"], str) else value["x"] + "1"

    @staticmethod
    def model_json_schema(**_: object) -> dict[str, object]:
        return {}


async def test_a_schema_that_raises_something_else_fails_the_step(engine: Engine) -> None:
    engine.types.add(TaskType("test_touchy", "code", Touchy, Script, nothing))
    node = {"id": "a", "type": "test_touchy", "config": {"x": "{{trigger}}"}}
    run, _ = await engine.finished(graph(node, edges=["t>a"]), 1)
    assert orjson.loads(run.error or b"")["code"] == "crashed"


async def test_a_schema_that_raises_something_else_is_a_problem_of_the_document(
    engine: Engine,
) -> None:
    engine.types.add(TaskType("test_touchy", "code", Touchy, Script, nothing))
    node = {"id": "a", "type": "test_touchy", "config": {"x": 1}}
    compiled = compile_document(graph(node, edges=["t>a"]), engine.types)
    assert [problem.pointer for problem in compiled.problems] == ["/nodes/1/config"]


async def test_many_large_outputs_at_once_are_carried(engine: Engine) -> None:
    arrived = 0
    gate = asyncio.Event()

    async def run(config: Script, ctx: Any) -> Done:
        nonlocal arrived
        arrived += 1
        if arrived == 60:
            gate.set()
        await gate.wait()
        return Done("x" * 30_000)

    engine.types.add(TaskType("test_large", "code", Script, Script, run))
    loop = {"items": "{{trigger}}", "mode": "parallel", "concurrency": 60}
    document = graph(
        {"id": "each", "type": "logic_loop", "config": loop},
        {"id": "body", "type": "test_large", "config": {}, "parentId": "each"},
        edges=["t>each"],
    )
    run_, entries = await engine.finished(document, list(range(60)))
    assert run_.status == "completed"
    assert sum(isinstance(e, Succeeded) and e.node == "body" for e in entries) == 60
    assert arrived == 60


async def test_an_output_waits_for_a_store_that_is_away(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, away = runner_services._Store.put_payload, iter(range(3))

    async def put_payload(self: Any, *values: Any) -> None:
        if next(away, None) is not None:
            raise StoreUnavailableError
        await put(self, *values)

    monkeypatch.setattr(runner_services._Store, "put_payload", put_payload)
    run, entries = await engine.finished(graph(task("a", output="x" * 50_000), edges=["t>a"]))
    assert run.status == "completed"
    assert not [entry for entry in entries if isinstance(entry, Retrying)]


async def test_a_task_type_that_is_not_here_yet_is_waited_for(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, missing = engine.types.get, iter(range(2))

    def without(name: str) -> TaskType:
        if next(missing, None) is not None:
            raise NotFoundError
        return get(name)

    workflow_id = await engine.workflow(graph(task("a"), edges=["t>a"]))
    monkeypatch.setattr(runner, "_ELSEWHERE", runner.timedelta(seconds=0.1))
    monkeypatch.setattr(Runner, "_sound", lambda self, name: _sound(without, name))
    (run_id,) = await engine.start(workflow_id)
    assert (await engine.until(run_id)).status == "completed"


async def test_only_so_many_steps_that_are_not_known_here_are_held_beside_the_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than that take the places of steps, so a runner never holds a whole backlog of them."""
    held: list[int] = []
    pass_on = Runner._pass_on

    async def watched(self: Runner, *of: Any) -> None:
        held.append(self._passing + 1)
        if len(held) == 2 * most:
            enough.set()
        await pass_on(self, *of)

    known, enough = asyncio.Event(), asyncio.Event()
    monkeypatch.setattr(runner, "_ELSEWHERE", runner.timedelta(seconds=0.5))
    monkeypatch.setattr(runner, "_PASSING", 5)
    monkeypatch.setattr(Runner, "_pass_on", watched)
    monkeypatch.setattr(Runner, "_sound", lambda self, name: known.is_set())
    most = 5 + engine.settings.concurrency
    workflow_id = await engine.workflow(graph(task("a"), edges=["t>a"]))
    ids = await engine.start(workflow_id, count=3 * most)
    await asyncio.wait_for(enough.wait(), WITHIN)
    known.set()
    for run_id in ids:
        assert (await engine.until(run_id)).status == "completed"
    assert max(held) == most


def _sound(get: Any, name: str) -> bool:
    try:
        get(name)
    except NotFoundError:
        return False
    return True


async def test_a_step_that_is_served_elsewhere_is_left_to_others(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even where a runner serves its stage. After a while it is served here, so the run ends."""
    local = TaskType("test_elsewhere", "code", Script, Script, engine.run_task)
    engine.types.add(local)
    node = {"id": "a", "type": local.name, "config": {}}
    workflow_id = await engine.workflow(graph(node, edges=["t>a"]))
    get, remote = engine.types.get, iter(range(4))

    def look(name: str) -> TaskType:
        elsewhere = name == local.name and next(remote, None) is not None
        return replace(local, remote=True) if elsewhere else get(name)

    monkeypatch.setattr(runner, "_ELSEWHERE", runner.timedelta(seconds=0.1))
    monkeypatch.setattr(engine.types, "get", look)
    (run_id,) = await engine.start(workflow_id)
    assert (await engine.until(run_id)).status == "completed"
    assert next(remote, None) is None


async def test_a_step_that_ignores_its_timeout_is_ended_all_the_same(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LEASE_AFTER", 0.1)
    monkeypatch.setattr(runner, "LEASE_EVERY", 1.0)
    enough = asyncio.Event()

    async def run(_config: Script, _ctx: Any) -> Done:
        while not enough.is_set():
            try:
                await enough.wait()
            except asyncio.CancelledError:
                continue
        return Done()

    engine.types.add(TaskType("test_deaf", "code", Script, Script, run))
    node = {"id": "a", "type": "test_deaf", "config": {}, "timeout_seconds": 0.2}
    ended, _ = await engine.finished(graph(node, edges=["t>a"]))
    enough.set()
    assert orjson.loads(ended.error or b"")["code"] == "timeout"


async def test_a_result_does_not_wait_until_its_lease_is_given_back(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "LEASE_AFTER", 0.1)
    held, asked, enough = asyncio.Event(), asyncio.Event(), asyncio.Event()
    renew, drop = leases.renew, leases.drop

    async def renewed(*args: Any, **kwargs: Any) -> set[tuple[UUID, str]]:
        taken = await renew(*args, **kwargs)
        held.set()
        return taken

    async def slow(*args: Any, **kwargs: Any) -> None:
        asked.set()
        await enough.wait()
        await drop(*args, **kwargs)

    times = 0

    async def run(_config: Script, _ctx: Any) -> Done:
        nonlocal times
        times += 1
        await held.wait()
        return Done()

    monkeypatch.setattr(leases, "renew", renewed)
    monkeypatch.setattr(leases, "drop", slow)
    engine.types.add(TaskType("test_held", "code", Script, Script, run))
    node = {"id": "a", "type": "test_held", "config": {}}
    ended, _ = await engine.finished(graph(node, edges=["t>a"]))
    assert (ended.status, times) == ("completed", 1)
    async with asyncio.timeout(5):
        await asked.wait()
    enough.set()


@pytest.mark.parametrize(
    ("level", "told"), [("debug", ["step.started", "step.finished"]), ("info", [])]
)
async def test_a_step_is_counted_while_it_is_in_work_and_told_where_everything_is(
    database_url: str, nats_url: str, level: str, told: list[str]
) -> None:
    begun, enough = asyncio.Event(), asyncio.Event()

    async def run(_config: Script, _ctx: Any) -> Done:
        begun.set()
        await enough.wait()
        return Done()

    def in_work() -> float | None:
        return telemetry.METRICS.get_sample_value("permaflow_stage_in_work", {"stage": "code"})

    async with AsyncExitStack() as stack:
        engine = await start_engine(database_url, nats_url, stack, log_level=level)
        engine.types.add(TaskType("test_slow", "code", Script, Script, run))
        node = {"id": "a", "type": "test_slow", "config": {}}
        with capture_logs() as lines:
            (run_id,) = await engine.start(await engine.workflow(graph(node, edges=["t>a"])))
            async with asyncio.timeout(20):
                await begun.wait()
            assert in_work() == 1.0
            enough.set()
            assert (await engine.until(run_id)).status == "completed"
        assert in_work() == 0.0
        events = [line for line in lines if line["event"].startswith("step.")]
        assert [line["event"] for line in events] == told
        for line in events:
            assert (line["run_id"], line["node"], line["attempt"]) == (str(run_id), "a", 1)


class _Once:
    """A subscription to one message; `then` is called once it has been taken."""

    def __init__(self, message: Any, then: Any) -> None:
        self._messages = [message]
        self._then = then

    async def batch(self) -> list[Message]:
        if self._messages:
            return [self._messages.pop()]
        self._then()
        return []

    def release(self, count: int = 1) -> None: ...


async def test_a_step_that_no_runner_survives_fails_in_the_end(engine: Engine) -> None:
    workflow_id = await engine.workflow(graph(task("a", seconds=30), edges=["t>a"]))
    first, second = await engine.start(workflow_id, count=2)
    for run_id in (first, second):
        await engine.until(run_id, "running")
    engine.started["a"] = started = asyncio.Event()
    async with asyncio.timeout(10):
        while len(engine.attempts) < 2:
            await started.wait()
            started.clear()
    dispatches = [Dispatch(id_, "", "a", 1, "test_script", {}, 30.0) for id_ in (first, second)]
    settings = load_settings()
    vertex = Runner(engine.bus, engine.types, None, None, settings, [], print)  # type: ignore[arg-type]
    for steps in ([dispatches[0]], dispatches):
        letter = Letter(deliveries=10)
        letter.subject = step_subject("code", engine.org.hex)
        letter.data = encode(Dispatches(engine.org.hex, steps))
        await vertex._read("code", _Once(letter, lambda: None))  # type: ignore[arg-type]
        async with asyncio.timeout(5):
            assert await letter.end == "ack"
    ended = await engine.until(first)
    assert orjson.loads(ended.error or b"")["code"] == "runner_lost"
    assert (await engine.database.run(runs.get, engine.org, second)).status == "running"
    await engine.cancel(second)
    assert (await engine.until(second)).status == "cancelled"


async def test_a_step_that_is_cancelled_before_its_first_turn_is_through() -> None:
    types = TaskTypeRegistry()
    types.add(TaskType("test_never", "code", Script, Script, leave))
    run_id = new_id()
    letter = Letter()
    letter.data = encode(
        Dispatches(new_id().hex, [Dispatch(run_id, "", "a", 1, "test_never", {}, 5.0)])
    )
    stopped = encode(Stopped([(run_id, "", "a", 1)]))
    vertex = Runner(None, types, None, None, load_settings(), [], print)  # type: ignore[arg-type]
    await vertex._read("code", _Once(letter, lambda: vertex._cancel("", stopped)))  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        assert await letter.end == "ack"
