"""Timers and leases: what is due, who holds what, by the clock of the database."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from pipeline.store import leases, timers
from pipeline.store.database import Database
from pipeline.store.leases import HeldStep
from tests.fix_store import execute

pytestmark = pytest.mark.service

MINUTE = timedelta(minutes=1)
OVER = timedelta(seconds=-1)


async def arm(store: Database, org: UUID, key: str, seconds: float) -> UUID:
    run_id = uuid7()
    await execute(
        store,
        "insert into permaflow.timer values (%s, %s, %s, now() + make_interval(secs => %s))",
        (run_id, key, org, seconds),
    )
    return run_id


async def test_only_timers_that_are_due_are_claimed(store: Database, org: UUID) -> None:
    due = await arm(store, org, "retry:a", -1)
    await arm(store, org, "delay:b", 60)
    claimed = await store.run(timers.claim)
    assert [(each.run_id, each.key, each.org) for each in claimed] == [(due, "retry:a", org)]


async def test_a_claimed_timer_comes_again_until_it_is_disarmed(store: Database, org: UUID) -> None:
    await arm(store, org, "k", -1)
    assert len(await store.run(timers.claim, again_after=MINUTE)) == 1
    assert await store.run(timers.claim, again_after=timedelta(0)) == []
    await execute(store, "update permaflow.timer set due_at = due_at - interval '1 minute'")
    assert len(await store.run(timers.claim)) == 1


async def test_clocks_share_what_is_due_without_overlap(store: Database, org: UUID) -> None:
    made = {await arm(store, org, "k", -1) for _ in range(40)}
    answers = await asyncio.gather(*(store.run(timers.claim, limit=10) for _ in range(6)))
    claimed = [each.run_id for answer in answers for each in answer]
    assert len(claimed) == 40
    assert set(claimed) == made


async def test_the_wait_is_that_of_the_next_timer(store: Database, org: UUID) -> None:
    assert await store.run(timers.wait) is None
    await arm(store, org, "k", 600)
    await arm(store, org, "k", 60)
    wait = await store.run(timers.wait)
    assert wait is not None
    assert timedelta(seconds=50) < wait <= MINUTE
    await arm(store, org, "k", -60)
    assert await store.run(timers.wait) == timedelta(0)


def step(org: UUID, attempt: int = 1, remaining: timedelta = MINUTE) -> HeldStep:
    return HeldStep(UUID(int=7), "charge", attempt, org, remaining)


async def holders(store: Database) -> list[tuple[str, int]]:
    return await execute(store, "select holder, attempt from permaflow.lease")


async def test_a_lease_belongs_to_the_first_until_it_lapses(store: Database, org: UUID) -> None:
    mine = {(UUID(int=7), "charge")}
    assert await store.run(leases.renew, "a", [step(org)], MINUTE) == mine
    assert await store.run(leases.renew, "b", [step(org)], MINUTE) == set()
    assert await store.run(leases.renew, "a", [step(org)], OVER) == mine
    assert await store.run(leases.renew, "b", [step(org)], MINUTE) == mine
    assert await holders(store) == [("b", 1)]


async def test_a_later_attempt_takes_the_lease_and_an_earlier_one_never_does(
    store: Database, org: UUID
) -> None:
    await store.run(leases.renew, "a", [step(org, 1)], MINUTE)
    assert await store.run(leases.renew, "b", [step(org, 2)], MINUTE)
    assert await store.run(leases.renew, "a", [step(org, 1)], MINUTE) == set()
    await execute(store, "update permaflow.lease set until = now() - interval '1 hour'")
    assert await store.run(leases.renew, "a", [step(org, 1)], MINUTE) == set()
    assert await holders(store) == [("b", 2)]


async def test_a_runner_that_has_two_attempts_of_a_step_holds_the_later_one(
    store: Database, org: UUID
) -> None:
    other = HeldStep(UUID(int=8), "charge", 1, org, MINUTE)
    held = [step(org, 2), other, step(org, 1)]
    for _ in range(2):
        taken = await store.run(leases.renew, "a", held, MINUTE)
        assert taken == {(UUID(int=7), "charge"), (UUID(int=8), "charge")}
    assert sorted(await holders(store)) == [("a", 1), ("a", 2)]


async def test_a_lease_is_given_back_only_by_its_holder(store: Database, org: UUID) -> None:
    await store.run(leases.renew, "a", [step(org)], MINUTE)
    given = [(UUID(int=7), "charge", 1)]
    await store.run(leases.drop, "b", given)
    assert await holders(store) == [("a", 1)]
    await store.run(leases.drop, "a", given)
    assert await holders(store) == []


async def test_lost_and_overdue_leases_are_told_apart(store: Database, org: UUID) -> None:
    held = [
        HeldStep(UUID(int=1), "alive", 1, org, MINUTE),
        HeldStep(UUID(int=2), "overdue", 1, org, OVER),
    ]
    await store.run(leases.renew, "a", held, MINUTE)
    await store.run(leases.renew, "b", [HeldStep(UUID(int=3), "lost", 1, org, MINUTE)], OVER)
    found = await store.run(leases.lapsed)
    assert [(each.step, each.is_lost) for each in found] == [("overdue", False), ("lost", True)]


async def test_only_leases_that_lapsed_long_ago_are_swept(store: Database, org: UUID) -> None:
    await store.run(leases.renew, "a", [step(org)], OVER)
    assert await store.run(leases.sweep, MINUTE) == 0
    assert await store.run(leases.sweep, timedelta(0)) == 1
