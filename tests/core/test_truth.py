"""Three-valued truth against brute force, and against its other definition."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from permaflow.plan import (
    Always,
    And,
    AtLeast,
    Never,
    Not,
    Or,
    Outcome,
    Ref,
    Settled,
    When,
    mentions,
)
from pipeline.core.state import NodeState
from pipeline.core.truth import truth
from tests.core.auditor import Step, holds

NAMES = ("a", "b", "c", "d")
ENDS: tuple[tuple[Outcome, str | None], ...] = (
    *((outcome, None) for outcome in Outcome),
    (Outcome.SUCCESS, "x"),
)
End = tuple[Outcome, str | None] | None

refs = st.builds(
    Ref,
    st.sampled_from(NAMES),
    st.frozensets(st.sampled_from(list(Outcome)), max_size=3),
    st.sampled_from((None, None, "x")),
)
leaves: st.SearchStrategy[When] = refs | st.sampled_from((Always(), Never()))


def joined(terms: st.SearchStrategy[When]) -> st.SearchStrategy[When]:
    several = st.lists(terms, max_size=4).map(tuple)
    return st.one_of(
        st.builds(Not, terms),
        st.builds(And, several),
        st.builds(Or, several),
        st.builds(AtLeast, st.integers(0, 5), several),
        st.builds(Settled, several, st.booleans()),
    )


whens = st.recursive(leaves, joined, max_leaves=8)
worlds = st.fixed_dictionaries({name: st.sampled_from((None, None, *ENDS)) for name in NAMES})


def states(ends: dict[str, End]) -> dict[str, NodeState]:
    found = {}
    for name, end in ends.items():
        found[name] = state = NodeState()
        if end is not None:
            state.outcome, state.port = end
    return found


def completions(ends: dict[str, End]) -> Iterator[dict[str, End]]:
    """Every way in which the unknown ends may turn out."""
    names = [name for name, end in ends.items() if end is None]
    for rest in product(ENDS, repeat=len(names)):
        yield ends | dict(zip(names, rest, strict=True))


def plain(when: When, ends: dict[str, End]) -> bool:
    """Two-valued truth, once every end is known."""
    match when:
        case Ref(node=name, outcomes=outcomes, port=port):
            end = ends[name]
            assert end is not None
            return end[0] in outcomes and (port is None or port == end[1])
        case Not(term=term):
            return not plain(term, ends)
        case And(terms=terms):
            return all(plain(term, ends) for term in terms)
        case Or(terms=terms):
            return any(plain(term, ends) for term in terms)
        case AtLeast(count=count, terms=terms):
            return [plain(term, ends) for term in terms].count(True) >= count
        case Settled(terms=terms, every=every):
            truths = [plain(term, ends) for term in terms]
            return any(truths) and (not every or all(truths))
        case _:
            return isinstance(when, Always)


def without_settled(when: When) -> bool:
    match when:
        case Settled():
            return False
        case Not(term=term):
            return without_settled(term)
        case And(terms=terms) | Or(terms=terms) | AtLeast(terms=terms):
            return all(without_settled(term) for term in terms)
        case _:
            return True


def mentioned(when: When) -> list[str]:
    match when:
        case Ref(node=name):
            return [name]
        case Not(term=term):
            return mentioned(term)
        case And(terms=terms) | Or(terms=terms) | AtLeast(terms=terms) | Settled(terms=terms):
            return [name for term in terms for name in mentioned(term)]
        case _:
            return []


@given(whens, worlds)
def test_truth_is_the_least_and_the_greatest_of_false_unknown_and_true(
    when: When, ends: dict[str, End]
) -> None:
    steps = {
        name: Step(outcome=end[0], port=end[1]) if end else Step() for name, end in ends.items()
    }
    assert truth(when, states(ends)) is holds(when, steps)


@given(whens, worlds)
def test_what_is_known_is_so_however_the_rest_turns_out(when: When, ends: dict[str, End]) -> None:
    known = truth(when, states(ends))
    if known is not None:
        names = set(mentions(when))
        fixed = {name: end if name in names else ENDS[0] for name, end in ends.items()}
        assert all(plain(when, each) is known for each in completions(fixed))


@given(whens, worlds)
def test_with_every_end_known_truth_is_plain_truth(when: When, ends: dict[str, End]) -> None:
    for each in list(completions(ends))[:3]:
        assert truth(when, states(each)) is plain(when, each)


@given(whens, worlds)
def test_where_no_node_is_named_twice_nothing_knowable_stays_unknown(
    when: When, ends: dict[str, End]
) -> None:
    names = mentioned(when)
    if len(names) != len(set(names)) or not without_settled(when) or impossible(when):
        return
    fixed = {name: end if name in names else ENDS[0] for name, end in ends.items()}
    answers = {plain(when, each) for each in completions(fixed)}
    assert truth(when, states(ends)) is (answers.pop() if len(answers) == 1 else None)


def impossible(when: When) -> bool:
    """A reference that no end fits is false, but is unknown until its node has ended."""
    match when:
        case Ref(outcomes=outcomes, port=port):
            fits = [end[0] in outcomes and port in (None, end[1]) for end in ENDS]
            return not any(fits) or all(fits)
        case Not(term=term):
            return impossible(term)
        case And(terms=terms) | Or(terms=terms) | AtLeast(terms=terms) | Settled(terms=terms):
            return any(impossible(term) for term in terms)
        case _:
            return False


@given(whens)
def test_mentions_are_the_nodes_in_the_order_in_which_they_are_named(when: When) -> None:
    assert list(mentions(when)) == list(dict.fromkeys(mentioned(when)))


def test_a_join_of_all_waits_for_a_skipped_branch_and_fires_with_the_other() -> None:
    join = Settled((Ref("a"), Ref("b")))
    taken: End = (Outcome.SUCCESS, None)
    assert truth(join, states({"a": taken, "b": None})) is None
    assert truth(join, states({"a": taken, "b": (Outcome.SKIPPED, None)})) is True
    skipped: End = (Outcome.SKIPPED, None)
    assert truth(join, states({"a": skipped, "b": skipped})) is False


def test_a_node_that_nothing_was_heard_of_is_unknown() -> None:
    assert truth(Ref("a"), {}) is None
