"""Cells of what a runner does: tasks that reach the outside, that write, that compute; and the
nodes around such a task.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from tests.matrix.cells import PATIENT, WHAT, Cell, Json, Situation, edge, node, request, token
from tests.matrix.outside import Outside

S = Situation
AT_WORK = (S.SUCCESS, S.CANCEL, S.KILLED, S.REDELIVERED)
"""What can happen to a node that only waits for others."""

Reaching = Callable[[Outside, str, str], Json]
REACHING: dict[tuple[str, str], Reaching] = {
    ("action_http", ""): lambda out, what, token: {
        "url": out.url(what, token),
        "timeout_seconds": PATIENT,
    },
    ("action_email", ""): lambda out, what, token: {
        "to": f"{what}-{token}@example.com",
        "subject": "Hello",
        "text": "Hello.",
        "timeout_seconds": PATIENT,
    },
    ("action_notification", "slack"): lambda out, what, token: {
        "channel": "slack",
        "webhook": out.url(what, token),
        "payload": {"title": "Hello"},
        "timeout_seconds": PATIENT,
    },
    ("action_notification", "teams"): lambda out, what, token: {
        "channel": "teams",
        "webhook": out.url(what, token),
        "payload": {"title": "Hello"},
        "timeout_seconds": PATIENT,
    },
    ("action_integration", ""): lambda out, what, token: {
        "connection_id": "one",
        "action_key": "reach",
        "params": {"url": out.url(what, token)},
    },
    ("code_function", ""): lambda out, what, token: {
        "function_slug": "reach-out",
        "input": {"url": out.url(what, token)},
    },
}
"""Type and kind → the config with which the outside does what the situation wants."""

Writing = Callable[[str], Json]
WRITING: dict[tuple[str, str], tuple[str, Writing]] = {
    ("action_record", ""): (
        "permaflow.record",
        lambda text: {"operation": "create", "object": text, "data": {"n": 1}},
    ),
    ("action_record", "a table"): (
        "matrix.thing",
        lambda text: {
            "operation": "create",
            "source": "shop",
            "table": "matrix.thing",
            "values": {"name": text, "n": 1},
        },
    ),
    ("action_report", ""): ("permaflow.document", lambda text: {"rows": [{"a": 1}], "name": text}),
    ("action_turn", ""): ("permaflow.record", lambda text: {"rotation": text, "among": ["ana"]}),
    ("action_notification", "a user"): (
        "permaflow.notification",
        lambda text: {"recipient": text, "payload": {"title": text}},
    ),
}
"""Type and kind → the table that it writes to, and the config of a text (see `matrix.tables`)."""


def acting(out: Outside) -> Iterator[Cell]:
    for situation in Situation:
        for (name, kind), config in REACHING.items():
            given = config(out, WHAT[situation], token(name, situation, kind))
            it = node(name, given, situation)
            yield Cell(name, situation, {"timeout_seconds": PATIENT} | it, kind, reaches=True)
        for (name, kind), (_, configure) in WRITING.items():
            it = node(name, configure(text(name, situation, kind)), situation)
            yield killed_late(Cell(name, situation, it, kind))
        yield snippet(situation)
        if situation is not S.RETRYABLE:
            yield loop(out, situation)
        if situation in AT_WORK:
            yield forked(out, situation, "logic_parallel", {"join": "any"})
            yield forked(out, situation, "logic_join", {"join": "all"})
            yield handled(out, situation)


def text(name: str, situation: Situation, kind: str) -> str:
    """What a step writes. Nothing holds one that is delivered again: it writes, and then again."""
    what = "ok" if situation is S.REDELIVERED else WHAT[situation]
    return f"do-{what}-{token(name, situation, kind)}"


def killed_late(cell: Cell) -> Cell:
    """Statements have a timeout, and moments come: what waits for either begins before the kill."""
    if cell.situation is not S.KILLED:
        return cell
    return replace(cell, gate="held", late=True)


def snippet(situation: Situation) -> Cell:
    """It has no outside but the clock: some are busy until the moment that a node before names."""
    busy = "while (Date.now() < input) {} return 1;"
    code = {
        S.SUCCESS: "return 1;",
        S.RETRYABLE: busy,
        S.FINAL: "throw new Error('no');",
        S.TIMEOUT: "while (true) {}",
        S.CANCEL: "while (true) {}",
        S.KILLED: busy,
        S.REDELIVERED: "return 1;",
    }[situation]
    config: Json = {"code": code, "timeout_seconds": 1 if situation is S.RETRYABLE else 120}
    gate = ""
    if code is busy:
        config["input"] = "{{steps.gate.output.body.at_ms}}"
        gate = "ok"
    cell = Cell("code_snippet", situation, node("code_snippet", config, situation), gate=gate)
    return killed_late(cell)


def loop(out: Outside, situation: Situation) -> Cell:
    url = out.url(WHAT[situation], token("logic_loop", situation))
    body = request("body", url, parentId="it")
    it = node("logic_loop", {"items": [1], "mode": "parallel"}, situation)
    return Cell("logic_loop", situation, it, more=(body,), acts="body", reaches=True)


def forked(out: Outside, situation: Situation, name: str, join: Json) -> Cell:
    """Two branches that join; `any` joins one of them that nobody follows."""
    branch = request("branch", out.url(WHAT[situation], token(name, situation)))
    other = {"id": "other", "type": "logic_parallel", "config": {}}
    last = {"id": "last", "type": "logic_join", "config": join}
    edges = [edge("it", "branch"), edge("it", "other"), edge("branch", "last")]
    if join["join"] == "all":
        edges.append(edge("other", "last"))
    return Cell(
        name,
        situation,
        {"id": "it", "type": "logic_parallel", "config": {}},
        more=(branch, other, last),
        edges=tuple(edges),
        acts="branch",
        reaches=True,
        last="last",
    )


def handled(out: Outside, situation: Situation) -> Cell:
    """A step that fails, and a handler whose follower tells the outside."""
    mine = token("meta_error", situation)
    it = request("it", out.url("no", f"{mine}-no"), on_error="goto:handler")
    handler = {"id": "handler", "type": "meta_error", "config": {}}
    tell = request("tell", out.url(WHAT[situation], mine))
    return Cell(
        "meta_error",
        situation,
        it,
        more=(handler, tell),
        edges=(edge("handler", "tell"),),
        acts="tell",
        reaches=True,
        last="tell",
    )
