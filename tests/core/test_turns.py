"""Turns: so many at once, of one organisation fewer, and nobody waits for long."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest

from pipeline.gateway import turns
from pipeline.gateway.problems import Refusal
from pipeline.gateway.turns import Turns

ORGS = [UUID(int=number) for number in range(3)]


async def test_an_organisation_waits_for_itself_and_all_wait_for_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "LONGEST_QUEUE", 0.02)
    few = Turns(at_once=2, of_one=1)
    async with few.turn(ORGS[0]):
        with pytest.raises(Refusal, match="Try again"):
            async with few.turn(ORGS[0]):
                pass
        async with few.turn(ORGS[1]):
            with pytest.raises(Refusal) as busy:
                async with few.turn(ORGS[2]):
                    pass
            assert (busy.value.status, busy.value.code) == (503, "busy")
        async with few.turn(ORGS[2]):
            pass


async def test_a_turn_that_becomes_free_is_taken_by_who_waits() -> None:
    one = Turns(at_once=1)
    entered, leave = asyncio.Event(), asyncio.Event()

    async def first() -> str:
        entered.set()
        await leave.wait()
        return "first"

    async def second() -> str:
        return "second"

    async with asyncio.timeout(60):
        begun = asyncio.create_task(one.take(ORGS[0], 60, first))
        await entered.wait()
        waiting = asyncio.create_task(one.take(ORGS[1], 60, second))
        leave.set()
        assert await asyncio.gather(begun, waiting) == ["first", "second"]


async def test_work_that_does_not_end_is_given_up_and_keeps_its_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "GRACE", 0.01)
    monkeypatch.setattr(turns, "LONGEST_QUEUE", 0.02)
    one = Turns(at_once=1)
    end, ended = asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        await end.wait()
        ended.set()

    async def quick() -> str:
        return "quick"

    with pytest.raises(Refusal, match="PERMAFLOW_DRY_RUN_TIMEOUT") as late:
        await one.take(ORGS[0], 0.01, slow)
    assert (late.value.status, late.value.code) == (422, "took_too_long")
    with pytest.raises(Refusal, match="Try again"):
        await one.take(ORGS[1], 60, quick)
    end.set()
    async with asyncio.timeout(60):
        await ended.wait()
    assert await one.take(ORGS[1], 60, quick) == "quick"


async def test_what_work_raises_is_raised() -> None:
    async def broken() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await Turns().take(ORGS[0], 60, broken)
