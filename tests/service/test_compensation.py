"""Runs that are undone, and attempts of which nobody knows what they did, on real servers."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import orjson
import pytest

from pipeline import holding, runner
from pipeline.bus.subjects import step as step_subject
from pipeline.core.entries import Compensating, Dispatched, Doubted, Failed, Finished, Succeeded
from pipeline.ids import new_id
from pipeline.runner import Runner
from pipeline.runner_services import runner_store
from pipeline.settings import load_settings
from pipeline.store import answers, runs
from pipeline.store.answers import Answer
from pipeline.wire import Dispatch, Dispatches, encode
from tests.fix_engine import Engine, graph, task
from tests.service.test_engine_runner import _Once
from tests.service.test_orchestrator import Letter

pytestmark = pytest.mark.service


def undo(**config: Any) -> dict[str, Any]:
    retry = {"max_retries": 3, "initial_delay_ms": 10}
    return {"type": "test_script", "config": config, "retry": retry}


CHAIN = ["t>a", "a>b", "b>last"]


def chain(*answers: str, **last: Any) -> dict[str, Any]:
    return graph(
        task("a", output={"id": 7}) | {"compensate": undo(output="{{steps.a.output.id}}")},
        task("b") | {"compensate": undo(answers=["retry", "done"])},
        task("last", *answers, **last),
        edges=CHAIN,
        on_failure={"id": "told", **undo(output="{{error.code}}")},
    )


async def test_a_run_that_fails_is_undone_in_the_reverse_order(engine: Engine) -> None:
    ended, entries = await engine.finished(chain("reject"))
    assert ended.status == "compensated"
    assert orjson.loads(ended.error or b"")["code"] == "refused"
    done = [(e.node, e.attempt) for e in entries if isinstance(e, Succeeded)]
    assert done[-3:] == [("b#compensate", 2), ("a#compensate", 1), ("told", 1)]
    outputs = [e.output for e in entries if isinstance(e, Succeeded)]
    assert (outputs[-2], outputs[-1]) == (7, "refused")


async def test_a_run_that_is_cancelled_twice_is_undone_once(engine: Engine) -> None:
    engine.started["last"] = begun = asyncio.Event()
    (run_id,) = await engine.start(await engine.workflow(chain(seconds=30)))
    async with asyncio.timeout(20):
        await begun.wait()
    engine.started["b#compensate"] = begun = asyncio.Event()
    await engine.cancel(run_id)
    async with asyncio.timeout(20):
        await begun.wait()
    await engine.cancel(run_id)
    ended = await engine.until(run_id)
    assert ended.status == "compensated"
    entries = await engine.entries(run_id)
    assert len([e for e in entries if isinstance(e, Compensating)]) == 1
    undone = [e.node for e in entries if isinstance(e, Succeeded)][-2:]
    assert undone == ["b#compensate", "a#compensate"]
    assert isinstance(entries[-1], Finished)
    stopped = [key for key in engine.attempts if key[2] == "last"]
    assert len(stopped) == 1


async def test_a_compensation_that_fails_for_good_fails_the_run_and_says_which(
    engine: Engine,
) -> None:
    document = graph(
        task("a") | {"compensate": undo()},
        task("b") | {"compensate": undo(answers=["reject"])},
        task("last", "reject"),
        edges=CHAIN,
    )
    ended, entries = await engine.finished(document)
    error = orjson.loads(ended.error or b"")
    assert (ended.status, error["code"]) == ("failed", "compensation_failed")
    assert [f["node"] for f in error["failed"]] == ["b#compensate"]
    assert error["cause"]["node"] == "last"
    assert [e.node for e in entries if isinstance(e, Succeeded)][-1] == "a#compensate"


# --- attempts of which nobody knows what they did -------------------------------------------------


async def delivered_again(engine: Engine, run_id: UUID, node: str) -> str:
    """Another runner gets the dispatch of an attempt that one had begun, and tells what it does."""
    dispatch = Dispatch(run_id, "", node, 1, "test_script", {}, 30.0, once=True)
    store = runner_store(engine.database)
    other = Runner(engine.bus, engine.types, None, store, load_settings(), [], print)  # type: ignore[arg-type]
    letter = Letter(deliveries=2)
    letter.subject = step_subject("code", engine.org.hex)
    letter.data = encode(Dispatches(engine.org.hex, [dispatch]))
    await other._read("code", _Once(letter, lambda: None))  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        return await letter.end


def pay(on_unknown: str, **config: Any) -> dict[str, Any]:
    step = task("pay", seconds=30, **config) | {"on_unknown": on_unknown}
    return graph(step, task("after", output="{{steps.pay.output}}"), edges=["t>pay", "pay>after"])


async def lost(engine: Engine, monkeypatch: pytest.MonkeyPatch, document: dict[str, Any]) -> UUID:
    """A run whose step `pay` is with a runner that is no longer heard of."""
    monkeypatch.setattr(runner, "LEASE_AFTER", 60.0)
    monkeypatch.setattr(holding, "LEASE_FOR", 0.5)
    engine.started["pay"] = begun = asyncio.Event()
    (run_id,) = await engine.start(await engine.workflow(document))
    async with asyncio.timeout(20):
        await begun.wait()
    assert await delivered_again(engine, run_id, "pay") == "ack"
    return run_id


async def test_a_step_that_may_happen_once_is_not_begun_by_a_second_runner(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = await lost(engine, monkeypatch, pay("fail"))
    ended = await engine.until(run_id)
    assert (ended.status, orjson.loads(ended.error or b"")["code"]) == ("failed", "outcome_unknown")
    assert [key[2:] for key in engine.attempts] == [("pay", 1)]


async def test_an_attempt_is_claimed_by_the_first_who_does(engine: Engine) -> None:
    store = runner_store(engine.database)
    dispatch = Dispatch(new_id(), "", "a", 1, "test_script", {}, 5.0)
    first = await store.claim("one", new_id(), engine.org, dispatch)
    assert first.mine
    token = new_id()
    second = await store.claim("two", token, engine.org, dispatch)
    assert (second.mine, second.leased) == (False, False)
    assert second.age >= 0


async def test_a_claim_whose_answer_got_lost_is_made_again(engine: Engine) -> None:
    store = runner_store(engine.database)
    dispatch = Dispatch(new_id(), "", "a", 1, "test_script", {}, 5.0)
    token = new_id()
    for _ in range(2):
        assert (await store.claim("one", token, engine.org, dispatch)).mine


async def test_what_another_runner_is_at_is_left_to_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "LEASE_FOR", 0.5)
    held = asyncio.Event()
    store = type(runner_store(engine.database))
    renew = store.renew

    async def renewed(*args: Any) -> None:
        await renew(*args)
        held.set()

    monkeypatch.setattr(store, "renew", renewed)
    (run_id,) = await engine.start(await engine.workflow(pay("fail")))
    async with asyncio.timeout(20):
        await held.wait()
    assert await delivered_again(engine, run_id, "pay") == "ack"
    assert (await engine.database.run(runs.get, engine.org, run_id)).status == "running"
    await engine.cancel(run_id)
    assert (await engine.until(run_id)).status == "cancelled"


@pytest.mark.parametrize(
    ("said", "status"), [("done", "completed"), ("fail", "failed"), ("retry", "cancelled")]
)
async def test_people_say_what_became_of_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, said: str, status: str
) -> None:
    run_id = await lost(engine, monkeypatch, pay("ask"))
    await engine.until(run_id, "waiting")
    assert any(isinstance(entry, Doubted) for entry in await engine.entries(run_id))
    question = await engine.database.run(
        answers.open_question, engine.org, run_id, "", "pay", "unknown"
    )
    assert question is not None
    answer = {
        "done": Answer(question, b'"paid"'),
        "fail": Answer(question, code="resolved", message="it was not"),
        "retry": Answer(question, code="resolved", message="again", retryable=True),
    }[said]
    [given] = await engine.database.run(answers.give, [answer])
    assert await engine.database.run(answers.give, [answer]) == []
    assert given.node == "pay"
    if said == "retry":
        async with asyncio.timeout(20):
            while ("pay", 2) not in [key[2:] for key in engine.attempts]:
                engine.started["pay"] = begun = asyncio.Event()
                await begun.wait()
        entries = await engine.entries(run_id)
        assert ("", "pay", 2) in [e[:3] for e in entries if isinstance(e, Dispatched)]
        await engine.cancel(run_id)
    ended = await engine.until(run_id)
    assert ended.status == status
    entries = await engine.entries(run_id)
    if said == "done":
        assert [e.output for e in entries if isinstance(e, Succeeded)][-1] == "paid"
    elif said == "fail":
        [failed] = [e for e in entries if isinstance(e, Failed)]
        assert (failed.code, failed.message) == ("resolved", "it was not")
