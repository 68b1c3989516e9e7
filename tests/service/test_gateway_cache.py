"""What is kept in memory for a moment is never older than that, and is asked for once."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.gateway import cache
from pipeline.gateway.cache import Cache


class Source:
    """Answers with a number that grows, when it may."""

    def __init__(self) -> None:
        self.asked = 0
        self.answer: int | None = 0
        self.go_on = asyncio.Event()
        self.go_on.set()
        self.entered = asyncio.Event()

    async def __call__(self) -> int | None:
        self.asked += 1
        answer = self.answer
        self.entered.set()
        await self.go_on.wait()
        return answer


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(cache, "_now", lambda: now[0])
    return now


@pytest.fixture
def things() -> Cache[str, int]:
    return Cache(4.0, 2, seconds_of_nothing=1.0)


async def test_it_is_asked_for_once_while_it_is_fresh(
    things: Cache[str, int], clock: list[float]
) -> None:
    source = Source()
    for _ in range(5):
        assert await things.get("a", source) == 0
    assert source.asked == 1


async def test_many_that_want_it_at_once_ask_once(
    things: Cache[str, int], clock: list[float]
) -> None:
    source = Source()
    source.go_on.clear()
    waiting = [asyncio.create_task(things.get("a", source)) for _ in range(10)]
    await asyncio.sleep(0)
    source.go_on.set()
    assert await asyncio.gather(*waiting) == [0] * 10
    assert source.asked == 1


async def test_after_its_time_it_is_asked_for_again(
    things: Cache[str, int], clock: list[float]
) -> None:
    source = Source()
    await things.get("a", source)
    source.answer, clock[0] = 1, 104.0
    assert await things.get("a", source) == 1


async def test_half_way_it_is_asked_for_behind_the_back_of_who_wants_it(
    things: Cache[str, int], clock: list[float]
) -> None:
    source = Source()
    await things.get("a", source)
    source.answer, clock[0] = 1, 102.5
    assert await things.get("a", source) == 0
    await asyncio.gather(*things._asking.values())
    assert await things.get("a", source) == 1
    assert source.asked == 2


async def test_a_change_is_seen_even_by_who_asked_just_before_it(
    things: Cache[str, int], clock: list[float]
) -> None:
    source = Source()
    source.go_on.clear()
    before = asyncio.create_task(things.get("a", source))
    await source.entered.wait()
    source.answer = 1
    things.clear()
    source.go_on.set()
    assert await before == 0  # it asked before the change
    assert await things.get("a", source) == 1


async def test_nothing_is_kept_for_a_shorter_time(
    things: Cache[str, int], clock: list[float]
) -> None:
    source = Source()
    source.answer = None
    assert await things.get("a", source) is None
    clock[0] += 0.9
    assert await things.get("a", source) is None
    assert source.asked == 1
    clock[0] += 0.1
    source.answer = 1
    assert await things.get("a", source) == 1


async def test_only_so_many_are_kept(things: Cache[str, int], clock: list[float]) -> None:
    source = Source()
    for name in "abc":
        await things.get(name, source)
    assert source.asked == 3
    await things.get("c", source)
    assert source.asked == 3
    await things.get("a", source)
    assert source.asked == 4


async def test_an_error_is_told_and_not_kept(things: Cache[str, int], clock: list[float]) -> None:
    async def broken() -> int:
        raise OSError

    with pytest.raises(OSError):
        await things.get("a", broken)
    assert await things.get("a", Source()) == 0
