"""A cell: one workflow with a node of some type, in one of the seven situations."""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tests.matrix.outside import Outside

Json = Any


class Situation(StrEnum):
    SUCCESS = "success"
    RETRYABLE = "retryable failure"
    FINAL = "final failure"
    TIMEOUT = "timeout"
    CANCEL = "cancel"
    KILLED = "kill -9 of its runner"
    REDELIVERED = "redelivery"


WHAT = {
    Situation.SUCCESS: "ok",
    Situation.RETRYABLE: "flaky",
    Situation.FINAL: "no",
    Situation.TIMEOUT: "hang",
    Situation.CANCEL: "hang",
    Situation.KILLED: "held",
    Situation.REDELIVERED: "held",
}
"""What the outside does in a situation."""

PATIENT = 170
"""Seconds that nothing takes which is not held for ever, on however slow a machine."""

RUNNER, ORCHESTRATOR = "runner", "orchestrator"


@dataclass(frozen=True, eq=False)
class Cell:
    """`node` (`it`) is the node in question, `kind` tells apart those of one type, `more` and
    `edges` are what stands around it.

    `vertex` works it off: if it is the runner, then the node `acts`, of which the outside hears if
    it `reaches`. `gate` is what the outside does with a node before `it`: one that is held is let
    go after the kill, or if `late` just before it. When something is delivered again, a node after
    the port `handle` of `last` keeps the run open meanwhile.
    """

    type: str
    situation: Situation
    node: Json
    kind: str = ""
    more: tuple[Json, ...] = ()
    edges: tuple[Json, ...] = ()
    vertex: str = RUNNER
    acts: str = "it"
    reaches: bool = False
    gate: str = ""
    late: bool = False
    last: str = "it"
    handle: str | None = None
    trigger: Json = None

    def __str__(self) -> str:
        kind = f" ({self.kind})" if self.kind else ""
        return f"{self.type}{kind}: {self.situation}"

    @property
    def token(self) -> str:
        """The name by which the outside knows it."""
        return token(self.type, self.situation, self.kind)

    def document(self, out: Outside) -> Json:
        start = self.trigger or {"id": "start", "type": "trigger_manual", "config": {}}
        nodes = [start, *self.more]
        edges = list(self.edges)
        if not self.trigger:
            nodes.append(self.node)
            edges.append(edge("gate" if self.gate else start["id"], "it"))
        if self.gate:
            nodes.append(request("gate", out.url(self.gate, f"gate-{self.token}")))
            edges.append(edge(start["id"], "gate"))
        if self.situation is Situation.REDELIVERED:
            nodes.append(request("tail", out.url("held", f"tail-{self.token}")))
            edges.append(edge(self.last, "tail", self.handle))
        return {"version": 1, "nodes": nodes, "edges": edges}


def token(type_name: str, situation: Situation, kind: str = "") -> str:
    return re.sub("[^a-z]+", "-", f"{type_name} {kind} {situation.name}".lower())


def edge(source: str, target: str, handle: str | None = None) -> Json:
    found = {"id": f"{source}-{target}", "source": source, "target": target}
    return found if handle is None else found | {"sourceHandle": handle}


def request(name: str, url: str, **more: Json) -> Json:
    config = {"url": url, "timeout_seconds": PATIENT}
    return {"id": name, "type": "action_http", "config": config, "timeout_seconds": PATIENT, **more}


def node(type_name: str, config: Json, situation: Situation) -> Json:
    found = {"id": "it", "type": type_name, "config": config}
    if situation is Situation.TIMEOUT:
        found["timeout_seconds"] = 0.7
    if situation is Situation.RETRYABLE:
        found["retry"] = {"max_retries": 100, "initial_delay_ms": 20, "max_delay_ms": 500}
    return found
