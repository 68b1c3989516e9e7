"""What each node of a graph waits for.

A node with several edges into it is a join; `join` at the node, or in the config of `logic_join`
and `logic_parallel`, is one of:

* `"all"` (the default): wait until each edge is taken or never will be; fire if any was taken.
* `"any"`: fire with the first. `{"at_least": n}` or `{"n_of_m": n}`: with the n-th. What works for
  nothing but this join is then cancelled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from permaflow.plan import (
    ANY_RESULT,
    CONTINUE,
    FAILURES,
    ROOT,
    STOP,
    TAKEN,
    Always,
    AtLeast,
    Never,
    Node,
    Or,
    Ref,
    Settled,
    Trigger,
    When,
)
from specs.approval_ports import main_port, settle
from specs.documents import Step, jumps_of, round_trip
from specs.edges import Edge
from specs.ordering import Graph, Losers, cycles, reverse, starts, topological
from specs.reading import Report, shown

JOINING = ("logic_join", "logic_parallel")


@dataclass(slots=True)
class Wiring:
    """Steps and the edges between them. Reports what can never be reached or satisfied."""

    steps: Mapping[str, Step]
    edges: Sequence[Edge]
    report: Report

    def connect(self) -> dict[str, Node]:
        """The nodes of the plan, in the order of the document; of use only without problems."""
        steps, into, graph = self.steps, self._incoming(), self._graph()
        settle(steps, ((edge.source, edge.port) for edge in self.edges))
        for ring in cycles(graph):
            steps[ring[0]].problem(
                "",
                "cycle",
                f"These nodes wait for each other: {round_trip(ring)}. Remove one of the edges; "
                "to repeat steps, use a loop or `on_error: goto:<id>`.",
            )
        # An `error` edge makes the failure of its source an outcome like any other.
        forked = {edge.source for edge in self.edges if edge.on_failure}
        for name in forked:
            if steps[name].on_error is STOP:
                steps[name].on_error = CONTINUE
        back = reverse(graph)
        entries = self._entries(graph, back)
        rank = {name: at for at, name in enumerate(topological(graph))}
        # What only a failure leads on from has a purpose of its own.
        kept = forked - {edge.source for edge in self.edges if not edge.on_failure}
        losers = Losers(graph, back, rank, kept)
        exhausted = False
        nodes: dict[str, Node] = {}
        for step in steps.values():
            edges = into[step.id]
            need = read_join(step, len(edges))
            if edges:
                when = self._join(step, edges, need, forked)
            else:
                when = Always() if step.id in entries else Never()
            lost: tuple[str, ...] | None = ()
            # Among cycles there is no order to find losers by, and no plan either.
            if isinstance(when, AtLeast) and len(rank) == len(steps):
                lost = losers.of(step.id)
            if lost is None and not exhausted:
                exhausted = True
                step.problem(
                    "join",
                    "too_large",
                    "The joins before this one reach back over too many nodes; split the workflow, "
                    'or let some of them wait for `"all"`.',
                )
            nodes[step.id] = step.node(when, lost or ())
        return nodes

    def _graph(self) -> dict[str, list[str]]:
        graph: dict[str, dict[str, None]] = {name: {} for name in self.steps}
        for edge in self.edges:
            graph[edge.source][edge.target] = None
        return {name: list(others) for name, others in graph.items()}

    def _incoming(self) -> dict[str, list[Edge]]:
        into: dict[str, list[Edge]] = {name: [] for name in self.steps}
        for edge in self.edges:
            into[edge.target].append(edge)
        return into

    def _entries(self, graph: Graph, back: Graph) -> set[str]:
        """The nodes that start by themselves; reports those that nothing leads to."""
        steps = self.steps
        triggered = any(isinstance(step.work, Trigger) for step in steps.values())

        def may_start(name: str) -> bool:
            step = steps[name]
            return step.type != "meta_error" and (
                isinstance(step.work, Trigger) or step.scope != ROOT or not triggered
            )

        jumps = jumps_of(steps)
        entries, reached = starts(graph, back, jumps, may_start)
        targets = set(jumps.values())
        for step in steps.values():
            if step.type == "meta_error":
                self._check_handler(step, bool(back[step.id]), step.id in targets)
            elif not step.targeted and step.id not in reached:
                step.problem(
                    "",
                    "unreachable",
                    f"Nothing leads to {shown(step.id)}; draw an edge to it from a trigger or "
                    "another node, or remove it.",
                )
        return entries

    def _check_handler(self, step: Step, has_edges: bool, is_target: bool) -> None:
        if has_edges:
            step.problem(
                "",
                "bad_edge",
                f"No edge may lead to the error handler {shown(step.id)}; it is reached by "
                f"`on_error: goto:{step.id}`. Remove the edge.",
            )
        elif not is_target:
            step.problem(
                "",
                "unreachable",
                f"Nothing leads to the error handler {shown(step.id)}; name it in the "
                f"`on_error: goto:{step.id}` of a step, or remove it.",
            )

    def _join(self, step: Step, edges: list[Edge], need: int | None, forked: set[str]) -> When:
        terms = tuple(self._ref(edge, forked) for edge in edges)
        if need is None:
            return terms[0] if len(terms) == 1 else Settled(terms)
        most = self._most_taken(edges)
        if need > most:
            step.problem(
                "join",
                "never_satisfied",
                f"{shown(step.id)} waits for {need} edges, but of the {len(edges)} that lead to "
                f"it at most {most} can be taken; lower the number or add edges.",
            )
        return terms[0] if len(terms) == 1 else AtLeast(need, terms)

    def _ref(self, edge: Edge, forked: set[str]) -> When:
        if edge.on_failure:
            return Ref(edge.source, FAILURES)
        goes_on = self.steps[edge.source].on_error is CONTINUE and edge.source not in forked
        main = None if edge.port else main_port(self.steps[edge.source])
        if not goes_on:
            return Ref(edge.source, TAKEN, edge.port or main)
        if main is not None:
            return Or((Ref(edge.source, TAKEN, main), Ref(edge.source, FAILURES)))
        return Ref(edge.source, ANY_RESULT, edge.port)

    def _most_taken(self, edges: list[Edge]) -> int:
        """How many of these edges can be taken in one run: ports, failures and triggers exclude
        each other."""
        ways = Counter((edge.source, edge.port, edge.on_failure) for edge in edges)
        by_source: dict[str, int] = {}
        for (source, port, failed), count in ways.items():
            # An edge that names no port is taken along with those of any port.
            along = ways[source, None, False] if port is not None and not failed else 0
            by_source[source] = max(by_source.get(source, 0), count + along)
        triggers = [n for name, n in by_source.items() if self.steps[name].trigger is not None]
        return sum(by_source.values()) - sum(triggers) + max(triggers, default=0)


def read_join(step: Step, edges: int) -> int | None:
    """How many edges the join of a node needs; None for `all`."""
    fields, name = step.fields, "join"
    value = fields.values.get("join")
    config = fields.values.get("config")
    number = None
    if value is None and step.type in JOINING and type(config) is dict:
        value, number, name = config.get("join"), config.get("n"), "config"
        if step.type == "logic_parallel" and value is not None and edges < 2:
            fields.problem(
                name,
                "misplaced_join",
                "`join` belongs to the node in which the branches meet: a `logic_join`, or any "
                "node, as `join` beside its `config`.",
            )
            return None
    match value:
        case None | "all":
            return None
        case "any":
            return 1
        case {"at_least": int(count), **rest} | {"n_of_m": int(count), **rest} if not rest:
            number = count
        case "n_of_m" | "n-of-m" | "at_least":
            pass
        case _:
            number = None
    if type(number) is int and number >= 1:
        return number
    fields.problem(
        name,
        "bad_value",
        '`join` must be `"all"`, `"any"` or `{"at_least": n}` with a whole number from 1.',
    )
    return None
