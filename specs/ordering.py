"""Orders, cycles and losers in a directed graph; iterative, and linear in nodes and edges."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

Graph = Mapping[str, Collection[str]]
"""Node → the nodes that its edges lead to. Every node has an entry."""


def reverse(graph: Graph) -> dict[str, list[str]]:
    """Node → the nodes whose edges lead to it."""
    into: dict[str, list[str]] = {name: [] for name in graph}
    for name, others in graph.items():
        for other in others:
            into[other].append(name)
    return into


def topological(graph: Graph) -> list[str]:
    """Every node after those that lead to it; nodes on or behind a cycle are left out."""
    waiting = {name: len(others) for name, others in reverse(graph).items()}
    order = [name for name, count in waiting.items() if count == 0]
    for name in order:
        for other in graph[name]:
            waiting[other] -= 1
            if waiting[other] == 0:
                order.append(other)
    return order


def cycles(graph: Graph) -> list[list[str]]:
    """One cycle for each knot (strongly connected part) that has one, in the order of the edges."""
    rest = graph.keys() - set(topological(graph))
    found: list[list[str]] = []
    done: set[str] = set()
    for start in graph:
        if start not in rest or start in done:
            continue
        path: list[str] = []
        place: dict[str, int] = {}
        stack = [(start, iter(graph[start]))]
        path.append(start)
        place[start] = 0
        while stack:
            name, others = stack[-1]
            step = next((o for o in others if o in rest and o not in done), None)
            if step is None:
                stack.pop()
                done.add(path.pop())
                del place[name]
            elif step in place:
                found.append(path[place[step] :])
                # What is on the way is told of once; the rest may hold other cycles.
                done.update(path)
                break
            else:
                place[step] = len(path)
                path.append(step)
                stack.append((step, iter(graph[step])))
    return found


def starts(
    graph: Graph, into: Graph, jumps: Mapping[str, str], may_start: Callable[[str], bool]
) -> tuple[set[str], set[str]]:
    """The nodes that start by themselves, and all that is reached from them.

    Those start that no edge leads to, unless a jump does (`jumps`: node → where it may jump to):
    then the node waits for the jump, if what jumps is reached without it. A node that only jumps
    back to itself, or that its own followers jump back to, starts.
    """
    entries: set[str] = set()
    reached: set[str] = set()
    targets = set(jumps.values())
    roots = [name for name in graph if not into[name] and may_start(name)]
    for name in sorted(roots, key=targets.__contains__):
        if name in reached:
            continue
        entries.add(name)
        reached.add(name)
        stack = [name]
        while stack:
            here = stack.pop()
            others = [*graph[here], jumps[here]] if here in jumps else graph[here]
            for other in others:
                if other not in reached:
                    reached.add(other)
                    stack.append(other)
    return entries, reached


@dataclass(slots=True)
class Losers:
    """Finds the ancestors of a join that work for nothing else.

    `rank` is the place of a node in a topological order. `looks` is the budget of all searches
    together: joins nested in each other make every search long. Nodes in `kept` are never lost.
    """

    graph: Graph
    into: Graph
    rank: Mapping[str, int]
    kept: Collection[str] = ()
    looks: int = 150_000

    def of(self, join: str) -> tuple[str, ...] | None:
        """The nodes from which every path leads to `join`; None once the budget is spent.

        The walk goes back no further than the last node that all paths to the join pass through:
        that one has ended when the join fires, and so has whatever it waited for.
        """
        lost: dict[str, None] = {join: None}
        seen = set(self.into[join])
        heap = [(-self.rank[name], name) for name in seen]
        heapify(heap)
        rooted = False
        while heap:
            _, name = heappop(heap)
            if not heap and not rooted:
                break
            sources, targets = self.into[name], self.graph[name]
            self.looks -= len(sources) + len(targets)
            if self.looks < 0:
                return None
            rooted = rooted or not sources
            if name not in self.kept and all(other in lost for other in targets):
                lost[name] = None
            for other in sources:
                if other not in seen:
                    seen.add(other)
                    heappush(heap, (-self.rank[other], other))
        del lost[join]
        return tuple(lost)
