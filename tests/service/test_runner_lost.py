"""Which runners count as lost, and what protects the step of one that is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from permaflow.task import Done, TaskType
from permaflow.task_types import TaskTypeRegistry
from pipeline import runner, telemetry
from pipeline.bus.jetstream import JetStreamBus, connect
from pipeline.bus.port import Message
from pipeline.bus.subjects import inbox, inbox_channel, partition_of, step, step_channel
from pipeline.ids import new_id
from pipeline.runner import Runner
from pipeline.settings import load_settings
from pipeline.wire import (
    Dispatch,
    Dispatches,
    StepDone,
    StepFailed,
    decode_dispatches,
    decode_inbox,
    encode,
)
from tests.core.test_portions import Nothing, services_for_nothing

pytestmark = pytest.mark.service

WITHIN = 20.0
STAGE = "lost"
RUN, ORG = new_id(), new_id().hex


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[JetStreamBus]:
    found = await connect(nats_url, name="test")
    yield found
    await found.close()


class Task:
    """A task that waits until it may end; each of its beginnings rings."""

    def __init__(self) -> None:
        self.begun = 0
        self.rung = asyncio.Condition()
        self.may_end = asyncio.Event()
        self.type = TaskType("test_lost", STAGE, Nothing, Nothing, self.run)

    async def run(self, _config: Nothing, _ctx: Any) -> Done:
        async with self.rung:
            self.begun += 1
            self.rung.notify_all()
        await self.may_end.wait()
        return Done("ended")

    async def until_begun(self, times: int) -> None:
        async with asyncio.timeout(WITHIN), self.rung:
            await self.rung.wait_for(lambda: self.begun >= times)


class Running:
    """A runner of the stage, while its block runs; then told to stop, as by SIGTERM."""

    def __init__(self, bus: JetStreamBus, *types: TaskType) -> None:
        registry = TaskTypeRegistry()
        for each in types:
            registry.add(each)
        settings = load_settings()
        services = services_for_nothing()
        self.runner = Runner(bus, registry, services, None, settings, [STAGE], print)  # type: ignore[arg-type]

    async def __aenter__(self) -> Runner:
        self._task = asyncio.create_task(self.runner.run())
        return self.runner

    async def __aexit__(self, *_: object) -> None:
        await self.runner.stop()
        async with asyncio.timeout(WITHIN):
            await self._task


def dispatch(node: str = "a") -> Dispatch:
    return Dispatch(RUN, "", node, 1, "test_lost", {}, 60.0)


async def ask(bus: JetStreamBus, *nodes: str) -> None:
    await bus.send(step(STAGE, ORG), encode(Dispatches(ORG, [dispatch(node) for node in nodes])))


async def told(bus: JetStreamBus, count: int = 1) -> list[Any]:
    """The results that have come into the inbox, once there are so many."""
    found: list[Any] = []
    reader = await bus.subscribe(inbox_channel(partition_of(RUN)), 100)
    async with asyncio.timeout(WITHIN):
        while len(found) < count:
            for message in await reader.batch():
                if message.subject == inbox(partition_of(RUN), ORG):
                    found += decode_inbox(message.data).events
                message.ack()
                reader.release()
    await reader.close()
    return found


async def waiting(bus: JetStreamBus) -> Message:
    """The message that waits for a runner, taken."""
    reader = await bus.subscribe(step_channel(STAGE), 1)
    async with asyncio.timeout(WITHIN):
        (message,) = await reader.batch()
    await reader.close()
    return message


async def drained(bus: JetStreamBus) -> None:
    await until(lambda: left(bus), 0)


async def left(bus: JetStreamBus) -> int:
    """The messages of the stage that are not acked."""
    found = await bus.backlog(step_channel(STAGE))
    return found.pending + found.in_flight


async def until(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Ask until this is the answer: nobody tells of it."""
    async with asyncio.timeout(WITHIN):
        while await ask() != wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_step_whose_runners_stop_is_given_back_as_often_as_need_be(
    bus: JetStreamBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "GRACE", 0.01)
    task = Task()
    await ask(bus, "a")
    for times in range(1, 13):
        async with Running(bus, task.type):
            await task.until_begun(times)
    task.may_end.set()
    async with Running(bus, task.type):
        assert [type(result) for result in await told(bus)] == [StepDone]
        await drained(bus)
    assert task.begun == 13


async def test_of_a_message_only_what_is_not_done_is_given_back(
    bus: JetStreamBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "GRACE", 0.01)
    task, done = Task(), asyncio.Event()

    async def quick(_config: Nothing, _ctx: Any) -> Done:
        done.set()
        return Done()

    both = Dispatches(ORG, [dispatch("a"), Dispatch(RUN, "", "b", 1, "test_quick", {}, 60.0)])
    await bus.send(step(STAGE, ORG), encode(both))
    async with Running(bus, task.type, TaskType("test_quick", STAGE, Nothing, Nothing, quick)):
        await task.until_begun(1)
        async with asyncio.timeout(WITHIN):
            await done.wait()
    assert [result.node for result in await told(bus)] == ["b"]
    message = await waiting(bus)
    again = decode_dispatches(message.data)
    assert ([each.node for each in again.steps], again.lost) == (["a"], 0)
    message.ack()
    await drained(bus)


async def test_runners_that_died_count_on_when_the_step_is_given_back(
    bus: JetStreamBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "GRACE", 0.01)
    task = Task()
    lost = encode(Dispatches(ORG, [dispatch()], lost=8))
    await bus.send(step(STAGE, ORG), lost)
    async with Running(bus, task.type):
        await task.until_begun(1)
    message = await waiting(bus)
    assert decode_dispatches(message.data).lost == 8
    message.ack()
    await bus.send(step(STAGE, ORG), encode(Dispatches(ORG, [dispatch()], lost=9)))
    async with Running(bus, task.type):
        (result,) = await told(bus)
    assert isinstance(result, StepFailed)
    assert result.code == "runner_lost"
    assert task.begun == 1
    await drained(bus)


async def test_runners_that_do_not_know_a_type_are_not_counted_as_lost_by_one_that_does(
    bus: JetStreamBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "_ELSEWHERE", runner.timedelta(seconds=0.01))
    monkeypatch.setattr(runner, "_RUNNERS", 5)
    task = Task()
    task.may_end.set()
    await bus.send(step(STAGE, ORG), encode(Dispatches(ORG, [dispatch()], passed=5)))
    async with Running(bus, task.type):
        assert [type(result) for result in await told(bus)] == [StepDone]
        await drained(bus)
    await ask(bus, "a")
    async with Running(bus):
        (result,) = await told(bus)
        await drained(bus)
    assert isinstance(result, StepFailed)
    assert result.code == "not_found"


async def test_a_message_that_comes_again_while_its_step_is_in_work_is_not_acked_before_that_ends(
    bus: JetStreamBus,
) -> None:
    """It is the same message: with its ack nothing would be left if this runner died now."""
    task = Task()
    await ask(bus, "a")
    async with Running(bus, task.type) as vertex:
        await task.until_begun(1)
        (step_,) = vertex._steps.values()
        before = telemetry.REDELIVERIES.labels("runner")._value.get()
        step_.work.message.nak(runner.timedelta(0))  # as if its beats had not come through
        async with asyncio.timeout(WITHIN):
            while telemetry.REDELIVERIES.labels("runner")._value.get() == before:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
            # Whatever the runner says to the server now comes before this answer.
            await bus.link.flushed()
        assert await left(bus) == 1
        task.may_end.set()
        assert len(await told(bus)) == 1
        await drained(bus)
    assert task.begun == 1
