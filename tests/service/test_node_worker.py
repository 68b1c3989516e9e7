"""A worker in Node serves task types over NATS; the rest of the engine is the real one."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from structlog.testing import capture_logs

from permaflow.declare import remote_task_type
from permaflow.plan import Json
from pipeline.bus.subjects import HELD, STEPS, inbox, partition_of
from pipeline.clock import Clock
from pipeline.core.entries import Entry, Failed, Logged, Parked, Retrying, Succeeded
from pipeline.gateway.server import Gateway
from pipeline.ops import Ops
from pipeline.store import keys
from pipeline.store.database import Database
from pipeline.wire import Held, StepDone, decode_held, decode_inbox, encode
from specs.durations import LONGEST_SECONDS
from tests.fix_engine import Engine, graph
from tests.fix_node import EXAMPLE, StartNode

pytestmark = pytest.mark.service

PROBES = ("echo", "log", "port", "retry", "reject", "park", "unsuccessful", "bug", "unfit", "wait")


@pytest.fixture
def probes(engine: Engine) -> Engine:
    """The engine, which knows what the probe serves and cannot do it itself."""
    for name in PROBES:
        schema = {"type": "object"}
        engine.types.add(remote_task_type(f"probe/{name}", stage="node", config=schema))
    return engine


def probe(name: str, config: Json = None, **more: Json) -> dict[str, Any]:
    return {"id": name, "type": f"probe/{name}", "config": config or {}, **more}


def outputs(entries: Sequence[Entry]) -> dict[str, Any]:
    """What the steps gave back, without the trigger."""
    return {e.node: e.output for e in entries if isinstance(e, Succeeded) and e.node != "t"}


async def test_a_step_is_done_by_a_worker_in_node(probes: Engine, node_worker: StartNode) -> None:
    await node_worker("node_probe.mjs")
    config = {
        "text": "a {{trigger.word}} ü",
        "big": "{{trigger.big}}",
        "list": [1, 2.5, True, None],
        "number": 2**40,
    }
    document = graph(probe("echo", config), edges=["t>echo"])
    run, entries = await probes.finished(document, {"word": "word", "big": 2**60 + 1})
    assert run.status == "completed"
    assert outputs(entries) == {
        "echo": {
            "given": {**config, "text": "a word ü", "big": 2**60 + 1},
            "key": f"{run.id}::echo",
            "attempt": 1,
        }
    }


async def test_results_are_told_to_the_partition_of_their_run(
    probes: Engine, node_worker: StartNode
) -> None:
    await node_worker("node_probe.mjs")
    told: list[tuple[str, UUID]] = []

    def hear(subject: str, data: bytes) -> None:
        told.extend((subject, e.run_id) for e in decode_inbox(data).events if is_done(e))

    await probes.bus.listen("pf.inbox.*.*", hear)
    workflow = await probes.workflow(graph(probe("echo"), edges=["t>echo"]))
    run_ids = await probes.start(workflow, count=4)
    for run_id in run_ids:
        await probes.until(run_id)
    assert set(told) == {(inbox(partition_of(r), probes.org.hex), r) for r in run_ids}


def is_done(event: object) -> bool:
    return isinstance(event, StepDone)


async def test_what_a_step_writes_is_kept_with_it(probes: Engine, node_worker: StartNode) -> None:
    await node_worker("node_probe.mjs")
    _, entries = await probes.finished(graph(probe("log"), edges=["t>log"]))
    (logged,) = [entry for entry in entries if isinstance(entry, Logged)]
    assert (logged.node, logged.lines) == ("log", ["half way"])


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("reject", "refused", "never"),
        ("unsuccessful", "step_failed", "no credit"),
        ("bug", "crashed", "ReferenceError: undefinedName is not defined"),
        ("unfit", "bad_output", "The output cannot be carried: text must not hold NUL characters"),
    ],
)
async def test_a_failure_is_told_with_its_code_and_its_reason(
    probes: Engine, node_worker: StartNode, name: str, code: str, message: str
) -> None:
    await node_worker("node_probe.mjs")
    run, entries = await probes.finished(graph(probe(name), edges=[f"t>{name}"]))
    assert run.status == "failed"
    (failed,) = [entry for entry in entries if isinstance(entry, Failed)]
    assert (failed.code, failed.message) == (code, message)


async def test_a_retry_and_a_park_lead_to_another_attempt_and_the_same_one(
    probes: Engine, node_worker: StartNode
) -> None:
    await node_worker("node_probe.mjs")
    again = {"max_retries": 1, "initial_delay_ms": 1}
    document = graph(probe("retry", retry=again), probe("park"), edges=["t>retry", "retry>park"])
    run, entries = await probes.finished(document)
    assert run.status == "completed"
    (retrying,) = [entry for entry in entries if isinstance(entry, Retrying)]
    assert retrying.code == "busy"
    assert [type(entry) for entry in entries if entry.__class__ is Parked] == [Parked]
    assert outputs(entries) == {"retry": {"attempt": 2}, "park": {"seen": 2}}


async def test_an_output_may_name_the_way_out(probes: Engine, node_worker: StartNode) -> None:
    await node_worker("node_probe.mjs")
    document = graph(
        probe("port", ports=["left", "right"]),
        {"id": "l", "type": "logic_parallel"},
        {"id": "r", "type": "logic_parallel"},
        edges=["t>port", "port:left>l", "port:right>r"],
    )
    _, entries = await probes.finished(document)
    assert outputs(entries)["port"] == {"here": True}
    assert "l" in outputs(entries)
    assert "r" not in outputs(entries)


async def test_a_step_that_takes_too_long_is_aborted_and_times_out(
    probes: Engine, node_worker: StartNode
) -> None:
    worker = await node_worker("node_probe.mjs")
    document = graph(probe("wait", {"ms": 60_000}, timeout_seconds=0.3), edges=["t>wait"])
    _, entries = await probes.finished(document)
    (failed,) = [entry for entry in entries if isinstance(entry, Failed)]
    assert (failed.code, failed.timed_out) == ("timeout", True)
    assert await worker.said("aborted wait: It took longer than its 0.3 seconds.")


async def test_a_cancelled_run_stops_its_step(probes: Engine, node_worker: StartNode) -> None:
    worker = await node_worker("node_probe.mjs")
    document = graph(probe("wait", {"ms": 60_000}), edges=["t>wait"])
    (run_id,) = await probes.start(await probes.workflow(document))
    await worker.said("began wait")
    await probes.cancel(run_id)
    assert (await probes.until(run_id)).status == "cancelled"
    assert await worker.said("aborted wait: The step is no longer wanted.")


async def test_a_long_step_is_held_and_done_once(probes: Engine, node_worker: StartNode) -> None:
    """Longer than the wait for an ack and than the patience of the reconciler."""
    workers = [await node_worker("node_probe.mjs") for _ in range(2)]
    told: list[Held] = []
    released = asyncio.Event()

    def hear(_subject: str, data: bytes) -> None:
        told.append(decode_held(data))
        if told[-1].released:
            released.set()

    await probes.bus.listen(HELD, hear)
    document = graph(probe("wait", {"ms": 7_000}), edges=["t>wait"])
    (run_id,) = await probes.start(await probes.workflow(document))
    began = [asyncio.create_task(worker.said("began wait")) for worker in workers]
    assert (await probes.until(run_id)).status == "completed"
    assert sum(task.done() for task in began) == 1
    for task in began:
        task.cancel()
    await asyncio.wait_for(released.wait(), 5)
    assert told[0].held[0][:4] == (run_id, "", "wait", 1)
    assert told[-1].released == [(run_id, "", "wait", 1)]


async def test_the_word_of_a_worker_makes_a_lease_and_ends_it(probes: Engine) -> None:
    """Of the clock, which hears it; a run that is leased is not taken for lost."""
    document = graph(probe("wait"), edges=["t>wait"])
    (run_id,) = await probes.start(await probes.workflow(document))
    org = probes.org
    clock = Clock(probes.bus, probes.database, probes.settings)
    await clock._hold(HELD, encode(Held("w", org, [(run_id, "", "wait", 1, 60.0)])))
    assert await leases_of(probes, run_id) == [("/wait", 1, "w")]
    await clock._hold(HELD, encode(Held("w", org, [], [(run_id, "", "wait", 1)])))
    assert await leases_of(probes, run_id) == []
    await clock._hold(HELD, b"nonsense")


@pytest.mark.parametrize("left", [1e300, -1e300, 1e12, float("inf"), float("nan")])
async def test_a_word_that_cannot_be_meant_is_refused_and_said_and_the_others_count(
    probes: Engine, left: float
) -> None:
    document = graph(probe("wait"), edges=["t>wait"])
    (run_id,) = await probes.start(await probes.workflow(document))
    clock = Clock(probes.bus, probes.database, probes.settings)
    held = [(run_id, "", "other", 1, left), (run_id, "", "wait", 1, LONGEST_SECONDS)]
    with capture_logs() as lines:
        await clock._hold(HELD, encode(Held("w", probes.org, held)))
    assert await leases_of(probes, run_id) == [("/wait", 1, "w")]
    [said] = [line for line in lines if line["event"] == "hold.refused"]
    assert (said["holder"], said["step"]) == ("w", "/other")
    assert "until its timeout" in said["reason"]


async def leases_of(engine: Engine, run_id: UUID) -> list[tuple[str, int, str]]:
    async def look(connection: Any) -> Any:
        query = "select step, attempt, holder from permaflow.lease where run_id = %s"
        return await (await connection.execute(query, [run_id])).fetchall()

    return list(await engine.database.run(look))


async def test_what_a_killed_worker_was_at_is_done_by_another(
    probes: Engine, node_worker: StartNode
) -> None:
    worker = await node_worker("node_probe.mjs")
    document = graph(probe("wait", {"ms": 500}), edges=["t>wait"])
    (run_id,) = await probes.start(await probes.workflow(document))
    await worker.said("began wait")
    worker.kill()
    await node_worker("node_probe.mjs")
    assert (await probes.until(run_id)).status == "completed"


async def test_a_worker_goes_on_after_the_server_was_wiped(
    probes: Engine, node_worker: StartNode
) -> None:
    worker = await node_worker("node_probe.mjs")
    document = graph(probe("wait", {"ms": 1}), edges=["t>wait"])
    workflow = await probes.workflow(document)
    await probes.until((await probes.start(workflow))[0])
    await worker.said("began wait")
    async with probes.bus.streams._manager() as manager:
        await manager.delete_consumer(STEPS, "stage-node")
    (run_id,) = await probes.start(workflow)
    assert (await probes.until(run_id)).status == "completed"


async def test_a_worker_that_is_told_to_stop_finishes_what_it_is_at(
    probes: Engine, node_worker: StartNode
) -> None:
    worker = await node_worker("node_probe.mjs")
    document = graph(probe("wait", {"ms": 500}), edges=["t>wait"])
    (run_id,) = await probes.start(await probes.workflow(document))
    await worker.said("began wait")
    assert await worker.stop() == 0
    run = await probes.until(run_id)
    assert run.status == "completed"
    assert outputs(await probes.entries(run_id)) == {"wait": {"waited": 500}}


async def test_a_config_that_node_cannot_hold_fails_its_step(
    probes: Engine, node_worker: StartNode
) -> None:
    await node_worker("node_probe.mjs")
    config = {"a": {"__proto__": 1}, "b": "__proto__"}
    _, entries = await probes.finished(graph(probe("echo", config), edges=["t>echo"]))
    (failed,) = [entry for entry in entries if isinstance(entry, Failed)]
    assert failed.code == "invalid_config"


async def test_the_example_of_the_guide_runs(
    engine: Engine, node_worker: StartNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A document is checked against the types that Python declares, and Node does them."""
    module = load(EXAMPLE / "intl_types.py", monkeypatch)
    for each in module.task_types:
        engine.types.add(each)
    await node_worker("worker.mjs")
    document = json.loads((EXAMPLE / "receipt.json").read_text(encoding="utf-8"))
    run, entries = await engine.finished(
        document["definition"], {"total": 1234.5, "at": "2026-03-01T12:00:00Z"}
    )
    assert run.status == "completed"
    texts = {node: outputs(entries)[node]["text"] for node in ("amount", "moment")}
    assert texts == {
        "amount": "1.234,50\u00a0€",
        "moment": "1. März 2026 um 13:00",
    }
    found = engine.types.config_problems("intl/format", {"kind": "money"})
    assert {problem.pointer for problem in found} == {"/value", "/currency"}


def load(path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, path.stem, module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
async def api(engine: Engine) -> AsyncIterator[dict[str, str]]:
    """A gateway over the same store, and a key that may read runs."""
    url = engine.settings.database_url
    async with Database(url, role="permaflow_gateway") as database:
        settings = engine.settings.model_copy(update={"http_port": 0})
        gateway = Gateway(engine.bus, database, engine.types, settings, Ops({}))
        serving = asyncio.create_task(gateway.run())
        _, key = await engine.database.run(keys.create, engine.org, "worker", ["runs:read"])
        yield {
            "PERMAFLOW_API_URL": f"http://127.0.0.1:{gateway.port}",
            "PERMAFLOW_API_KEY": key,
        }
        await gateway.stop()
        await asyncio.wait_for(serving, 20)


async def test_a_config_too_large_for_a_message_is_read_from_the_gateway(
    probes: Engine, node_worker: StartNode, api: dict[str, str]
) -> None:
    await node_worker("node_probe.mjs", **api)
    text = "a" * (probes.settings.max_dispatch_bytes + 1)
    document = graph(probe("echo", {"text": "{{trigger.text}}"}), edges=["t>echo"])
    run, entries = await probes.finished(document, {"text": text})
    assert run.status == "completed"
    (given,) = outputs(entries).values()
    assert given["given"] == {"text": text}


async def test_without_a_gateway_such_a_config_fails_its_step(
    probes: Engine, node_worker: StartNode
) -> None:
    await node_worker("node_probe.mjs")
    text = "a" * (probes.settings.max_dispatch_bytes + 1)
    document = graph(probe("echo", {"text": "{{trigger.text}}"}), edges=["t>echo"])
    _, entries = await probes.finished(document, {"text": text})
    (failed,) = [entry for entry in entries if isinstance(entry, Failed)]
    assert "no gateway" in failed.message
