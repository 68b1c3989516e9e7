"""The limits of what runs: outputs, items, visits, steps; and hostile results of tasks."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any, cast
from uuid import UUID, uuid4

import orjson
import pytest
from pydantic import BaseModel

from permaflow.plan import Constant, Loop, Node, Plan, Ref, Task, Trigger
from permaflow.task import Done, Park, Reject, Retry, TaskType
from pipeline.core.decide import decide
from pipeline.core.entries import Dispatched, Entry, Failed, Finished, Jumped, LoopOpened, Succeeded
from pipeline.core.events import Woken
from pipeline.core.program import Program
from pipeline.core.state import Run
from pipeline.settings import load_settings
from pipeline.store import payloads
from specs.dialects import compile_document
from specs.limits import Limits
from tests.fix_engine import Engine, graph, start_engine, task

OUTPUT = 16_000_000
INLINE = 32_000
ITEMS = 100_000
VISITS = 100
STEPS = 1_000_000
AROUND = [-1, 0, 1]


def code_of(entries: list[Entry]) -> str:
    (end,) = [entry for entry in entries if isinstance(entry, Finished)]
    return end.code


class Nothing(BaseModel):
    """No config."""


def gives(engine: Engine, *results: Any) -> dict[str, Any]:
    """A node whose task gives these results, attempt by attempt; exceptions are raised."""

    async def run(_config: Nothing, ctx: Any) -> Any:
        result = results[min(ctx.attempt, len(results)) - 1]
        if isinstance(result, Exception):
            raise result
        return result

    engine.types.add(TaskType("test_gives", "code", Nothing, Nothing, run))
    return {"id": "a", "type": "test_gives", "config": {}}


# --- outputs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", AROUND)
async def test_an_output_has_16_megabytes_at_most(engine: Engine, over: int) -> None:
    node = gives(engine, Done("x" * (OUTPUT + over - 2)))
    run, entries = await engine.finished(graph(node, edges=["t>a"]))
    if over <= 0:
        assert run.status == "completed"
        (done,) = [e for e in entries if isinstance(e, Succeeded) and e.node == "a"]
        assert done.output is None
        ref = UUID(cast(str, done.ref))
        stored = await engine.database.run(payloads.get, [ref])
        assert len(stored[ref]) == OUTPUT + over
    else:
        assert run.status == "failed"
        assert code_of(entries) == "limit_exceeded"
        assert "16,000,001 bytes; at most 16,000,000" in str(orjson.loads(run.error or b""))


@pytest.mark.parametrize("over", AROUND)
async def test_an_output_above_32_kilobytes_goes_by_reference(engine: Engine, over: int) -> None:
    node = gives(engine, Done("x" * (INLINE + over - 3)))  # MessagePack puts 3 bytes before it
    run, entries = await engine.finished(graph(node, edges=["t>a"]))
    assert run.status == "completed"
    (done,) = [e for e in entries if isinstance(e, Succeeded) and e.node == "a"]
    assert (done.ref is not None) == (over > 0)


async def test_smaller_limits_of_an_installation_are_kept(database_url: str, nats_url: str) -> None:
    async with AsyncExitStack() as stack:
        limits = {"max_output_bytes": 1_000, "inline_bytes": 500}
        engine = await start_engine(database_url, nats_url, stack, **limits)
        for size, status, apart in (
            (499, "completed", False),
            (500, "completed", True),
            (999, "completed", True),
            (1_000, "completed", True),
            (1_001, "failed", False),
        ):
            script = task("a", output="x" * (size - 2))
            run, entries = await engine.finished(graph(script, edges=["t>a"]))
            assert run.status == status, size
            done = [e for e in entries if isinstance(e, Succeeded) and e.node == "a"]
            assert [e.ref is not None for e in done] == [apart] * (status == "completed"), size


DEEP: Any = None
for _ in range(100):
    DEEP = [DEEP]

HOSTILE: dict[str, Any] = {
    "NaN": float("nan"),
    "an infinity deep inside": {"a": [1, {"b": float("-inf")}]},
    "NUL": {"a": "b\0c"},
    "NUL in a name": {"b\0c": 1},
    "half a surrogate pair": ["\ud800"],
    "an integer above 64 bits": 2**64,
    "an integer below 64 bits": -(2**63) - 1,
    "too deep": DEEP,
    "names that are no text": {1: 2},
    "bytes": b"\xff",
    "an object": object(),
}


async def test_an_output_that_cannot_be_carried_fails_its_step_and_no_other(
    engine: Engine,
) -> None:
    other = await engine.start(await engine.workflow(graph(task("a"), edges=["t>a"])), count=3)
    outputs = iter(HOSTILE.values())

    async def run(_config: Nothing, _ctx: Any) -> Done:
        return Done(next(outputs))

    engine.types.add(TaskType("test_hostile", "code", Nothing, Nothing, run))
    document = graph({"id": "a", "type": "test_hostile", "config": {}}, edges=["t>a"])
    workflow_id = await engine.workflow(document)
    for name in HOSTILE:
        (run_id,) = await engine.start(workflow_id)
        found = await engine.until(run_id)
        assert found.status == "failed", name
        assert orjson.loads(found.error or b"")["code"] == "bad_output", name
    for run_id in other:
        assert (await engine.until(run_id)).status == "completed"


async def test_what_is_only_just_sound_is_carried_as_it_is(engine: Engine) -> None:
    value = {"high": 2**64 - 1, "low": -(2**63), "double": 1.7976931348623157e308, "text": "😀"}
    node = gives(engine, Done(value))
    run, entries = await engine.finished(
        graph(node, task("b", output="{{steps.a.output}}"), edges=["t>a", "a>b"])
    )
    assert run.status == "completed"
    assert [e.output for e in entries if isinstance(e, Succeeded) and e.node == "b"] == [value]


FAILURES: dict[str, tuple[Any, str]] = {
    "half a surrogate pair in an exception": (ValueError("a\ud800b"), "ValueError: a?b"),
    "NUL in an exception": (ValueError("a\0b"), "ValueError: a␀b"),
    "half a surrogate pair in a message": (Reject("a\ud800b"), "a?b"),
    "an endless message": (Reject("é" * 100_000), "é" * 10_000),
    "details that are no JSON": (Reject("no", details={"a": "\ud800", "b": float("nan")}), "no"),
    "endless details": (Reject("no", details={"a": "x" * 100_000}), "no"),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_hostile_failure_is_told_and_not_repeated_for_ever(
    engine: Engine, name: str
) -> None:
    result, message = FAILURES[name]
    run, entries = await engine.finished(graph(gives(engine, result), edges=["t>a"]))
    assert run.status == "failed"
    assert orjson.loads(run.error or b"")["message"] == message
    (failed,) = [e for e in entries if isinstance(e, Failed)]
    assert failed.details is None or list(cast(dict[str, Any], failed.details)) == ["left_out"]


async def test_hostile_reasons_to_wait_and_to_try_again_are_mended(engine: Engine) -> None:
    soon = timedelta(milliseconds=1)
    results = (Park(after=soon, reason="\ud800"), Retry("\ud800", after=soon), Done(1))
    node = gives(engine, *results) | {"retry": {"max_retries": 3, "initial_delay_ms": 1}}
    run, _ = await engine.finished(graph(node, edges=["t>a"]))
    assert run.status == "completed"


# --- items --------------------------------------------------------------------------------------


def loop_run(items: int) -> Run:
    """A run of a plan with the default limits, about to loop over so many items."""
    nodes = {
        "t": Node("t", "trigger_manual", Trigger()),
        "each": Node("each", "logic_loop", Loop(Constant(list(range(items)))), when=Ref("t")),
        "body": Node("body", "code_function", Task("code", {}), scope="each"),
    }
    return Run(uuid4(), Program(Plan(nodes)), None, "t")


@pytest.mark.parametrize("over", AROUND)
def test_a_loop_has_100000_items_at_most(over: int) -> None:
    decision = decide(loop_run(ITEMS + over), [Woken()])
    opened = [entry for entry in decision.entries if isinstance(entry, LoopOpened)]
    if over <= 0:
        assert [len(cast(list[Any], entry.items)) for entry in opened] == [ITEMS + over]
    else:
        assert not opened
        assert [e.message for e in decision.entries if isinstance(e, Failed)] == [
            "A loop may run over 100000 items; this one has 100001."
        ]


# --- visits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("over", AROUND)
async def test_a_node_is_gone_to_100_times_at_most(engine: Engine, over: int) -> None:
    failures = ["reject"] * (VISITS + over)
    node = task("a", *failures, "done", on_error="goto:a")
    run, entries = await engine.finished(graph(node, edges=["t>a"]))
    jumps = sum(isinstance(entry, Jumped) for entry in entries)
    if over <= 0:
        assert (run.status, jumps) == ("completed", VISITS + over)
    else:
        assert (run.status, jumps) == ("failed", VISITS)
        assert code_of(entries) == "visit_limit"


# --- steps --------------------------------------------------------------------------------------


def small_chain(length: int) -> Plan:
    nodes = {"n0": Node("n0", "trigger_manual", Trigger())}
    for i in range(1, length):
        nodes[f"n{i}"] = Node(f"n{i}", "code_function", Task("code", {}), when=Ref(f"n{i - 1}"))
    return Plan(nodes)


@pytest.mark.parametrize("over", AROUND)
def test_a_run_has_1000000_steps_at_most(over: int) -> None:
    run = Run(uuid4(), Program(small_chain(2)), None, "n0")
    run.steps_used = STEPS - 2 + over  # as if that many had been done; two are still to come
    decision = decide(run, [Woken()])
    dispatched = [e for e in decision.entries if isinstance(e, Dispatched)]
    if over <= 0:
        assert len(dispatched) == 1
    else:
        assert not dispatched
        assert (run.status, code_of(decision.entries)) == ("failed", "step_limit")
        assert run.error == {
            "code": "step_limit",
            "message": "The run used up its 1000000 steps.",
            "node": "n1",
        }


# --- what an installation lowers ------------------------------------------------------------------


async def test_items_visits_and_steps_can_be_limited_by_settings(
    database_url: str, nats_url: str
) -> None:
    async with AsyncExitStack() as stack:
        limits = {"max_loop_items": 5, "max_visits": 3, "max_steps": 12}
        engine = await start_engine(database_url, nats_url, stack, **limits)
        for count, status in ((4, "completed"), (5, "completed"), (6, "failed")):
            loop = {"id": "each", "type": "logic_loop", "config": {"items": "{{trigger.items}}"}}
            body = task("body", parentId="each")
            document = graph(loop, body, edges=["t>each"])
            run, _ = await engine.finished(document, {"items": list(range(count))})
            assert run.status == status, count
        for failures, status in ((2, "completed"), (3, "completed"), (4, "failed")):
            node = task("a", *["reject"] * failures, "done", on_error="goto:a", max_visits=900)
            run, _ = await engine.finished(graph(node, edges=["t>a"]))
            assert run.status == status, failures
        for length, status in ((10, "completed"), (11, "completed"), (12, "failed")):
            names = [f"n{i}" for i in range(length)]
            edges = [f"{a}>{b}" for a, b in zip(["t", *names], names, strict=False)]
            run, entries = await engine.finished(graph(*map(task, names), edges=edges))
            assert run.status == status, length
            assert code_of(entries) == ("" if status == "completed" else "step_limit")


async def test_the_limits_of_an_installation_are_those_of_the_design() -> None:
    settings = load_settings()
    assert settings.limits == Limits(nodes=2_000, items=ITEMS, visits=1_000, steps=STEPS)
    assert (settings.max_document_bytes, settings.max_input_bytes) == (1_000_000, 16_000_000)
    assert (settings.max_output_bytes, settings.inline_bytes) == (OUTPUT, INLINE)


async def test_a_node_has_100_visits_where_it_does_not_say(engine: Engine) -> None:
    plan = compile_document(graph(task("a"), edges=["t>a"]), engine.types).plan
    assert plan is not None
    assert plan.nodes["a"].max_visits == VISITS
    assert plan.max_steps == STEPS
