"""How much is taken in at once: portions of the inbox, and what a runner begins in one turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from permaflow.task import Done, TaskType
from permaflow.task_types import TaskTypeRegistry
from pipeline import runner
from pipeline.ids import new_id
from pipeline.inbox import divide
from pipeline.runner import Runner
from pipeline.settings import load_settings
from pipeline.wire import Dispatch, Dispatches, Inbox, Wake, count_events, encode
from tests.core.no_services import services_for_nothing


class Letter:
    """A message, as far as it is looked at before and while it is in work."""

    deliveries = 1
    again = False

    def __init__(self, subject: str, data: bytes) -> None:
        self.subject = subject
        self.data = data
        self.acked = asyncio.Event()

    def keep(self) -> None: ...

    def ack(self) -> None:
        self.acked.set()


def letter(partition: int, events: int) -> Letter:
    return Letter(f"pf.inbox.{partition}.org", encode(Inbox([Wake(new_id())] * events)))


letters = st.lists(st.builds(letter, st.integers(0, 3), st.integers(1, 20)), max_size=30)


@pytest.mark.parametrize("count", [0, 1, 15, 16, 300, 65_535, 65_536])
def test_events_are_counted_by_the_head_of_their_message(count: int):
    assert count_events(encode(Inbox([Wake(new_id())] * count))) == count


@given(st.binary(max_size=20))
def test_bytes_that_are_no_message_are_counted_as_something(data: bytes):
    assert count_events(data) >= 0


@given(letters.filter(bool))
def test_every_message_is_in_one_portion_and_keeps_its_place_in_its_partition(found: list[Letter]):
    portions = [list(portion) for portion in divide(found, 32)]  # type: ignore[arg-type]
    assert all(portions)
    together = [each for portion in portions for each in portion]
    for subject in {each.subject for each in found}:
        wanted = [each for each in found if each.subject == subject]
        assert [each for each in together if each.subject == subject] == wanted
    assert len(together) == len(found)


@given(letters.filter(bool))
def test_a_portion_is_not_too_large_and_not_needlessly_small(found: list[Letter]):
    sizes = [
        [count_events(each.data) for each in portion]
        for portion in divide(found, 32)  # type: ignore[arg-type]
    ]
    assert all(sum(size) <= 32 or len(size) == 1 for size in sizes)
    # What begins a portion had no room in the one before.
    assert all(sum(one) + two[0] > 32 for one, two in pairwise(sizes))


def test_those_of_a_partition_are_together():
    found = [letter(partition, 10) for partition in (0, 1, 2, 0, 1, 2)]
    partitions = [{each.subject for each in portion} for portion in divide(found, 20)]  # type: ignore[arg-type]
    assert partitions == [{f"pf.inbox.{partition}.org"} for partition in (0, 1, 2)]


class Nothing(BaseModel):
    pass


class Once:
    """A subscription to some messages, all at once."""

    def __init__(self, messages: list[Letter]) -> None:
        self._batches = [messages, []]

    async def batch(self) -> list[Any]:
        return self._batches.pop(0)

    def release(self, count: int = 1) -> None: ...


class Wall:
    """A bus on which one sees what is sent when."""

    def __init__(self, seen: list[str]) -> None:
        self._seen = seen

    def send(self, subject: str, data: bytes, key: str | None = None) -> asyncio.Future[None]:
        self._seen.append("sent")
        receipt = asyncio.get_running_loop().create_future()
        receipt.set_result(None)
        return receipt


async def begin(monkeypatch: pytest.MonkeyPatch, groups: Sequence[int], together: int) -> list[str]:
    """What a runner does with messages of so many quick steps."""
    monkeypatch.setattr(runner, "_TOGETHER", together)
    seen: list[str] = []

    async def run(_config: Nothing, _ctx: Any) -> Done:
        seen.append("ran")
        return Done()

    types = TaskTypeRegistry()
    types.add(TaskType("quick", "code", Nothing, Nothing, run))
    services = services_for_nothing()
    vertex = Runner(Wall(seen), types, services, None, load_settings(), [], print)  # type: ignore[arg-type]
    run_id, org = new_id(), new_id().hex
    found = []
    for number, size in enumerate(groups):
        steps = [Dispatch(run_id, "", f"{number}.{n}", 1, "quick", {}, 5.0) for n in range(size)]
        found.append(Letter("pf.step.code.org", encode(Dispatches(org, steps))))
    await vertex._read("code", Once(found))  # type: ignore[arg-type]
    async with asyncio.timeout(5):
        for each in found:
            await each.acked.wait()
    return seen


async def test_the_results_of_quick_steps_leave_before_all_the_others_have_run(
    monkeypatch: pytest.MonkeyPatch,
):
    seen = await begin(monkeypatch, [4, 4, 4, 4], together=4)
    assert seen.count("ran") == 16
    assert seen.index("sent") <= 8


async def test_results_that_are_ready_together_travel_together(monkeypatch: pytest.MonkeyPatch):
    seen = await begin(monkeypatch, [1] * 16, together=16)
    assert seen == ["ran"] * 16 + ["sent"]
