from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from specs.ordering import Losers, cycles, reverse, starts, topological


def losers(join: str, graph: dict[str, list[str]], kept: tuple[str, ...] = ()) -> set[str]:
    rank = {name: at for at, name in enumerate(topological(graph))}
    found = Losers(graph, reverse(graph), rank, kept).of(join)
    assert found is not None
    return set(found)


def test_an_order_puts_every_node_after_those_that_lead_to_it() -> None:
    graph = {"c": ["d"], "a": ["b", "c"], "b": ["d"], "d": []}
    order = topological(graph)
    assert order.index("a") < order.index("b") < order.index("d")
    assert order.index("c") < order.index("d")


def test_each_knot_of_a_graph_gives_one_cycle() -> None:
    graph = {"a": ["b"], "b": ["c"], "c": ["b", "d"], "d": ["e"], "e": ["d"], "f": ["f"]}
    assert sorted(map(sorted, cycles(graph))) == [["b", "c"], ["d", "e"], ["f"]]
    assert cycles({"a": ["b"], "b": []}) == []


def test_a_long_chain_and_a_long_ring_need_no_deep_stack() -> None:
    names = [str(i) for i in range(20_000)]
    chain = {name: [after] for name, after in itertools.pairwise(names)} | {names[-1]: []}
    assert topological(chain) == names
    assert cycles(chain | {names[-1]: [names[0]]}) == [names]


def test_the_losers_of_a_join_are_the_branches_that_lead_only_to_it() -> None:
    graph = {
        "t": ["fork"],
        "fork": ["a1", "b", "c"],
        "a1": ["a2"],
        "a2": ["join"],
        "b": ["join", "elsewhere"],
        "c": ["join"],
        "join": ["after"],
        "after": [],
        "elsewhere": [],
    }
    assert losers("join", graph) == {"a1", "a2", "c"}
    assert losers("join", graph, kept=("c",)) == {"a1", "a2"}


def test_inner_forks_are_lost_with_their_branch() -> None:
    graph = {
        "t": ["p", "q"],
        "p": ["p1", "p2"],
        "p1": ["pj"],
        "p2": ["pj"],
        "pj": ["join"],
        "q": ["join"],
        "join": [],
    }
    assert losers("join", graph) == {"p", "p1", "p2", "pj", "q"}
    assert losers("pj", graph) == {"p1", "p2"}


def test_the_search_for_losers_has_a_budget() -> None:
    graph = {"t": ["a", "b"], "a": ["join"], "b": ["join"], "join": []}
    rank = {name: at for at, name in enumerate(topological(graph))}
    assert Losers(graph, reverse(graph), rank, looks=1).of("join") is None


@st.composite
def dags(draw: st.DrawFn) -> dict[str, list[str]]:
    size = draw(st.integers(2, 9))
    names = [str(i) for i in range(size)]
    return {
        name: sorted(draw(st.sets(st.sampled_from(names[i + 1 :]), max_size=3)))
        if names[i + 1 :]
        else []
        for i, name in enumerate(names)
    }


@given(dags())
def test_losers_are_what_every_way_onward_from_leads_to_the_join(
    graph: dict[str, list[str]],
) -> None:
    join = list(graph)[-1]

    def ends(name: str) -> set[str]:
        if name == join:
            return {join}
        return set().union(*(ends(other) for other in graph[name])) if graph[name] else {name}

    only = {name for name in graph if name != join and ends(name) == {join}}
    found = losers(join, graph)
    assert found <= only
    # What is left out has certainly ended: all ways to the join pass through one node first.
    for name in only - found:
        entries = [n for n, others in reverse(graph).items() if not others]
        assert any(
            cut not in found and cut != join and not reaches(graph, entries, join, cut)
            for cut in graph
        ), name


def reaches(graph: dict[str, list[str]], starts: list[str], target: str, without: str) -> bool:
    seen = {name for name in starts if name != without}
    stack = list(seen)
    while stack:
        for other in graph[stack.pop()]:
            if other != without and other not in seen:
                seen.add(other)
                stack.append(other)
    return target in seen


def begin(graph: dict[str, list[str]], jumps: dict[str, str]) -> set[str]:
    return starts(graph, reverse(graph), jumps, lambda _: True)[0]


def test_a_node_that_another_jumps_to_waits_for_the_jump() -> None:
    assert begin({"a": ["b"], "b": [], "h": []}, {"a": "h"}) == {"a"}
    assert begin({"h": [], "a": ["b"], "b": []}, {"b": "h"}) == {"a"}


def test_a_node_that_its_own_followers_jump_back_to_starts() -> None:
    assert begin({"a": ["b"], "b": []}, {"b": "a"}) == {"a"}
    assert begin({"a": []}, {"a": "a"}) == {"a"}


def test_handlers_of_handlers_wait() -> None:
    assert begin({"a": [], "h": [], "g": []}, {"a": "h", "h": "g"}) == {"a"}
