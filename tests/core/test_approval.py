"""What an approval comes to, and what is due when: pure functions."""

from __future__ import annotations

import itertools
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.approval import APPROVED, REJECTED, Level, Reminder, Terms, due, judge

PEOPLE = ("ana", "bob", "carl", "dora", "eve")
votes = st.dictionaries(st.sampled_from(PEOPLE), st.booleans())
somebody = st.frozensets(st.sampled_from(PEOPLE), min_size=1)
needs = st.one_of(st.none(), st.integers(1, 5))


def terms(reminder: Reminder | None = None, *levels: float) -> Terms:
    escalation = tuple(Level(after, ("boss",), ()) for after in levels)
    more: dict[str, Any] = {"data": None, "form": None, "users": (), "groups": ()}
    return Terms(
        "",
        "",
        **more,
        to_all=True,
        need=1,
        veto=True,
        reminder=reminder,
        escalation=escalation,
        delegation=False,
        self_approval=False,
        on_reject="fail",
        timeout=None,
        on_timeout="fail",
    )


# --- quorum ---


def test_any_is_decided_by_the_first() -> None:
    assert judge(1, True, PEOPLE, {"ana": True}) == APPROVED
    assert judge(1, True, PEOPLE, {"ana": False}) == REJECTED


def test_all_takes_everybody_and_one_rejection_ends_it() -> None:
    both = ("ana", "bob")
    assert judge(None, True, both, {"ana": True}) is None
    assert judge(None, True, both, {"ana": True, "bob": True}) == APPROVED
    for veto in (True, False):
        assert judge(None, veto, both, {"ana": False}) == REJECTED


def test_without_a_veto_rejections_decide_once_approval_is_out_of_reach() -> None:
    three = ("ana", "bob", "carl")
    assert judge(2, False, three, {"ana": False}) is None
    assert judge(2, False, three, {"ana": False, "bob": True}) is None
    assert judge(2, False, three, {"ana": False, "bob": False}) == REJECTED
    assert judge(2, True, three, {"ana": False}) == REJECTED


def test_what_more_have_to_approve_than_are_asked_stays_open_until_somebody_rejects() -> None:
    assert judge(3, False, ("ana", "bob"), {"ana": True, "bob": True}) is None
    assert judge(3, False, ("ana", "bob"), {"ana": True, "bob": False}) == REJECTED


def test_among_anybody_rejections_without_a_veto_never_suffice() -> None:
    assert judge(2, False, None, dict.fromkeys(PEOPLE, False)) is None
    assert judge(2, False, None, {"ana": True, "bob": False, "carl": True}) == APPROVED


@given(needs, st.booleans(), somebody, votes)
def test_the_order_of_decisions_says_nothing(
    need: int | None, veto: bool, eligible: frozenset[str], given_votes: dict[str, bool]
) -> None:
    backwards = dict(reversed(given_votes.items()))
    assert judge(need, veto, eligible, given_votes) == judge(need, veto, eligible, backwards)


@given(st.integers(1, 5), st.booleans(), somebody, votes)
def test_it_comes_to_what_every_further_decision_would_leave_it_at(
    need: int, veto: bool, eligible: frozenset[str], given_votes: dict[str, bool]
) -> None:
    """Decided is what can no longer change: checked against all that may still be said."""
    found = judge(need, veto, eligible, given_votes)
    rejected = not all(given_votes.values())
    left = sorted(eligible - given_votes.keys())
    futures = [
        sum(given_votes.values()) + sum(rest) >= need
        for rest in itertools.product((True, False), repeat=len(left))
    ]
    if rejected and veto:
        assert found == REJECTED
    elif given_votes and all(futures):
        assert found == APPROVED
    elif rejected and not any(futures):
        assert found == REJECTED
    else:
        assert found is None


@given(votes, somebody)
def test_all_are_those_who_may_decide_now_and_those_who_have(
    given_votes: dict[str, bool], eligible: frozenset[str]
) -> None:
    found = judge(None, False, eligible, given_votes)
    everybody = eligible | given_votes.keys()
    approved = all(given_votes.get(each) for each in everybody)
    assert (found == APPROVED) is approved
    assert (found == REJECTED) is (False in given_votes.values())


# --- time ---


def test_reminders_come_one_after_the_other_until_there_have_been_enough() -> None:
    asked = terms(Reminder(10, 5, 3))
    assert due(asked, 9.9, 0, 0).next == 10
    first = due(asked, 10, 0, 0)
    assert (first.remind, first.reminders, first.next) == (True, 1, 15)
    assert not due(asked, 14, 1, 0).remind
    last = due(asked, 20, 2, 0)
    assert (last.remind, last.reminders, last.next) == (True, 3, None)
    assert not due(asked, 1000, 3, 0).remind


def test_a_clock_that_was_late_reminds_once() -> None:
    late = due(terms(Reminder(10, 5, 9)), 31, 0, 0)
    assert (late.remind, late.reminders, late.next) == (True, 5, 35)


def test_a_reminder_without_every_comes_once() -> None:
    once = due(terms(Reminder(10, None, 1)), 100, 0, 0)
    assert (once.remind, once.next) == (True, None)


def test_levels_are_reached_in_order_and_together_if_the_clock_was_late() -> None:
    asked = terms(None, 10, 20, 30)
    opened = due(asked, 0, 0, 0)
    assert (len(opened.levels), opened.level, opened.next) == (1, 1, 10)
    first = due(asked, 10, 0, 1)
    assert (len(first.levels), first.level, first.next) == (1, 2, 20)
    late = due(asked, 25, 0, 1)
    assert ([level.after for level in late.levels], late.level, late.next) == ([10, 20], 3, 30)
    assert due(asked, 99, 0, 4).levels == ()


def test_what_is_due_first_is_looked_at_first() -> None:
    assert due(terms(Reminder(30, None, 1), 20), 0, 0, 0).next == 20
    assert due(terms(Reminder(30, None, 1), 20), 20, 0, 0).next == 30


@given(
    st.floats(0, 100),
    st.none() | st.floats(1, 50),
    st.integers(1, 9),
    st.lists(st.floats(0, 200), max_size=4).map(sorted),
)
def test_whoever_looks_when_told_to_does_everything_once(
    after: float, every: float | None, at_most: int, levels: list[float]
) -> None:
    asked = terms(Reminder(after, every, at_most if every else 1), *levels)
    reminders = level = reminded = reached = 0
    moment: float | None = 0.0
    while moment is not None:
        now = due(asked, moment, reminders, level)
        assert now.next is None or now.next > moment
        reminded += now.remind
        reached += len(now.levels)
        reminders, level, moment = now.reminders, now.level, now.next
    assert reminded == (at_most if every else 1)
    assert reached == 1 + len(levels)
