"""The edges of the graph dialect: `id`, `source`, `target`, and `sourceHandle` for ways out.

* Out of a condition, the handle is `true` or `false`; an edge without one is the `true` one, which
  is what comes first when a condition is drawn. Out of a switch it is a case or the default, and
  must be given.
* Out of an approval it is `approved`, `rejected` or `timed_out`; an edge without one is the
  `approved` one.
* `error`, out of any node that can fail, is taken when the node has failed for good. Such an edge
  lets the run go on, as `on_error: continue` does, and the node's other edges are then taken only
  on success.
* Out of a task that declares `ports`, it is the port that the task's result names; an edge without
  one is taken whichever it is.
* Out of a delay until a field meets a condition it is `met` or `timed_out`; an edge without one is
  the `met` one.
* Other handles, out of other nodes, say where a line is drawn and mean nothing.

Otherwise an edge is taken when its source succeeds; with `on_error: continue` also when it fails.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from permaflow.plan import ROOT, Branch, Goto, Json
from specs.documents import Step
from specs.react_flow import EDGE_FIELDS
from specs.reading import Fields, Report, kind_of, shown
from specs.work import may_fail

ERROR = "error"

_EDGE = frozenset({"id", "source", "target", "sourceHandle", "targetHandle"})


@dataclass(frozen=True, slots=True)
class Edge:
    """An edge that makes sense: both ends are known, and in the same scope."""

    source: str
    target: str
    port: str | None
    on_failure: bool
    pointer: str


def read_edges(
    values: list[Json], pointer: str, steps: Mapping[str, Step], report: Report
) -> list[Edge]:
    """`steps` have their scopes already."""
    edges: list[Edge] = []
    ids: dict[str, int] = {}
    known: set[tuple[str, str, str | None, bool]] = set()
    for index, value in enumerate(values):
        place = f"{pointer}/{index}"
        if type(value) is not dict:
            message = f"An edge is an object, but this is {kind_of(value)}."
            report.add(place, "wrong_type", message)
            continue
        fields = Fields(value, place, report)
        fields.only(_EDGE, EDGE_FIELDS)
        name = fields.text("id")
        if name is not None and ids.setdefault(name, index) != index:
            fields.problem(
                "id", "duplicate", f"{shown(name)} is also the id of edge {ids[name]}; rename one."
            )
        edge = _edge(fields, steps)
        if edge is None:
            continue
        key = (edge.source, edge.target, edge.port, edge.on_failure)
        if key in known:
            message = f"There is another edge from {shown(edge.source)} to {shown(edge.target)}."
            fields.problem("", "duplicate", f"{message} Remove one.")
            continue
        known.add(key)
        edges.append(edge)
    return edges


def _edge(fields: Fields, steps: Mapping[str, Step]) -> Edge | None:
    source, target = _end(fields, "source", steps), _end(fields, "target", steps)
    if target is not None:
        target.targeted = True
    if source is None or target is None:
        return None
    if source.scope != target.scope:
        fields.problem("", "crosses_loop", _crossing(source, target))
        return None
    if target.trigger is not None:
        fields.problem(
            "target", "bad_edge", f"{shown(target.id)} is a trigger; nothing can lead to it."
        )
        return None
    handle = fields.text("sourceHandle") or None
    if handle == ERROR and ERROR not in source.ways():
        return _on_failure(fields, source, target)
    if isinstance(source.work, Branch):
        port = _port(fields, source, handle)
        return None if port is None else Edge(source.id, target.id, port, False, fields.pointer)
    ports = source.ways()
    if ports and handle is not None and _port(fields, source, handle) is None:
        return None
    port = handle if ports else None
    return Edge(source.id, target.id, port, False, fields.pointer)


def _end(fields: Fields, name: str, steps: Mapping[str, Step]) -> Step | None:
    value = fields.text(name, required=True)
    if value is None:
        return None
    step = steps.get(value)
    if step is None:
        fields.problem(
            name,
            "unknown_node",
            f"There is no node {shown(value)}; {fields.report.guess(value, steps)}"
            f"`{name}` is the id of a node.",
        )
    return step


def _crossing(source: Step, target: Step) -> str:
    if target.scope == source.id:
        return (
            f"{shown(target.id)} is in the body of {shown(source.id)}; what no edge leads to "
            "starts the body by itself. Remove this edge."
        )
    if source.scope != ROOT:
        return (
            f"{shown(source.id)} is in the body of the loop {shown(source.scope)}, and "
            f"{shown(target.id)} is not; draw the edge from the loop instead."
        )
    return (
        f"{shown(target.id)} is in the body of the loop {shown(target.scope)}, and "
        f"{shown(source.id)} is not; draw the edge to the loop instead."
    )


def _on_failure(fields: Fields, source: Step, target: Step) -> Edge | None:
    if not may_fail(source.work):
        fields.problem(
            "sourceHandle",
            "never_taken",
            f"{shown(source.id)} cannot fail, so this edge is never taken; remove it.",
        )
        return None
    said = source.fields.values.get("on_error")
    if isinstance(source.on_error, Goto) or said == "stop":
        fields.problem(
            "sourceHandle",
            "never_taken",
            f"{shown(source.id)} says `on_error: {said}`, so its `error` edge is never taken; "
            "remove one of the two.",
        )
        return None
    return Edge(source.id, target.id, None, True, fields.pointer)


def _port(fields: Fields, source: Step, handle: str | None) -> str | None:
    ports = source.ways()
    condition = source.type == "logic_condition"
    if handle is None and condition:
        return "true"
    if handle is not None:
        if handle in ports:
            return handle
        if condition and handle.lower() in ports:
            return handle.lower()
    what = "is missing" if handle is None else f"is {shown(handle)}"
    fields.problem(
        "" if handle is None else "sourceHandle",
        "unknown_handle",
        f"`sourceHandle` {what}; {fields.report.guess(handle or '', ports)}"
        f"the ways out of {shown(source.id)} are {', '.join(ports)} and error.",
    )
    return None
