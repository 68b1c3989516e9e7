"""The graph dialect: `{"version": 1, "nodes": […], "edges": […]}`, as React Flow draws it.

* A node: `id`, `type`, `config`, and optionally `on_error` (`stop`, `continue`, `goto:<id>`),
  `retry`, `timeout_seconds`, `max_visits`, `ports`, `join`, `parentId`, `on_unknown` and
  `compensate` (see `specs.undoing`). What React Flow keeps in nodes and edges for drawing is
  accepted and ignored; other unknown fields are problems, except `x-…`.
* A node with `parentId` stands in the body of the loop of that name. Edges never leave a body; the
  nodes of a body that no edge leads to start each iteration.
* Runs start at a trigger node. Without any trigger node, the nodes that no edge leads to start.
  A `meta_error` is reached only by `goto`, as is any node that a `goto` names and no edge does.
* `on_failure`, beside `nodes`, holds tasks that run when a run fails: see `specs.undoing`.
* Edges: see `specs.edges`; joins: see `specs.wiring`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from permaflow.plan import STOP, Compiled, Json, Plan, TaskTypes
from specs.documents import (
    Reader,
    Step,
    check_between,
    place_in_loops,
    read_document,
    read_id,
)
from specs.edges import read_edges
from specs.json_limits import MAX_EDGES, MAX_NODES, MAX_TRIGGERS
from specs.options import read_options, read_timeout
from specs.react_flow import NODE_FIELDS
from specs.reading import Fields, shown
from specs.undoing import Undoing, nodes_of
from specs.wiring import Wiring

_DOCUMENT = frozenset(
    {"version", "nodes", "edges", "timeout_seconds", "on_failure", "name", "description"}
)
_DOCUMENT_EXTRAS = frozenset({"viewport", "id", "metadata", "$schema"})
_NODE = frozenset(
    {
        "id",
        "type",
        "config",
        "on_error",
        "on_unknown",
        "compensate",
        "retry",
        "ports",
        "timeout_seconds",
        "max_visits",
        "join",
        "parentId",
        "name",
        "description",
    }
)


class GraphDialect:
    """Implements `permaflow.plan.Dialect`."""

    name: str = "graph"

    def recognises(self, document: Json) -> bool:
        return type(document) is dict and ("nodes" in document or "edges" in document)

    def compile(self, document: Json, types: TaskTypes) -> Compiled:
        return read_document(document, lambda fields: _Graph(fields, types).compile())


@dataclass(slots=True)
class _Graph:
    document: Fields
    types: TaskTypes
    reader: Reader = field(init=False)
    undoing: Undoing = field(init=False)
    steps: dict[str, Step] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.reader = Reader(self.types, self.document.report)
        self.undoing = Undoing(self.reader, "timeout_seconds")

    def compile(self) -> Compiled:
        document = self.document
        document.only(_DOCUMENT, _DOCUMENT_EXTRAS)
        _check_version(document)
        timeout = read_timeout(document, "timeout_seconds")
        self.read_nodes()
        handlers = self.undoing.of_document(document, self.steps)
        edges = document.array("edges")
        if len(edges) > MAX_EDGES:
            document.problem("edges", "too_large", f"A workflow may have {MAX_EDGES:,} edges.")
            edges = []
        place_in_loops(self.steps, "node", "parentId")
        wired = read_edges(edges, document.at("edges"), self.steps, document.report)
        check_between(self.steps, handlers)
        nodes = Wiring(self.steps, wired, document.report).connect()
        triggers = tuple(s.trigger for s in self.steps.values() if s.trigger is not None)
        if len(triggers) > MAX_TRIGGERS:
            document.problem("nodes", "too_large", f"At most {MAX_TRIGGERS} can be triggers.")
        if problems := document.report.finish():
            return Compiled(None, problems=problems)
        return Compiled(Plan(nodes, timeout=timeout, on_failure=nodes_of(handlers)), triggers)

    def read_nodes(self) -> None:
        document = self.document
        nodes = document.array("nodes", required=True)
        if len(nodes) > MAX_NODES:
            document.problem("nodes", "too_large", f"A workflow may have {MAX_NODES:,} nodes.")
            return
        if not nodes and type(document.values.get("nodes")) is list:
            document.problem("nodes", "empty", "A workflow needs at least one node.")
        for index, fields in document.objects(nodes, "nodes", "A node"):
            self.read_node(fields, index)

    def read_node(self, fields: Fields, index: int) -> None:
        fields.only(_NODE, NODE_FIELDS)
        name, type_name = read_id(fields, "id"), fields.text("type", required=True)
        parent = fields.text("parentId") or fields.text("parentNode")
        # A node whose id is unusable is still read, so that all its problems are told at once.
        step = Step(name or f"#{index}", type_name or "", index, fields, parent=parent)
        if type_name is not None:
            config = fields.values.get("config")
            config_at = fields.at("config")
            self.reader.fill(
                step,
                {} if config is None else config,
                lambda inner: config_at + inner,
                fields.at("type"),
            )
        read_options(step, "timeout_seconds", STOP)
        self.undoing.of_step(step)
        if name is None:
            return
        if name in self.steps:
            first = self.steps[name].index
            fields.problem(
                "id",
                "duplicate",
                f"{shown(name)} is also the id of node {first}; every node needs its own.",
            )
            return
        self.steps[name] = step


def _check_version(document: Fields) -> None:
    version = document.values.get("version")
    if version is not None and (type(version) is not int or version != 1):
        document.problem(
            "version", "bad_value", f"`version` is {shown(version)}; the version of graphs is 1."
        )
