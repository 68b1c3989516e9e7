"""How long to wait before a retry, and how often there is one."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permaflow.plan import CONTINUE, Goto, Retry
from pipeline.core.effects import SetTimer
from pipeline.core.entries import Dispatched, Failed, Parked, Retrying
from pipeline.core.events import AttemptFailed, Woken
from tests.core.plans import Broke, Done, Put, Table, plan_of, step
from tests.core.world import World

HAIR = timedelta(microseconds=1)
seconds = st.floats(0, 1e9).map(lambda number: timedelta(seconds=number))
chances = st.floats(0, 1, exclude_max=True)
retries = st.builds(
    Retry,
    max_retries=st.integers(0, 1_000),
    initial_delay=seconds,
    max_delay=seconds,
    factor=st.floats(0.1, 1e12),
    jitter=st.floats(0, 1),
)


@given(retries, st.integers(1, 10_000), chances)
def test_a_delay_lies_between_nothing_and_the_cap(retry: Retry, number: int, chance: float) -> None:
    assert timedelta(0) <= retry.delay(number, chance) <= retry.max_delay + HAIR


@given(st.integers(0, 1_000), st.integers(1, 20), chances)
def test_without_jitter_each_delay_is_twice_the_one_before_up_to_the_cap(
    initial: int, number: int, chance: float
) -> None:
    retry = Retry(9, timedelta(seconds=initial), timedelta(days=1), 2.0, jitter=0.0)
    expected = min(timedelta(days=1), timedelta(seconds=initial * 2 ** (number - 1)))
    assert retry.delay(number, chance) == expected


@given(retries, st.integers(1, 10_000), chances)
def test_jitter_takes_at_most_its_share(retry: Retry, number: int, chance: float) -> None:
    longest = retry.delay(number, 0.0)
    shortest = longest * (1 - retry.jitter)
    assert shortest * (1 - 1e-9) - HAIR <= retry.delay(number, chance) <= longest


def test_full_jitter_draws_from_the_whole_delay() -> None:
    retry = Retry(3, timedelta(seconds=8), timedelta(minutes=5), 2.0, jitter=1.0)
    drawn = [retry.delay(2, quarter / 4).total_seconds() for quarter in range(4)]
    assert drawn == [16.0, 12.0, 8.0, 4.0]


def test_a_backoff_beyond_every_number_is_the_cap() -> None:
    retry = Retry(2_000, timedelta(seconds=1), timedelta(hours=1), 1e300, jitter=0.0)
    assert retry.delay(2_000, 0.0) == timedelta(hours=1)


def test_what_fails_together_does_not_come_back_together() -> None:
    retry = Retry(3, timedelta(seconds=100), timedelta(hours=1), 2.0, jitter=1.0)
    world = World(plan_of(*(step(f"n{i}", retry=retry) for i in range(5))))
    world.tell(Woken())
    failures = [AttemptFailed("", f"n{i}", 1, "busy", "") for i in range(5)]
    decision = world.tell(*failures, chance=0.25)
    delays = [effect.delay or 0 for effect in decision.effects if isinstance(effect, SetTimer)]
    assert delays[0] == 75.0
    assert len({round(delay) for delay in delays}) == 5


# --- how often ------------------------------------------------------------------------------------


@pytest.mark.parametrize("allowed", [0, 1, 2, 5])
def test_a_step_that_always_fails_is_tried_once_and_then_as_often_as_it_may(allowed: int) -> None:
    world = World(plan_of(step("a", retry=Retry(allowed))), Table({"a": [Broke()]}))
    world.play()
    assert [entry.attempt for entry in world.of(Dispatched)] == list(range(1, allowed + 2))
    assert len(world.of(Retrying)) == allowed
    assert world.run.status == "failed"


def test_an_error_that_is_not_retryable_is_final() -> None:
    table = Table({"a": [Broke(retryable=False)]})
    world = World(plan_of(step("a", retry=Retry(5))), table)
    world.play()
    assert world.attempts == {("", "a", 1)}


def test_being_put_off_uses_up_no_retry() -> None:
    table = Table({"a": [Put(), Put(), Broke(), Done()]})
    world = World(plan_of(step("a", retry=Retry(1))), table)
    world.play()
    assert len(world.of(Parked)) == 2
    assert len(world.of(Retrying)) == 1
    assert world.run.status == "completed"


def test_the_other_side_may_ask_for_a_longer_wait_but_not_beyond_the_cap() -> None:
    retry = Retry(3, timedelta(seconds=1), timedelta(seconds=60), 1.0, jitter=0.0)
    for asked, granted in ((None, 1.0), (0.5, 1.0), (20.0, 20.0), (1e9, 60.0)):
        world = World(plan_of(step("a", retry=retry)), Table({"a": [Broke(after=asked), Done()]}))
        world.play()
        assert [entry.delay for entry in world.of(Retrying)] == [granted]


def test_retries_start_anew_when_a_jump_opens_the_step_again() -> None:
    table = Table({"a": [Broke()]})
    node = step("a", retry=Retry(1), on_error=Goto("a"), max_visits=2)
    world = World(plan_of(node), table)
    world.play()
    assert [entry.attempt for entry in world.of(Failed)] == [2, 4, 6]
    assert world.run.error is not None
    assert world.run.error["code"] == "visit_limit"


def test_an_attempt_that_timed_out_is_retried_and_in_the_end_timed_out() -> None:
    table = Table({"a": [Broke(timed_out=True)]})
    world = World(plan_of(step("a", retry=Retry(1), on_error=CONTINUE)), table)
    world.play()
    assert world.outcomes() == {"a": "TIMED_OUT"}
    assert world.run.status == "completed"
