"""What an installation may lower: the limits of a workflow beside those of its text.

The values here are the highest that there are. A document says less with `max_items` and
`max_visits`; the smaller of the two counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from permaflow.plan import Compiled, Loop, Node, Plan, Problem, Question
from specs.json_limits import MAX_NODES
from specs.logic import MAX_ITEMS
from specs.options import MAX_VISITS
from specs.subworkflows import KIND as CHILD
from specs.subworkflows import MAX_CHILDREN, MAX_DEPTH

MAX_STEPS = 1_000_000


@dataclass(frozen=True, slots=True)
class Limits:
    """Nodes of a document, items of a loop, visits of a node by `goto`, steps of a run, how deep
    sub-workflows may stand in each other, and how many runs may be started below one.
    """

    nodes: int = MAX_NODES
    items: int = MAX_ITEMS
    visits: int = MAX_VISITS
    steps: int = MAX_STEPS
    depth: int = MAX_DEPTH
    children: int = MAX_CHILDREN

    def hold(self, plan: Plan) -> Plan:
        """The plan, with no limit above these."""
        nodes = {name: self._node(node) for name, node in plan.nodes.items()}
        return replace(plan, nodes=nodes, max_steps=min(plan.max_steps, self.steps))

    def _node(self, node: Node) -> Node:
        work = node.work
        if isinstance(work, Loop) and work.max_items > self.items:
            work = replace(work, max_items=self.items)
        if isinstance(work, Question) and work.kind == CHILD:
            most = {"max_depth": self.depth, "max_children": self.children}
            work = replace(work, config={**work.config, **most})
        visits = min(node.max_visits, self.visits)
        if work is node.work and visits == node.max_visits:
            return node
        return replace(node, work=work, max_visits=visits)

    def problems(self, compiled: Compiled) -> tuple[Problem, ...]:
        """What is wrong with a document that compiles, but is larger than is allowed here."""
        plan = compiled.plan
        if plan is None or len(plan.nodes) <= self.nodes:
            return ()
        message = f"The workflow has {len(plan.nodes):,} nodes; at most {self.nodes:,} are allowed."
        return (Problem("", "too_large", message),)


HIGHEST_LIMITS = Limits()
