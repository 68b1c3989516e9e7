"""What holds for every plan, whatever its attempts come to and in whatever order."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from permaflow.plan import Plan
from pipeline.core.decide import decide
from pipeline.core.effects import ClearTimer, SetTimer, Withdraw
from pipeline.core.entries import (
    Compensating,
    Entry,
    Finished,
    Retrying,
)
from pipeline.core.events import (
    AttemptDone,
    AttemptFailed,
    AttemptParked,
    CancelAsked,
    Event,
    TimerFired,
    Woken,
)
from pipeline.core.state import RUN_TIMER
from pipeline.core.unknown import is_unknown
from tests.core.agreement import agree
from tests.core.dump import dump
from tests.core.plans import ORDERLY, Table, cases, schedules
from tests.core.reference import expect
from tests.core.stepwise import Stepwise
from tests.core.world import World
from tests.fix_properties import examples

Case = tuple[Plan, Table]
moments = st.integers(0, 30)


def begun(case: Case, schedule: list[int], turns: int) -> World:
    """A run that has come some way, perhaps to its end."""
    world = World(*case)
    world.tell(Woken())
    for turn in range(turns):
        choices = world.next_events()
        if world.run.finished or not choices:
            break
        pick = schedule[turn] if turn < len(schedule) else 0
        world.tell(choices[pick % len(choices)])
    return world


@examples(300)
@given(cases(), schedules, st.booleans())
def test_every_run_ends_once_and_every_entry_on_the_way_was_lawful(
    case: Case, schedule: list[int], slow: bool
) -> None:
    world = World(*case)
    world.play(schedule, slow=slow)
    assert world.entries[-1] == world.ends()[0]
    assert len(world.ends()) == 1


@examples(150)
@given(cases(), schedules, st.booleans())
def test_the_journal_tells_the_live_state_after_every_event(
    case: Case, schedule: list[int], slow: bool
) -> None:
    World(*case, audited=False).play(schedule, check=True, slow=slow)


@examples(300)
@given(cases(ORDERLY), schedules)
def test_a_run_comes_to_what_the_reference_interpreter_says(
    case: Case, schedule: list[int]
) -> None:
    world = World(*case, audited=False)
    run = world.play(schedule)
    agree(world, case, expect(*case, run.trigger))


@examples(200)
@given(cases(), schedules, st.booleans())
def test_a_run_is_entry_by_entry_what_the_reference_that_is_played_along_says(
    case: Case, schedule: list[int], slow: bool
) -> None:
    world = World(*case, audited=False)
    reference = Stepwise(case[0])
    event: Event = Woken()
    for turn in range(4_000):
        reference.hear([event], world.tell(event))
        if world.run.finished:
            return
        choices = world.next_events(slow=slow)
        event = choices[(schedule[turn] if turn < len(schedule) else 0) % len(choices)]
    raise AssertionError("the run does not end")


# --- what must change nothing ---------------------------------------------------------------------


@examples(200)
@given(cases(), schedules, st.lists(st.integers(0, 999), min_size=1, max_size=40))
def test_what_is_repeated_late_early_or_unknown_changes_nothing(
    case: Case, schedule: list[int], noise: list[int]
) -> None:
    plain = World(*case, audited=False)
    plain.play(schedule)
    noisy = World(*case, audited=False)
    for turn, event in enumerate(plain.events):
        noisy.tell(event)
        changes_nothing(noisy, nuisance(noisy, noise[turn % len(noise)]))
    assert noisy.entries == plain.entries
    assert dump(noisy.run) == dump(plain.run)


def nuisance(world: World, number: int) -> Event:
    """An event that the run has to shrug off."""
    kind, pick = number % 7, number // 7
    known = {**world.sent, **world.put}
    gone = [key for key in known if key not in world.live and key not in world.asked]
    gone = gone or [("", "nobody", 1)]
    key = gone[pick % len(gone)]
    match kind:
        case 0:
            return AttemptDone(*key, "late")
        case 1:
            return AttemptFailed(*key, "late", "late", retryable=bool(pick % 2))
        case 2:
            return AttemptParked(*key, 0.0)
        case 3:
            return Woken()
        case 4:
            scope, node, attempt = list(known)[pick % len(known)] if known else key
            return AttemptDone(scope, node, attempt + 1 + pick % 3, "early")
        case 5:
            old = [e.key for e in world.effects if isinstance(e, ClearTimer)]
            return TimerFired((old or ["retry\x1f\x1fnobody\x1f1"])[pick % max(1, len(old))])
        case _:
            old_events = [e for e in world.events if not isinstance(e, CancelAsked)]
            return old_events[pick % len(old_events)]


def answers_for_people(world: World, event: Event) -> bool:
    """Whether this is what became of an attempt that people are asked about."""
    if isinstance(event, AttemptFailed) and is_unknown(event):
        return False
    results = AttemptDone | AttemptFailed | AttemptParked
    return isinstance(event, results) and event[:3] in world.asked


def changes_nothing(world: World, event: Event) -> None:
    if world.run.seq and isinstance(event, AttemptDone) and event[:3] in world.live:
        return  # the dispatch that an early result spoke of has been made meanwhile
    if answers_for_people(world, event):
        return
    before = dump(world.run)
    decision = decide(world.run, [event])
    assert decision.entries == []
    assert dump(world.run) == before
    for effect in decision.effects:
        match effect:
            case ClearTimer(key=key):
                assert key not in world.armed
            case Withdraw():
                assert effect[:3] not in world.asked
            case _:
                raise AssertionError(effect)
    counted = decision.stale + decision.unknown
    assert counted == (not isinstance(event, Woken) or world.run.finished)


@examples(150)
@given(cases(), schedules, st.lists(st.integers(1, 4), max_size=12))
def test_events_told_together_are_as_events_told_one_by_one(
    case: Case, schedule: list[int], sizes: list[int]
) -> None:
    single = World(*case, audited=False)
    single.play(schedule)
    several = World(*case, audited=False)
    events = list(single.events)
    while events:
        size = sizes.pop() if sizes else 2
        together = [events.pop(0)]
        while len(together) < size and events and possible(several, events[0]):
            together.append(events.pop(0))
        several.tell(*together)
        several.check()
    without_chance = [replace_delay(entry) for entry in several.entries]
    assert without_chance == [replace_delay(entry) for entry in single.entries]


def possible(world: World, event: Event) -> bool:
    """Whether an event can be on its way already."""
    if isinstance(event, TimerFired):
        return event.key in world.armed
    return (
        isinstance(event, AttemptDone | AttemptFailed | AttemptParked) and event[:3] in world.live
    )


def replace_delay(entry: Entry) -> Entry:
    return entry._replace(delay=0.0) if isinstance(entry, Retrying) else entry


@examples(100)
@given(cases(), schedules)
def test_a_run_that_changes_hands_at_every_event_makes_the_same_journal(
    case: Case, schedule: list[int]
) -> None:
    stays = World(*case, audited=False)
    stays.play(schedule)
    moves = World(*case, audited=False)
    for event in stays.events:
        moves.tell(event)
        moves.restart()
    assert moves.rows == stays.rows


@examples(150)
@given(cases(), schedules, moments, moments)
def test_a_stale_state_never_takes_what_is_due_for_something_old(
    case: Case, schedule: list[int], turns: int, age: int
) -> None:
    """It either makes entries, which conflict, or says that it does not know: never less."""
    stale_states_know_it(begun(case, schedule, turns), age)


def stale_states_know_it(world: World, age: int) -> None:
    kept = world.rows[:]
    for event in world.next_events(slow=True):
        world.rows = kept[: max(0, len(kept) - age)]
        old = decide(world.replayed(), [event])
        assert old.entries or old.unknown
        assert not old.stale
    world.rows = kept


@examples(100)
@given(st.data(), cases(), schedules, moments)
def test_any_event_in_any_state_gives_an_answer(
    data: st.DataObject, case: Case, schedule: list[int], turns: int
) -> None:
    world = begun(case, schedule, turns)
    scopes = st.sampled_from([*world.run.scopes, "n0[0]", "nowhere"])
    nodes = st.sampled_from([*world.plan.nodes, "nobody"])
    where = st.tuples(scopes, nodes, st.integers(-1, 3))
    keys = st.sampled_from([*world.armed, "run", "", "delay", "retry\x1f\x1fn0\x1f1"])
    anything = st.one_of(
        where.map(lambda key: AttemptDone(*key)),
        where.map(lambda key: AttemptFailed(*key, "broke", "")),
        st.tuples(where, st.floats()).map(lambda pair: AttemptParked(*pair[0], pair[1])),
        keys.map(TimerFired),
        st.just(Woken()),
    )
    for event in data.draw(st.lists(anything, max_size=8)):
        known = isinstance(event, Woken | TimerFired) or event[:3] in world.live
        decision = world.tell(event)
        assert known or not decision.entries
        world.check()


# --- the end --------------------------------------------------------------------------------------


@examples(150)
@given(cases(), schedules, moments, st.booleans())
def test_a_run_can_be_ended_at_any_moment_and_leaves_nothing_behind(
    case: Case, schedule: list[int], turns: int, by_timeout: bool
) -> None:
    world = begun(case, schedule, turns)
    if world.run.finished or world.run.cause is not None:
        return
    out, armed = set(world.live), set(world.armed)
    by_timeout = by_timeout and RUN_TIMER in armed
    decision = world.tell(TimerFired(RUN_TIMER) if by_timeout else CancelAsked("ann", "enough"))
    status = "timed_out" if by_timeout else "cancelled"
    end = next(e for e in decision.entries if isinstance(e, Compensating | Finished))
    assert end.status == status
    assert set(world.stopped[-len(out) :] if out else ()) == out
    assert {e.key for e in decision.effects if isinstance(e, ClearTimer)} >= armed
    assert not any(isinstance(e, SetTimer) for e in decision.effects)
    world.check()
    assert not world.armed
    if isinstance(end, Finished):
        assert world.run.status == status
        assert not world.live
    else:
        # All that is out, and was not before, is the first that undoes the run. If none of them
        # has a config with a value, the run has ended by now.
        assert len(world.live) == (not world.run.finished)
        assert not world.live.keys() & out
    for key in out:
        changes_nothing(world, AttemptDone(*key, "late"))
    changes_nothing(world, CancelAsked())


@examples(100)
@given(cases(), schedules)
def test_nothing_is_left_armed_or_running_after_the_end(case: Case, schedule: list[int]) -> None:
    world = World(*case, audited=False)
    world.play(schedule)
    assert not world.live
    assert not world.armed
    assert not world.run.outstanding
    assert set(world.run.scopes) <= {""}


@examples(100)
@given(cases(), schedules)
def test_a_run_that_may_take_one_step_fewer_than_it_takes_fails_for_it(
    case: Case, schedule: list[int]
) -> None:
    plan, table = case
    plan = replace(plan, max_steps=1_000_000)
    whole = World(plan, table, audited=False)
    whole.play(schedule)
    used = whole.run.steps_used
    enough = World(replace(plan, max_steps=used), table)
    enough.play(schedule)
    assert enough.entries == whole.entries
    if used:
        short = World(replace(plan, max_steps=used - 1), table)
        short.play(schedule)
        ends = [e for e in short.entries if isinstance(e, Compensating | Finished)]
        assert (ends[0].status, ends[0].code) == ("failed", "step_limit")
        assert short.run.steps_used == used - 1
