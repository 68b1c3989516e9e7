"""Every node type in every situation: the document of each cell, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
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
    Situation.REDELIVERED: "twice",
}
"""What the outside does in a situation."""


@dataclass(frozen=True)
class Cell:
    """One workflow: `node` is the one in question, `more` what stands around it.

    `reaches` is whether the outside hears of it; `vertex` is what works it off. `fails_until` says
    that its attempts fail until the moment that the run is given.
    """

    type: str
    situation: Situation
    node: Json
    more: tuple[Json, ...] = ()
    edges: tuple[Json, ...] = ()
    reaches: bool = True
    vertex: str = "runner"
    trigger: Json = None
    fails_until: bool = False

    def __str__(self) -> str:
        return f"{self.type}: {self.situation}"

    @property
    def document(self) -> Json:
        trigger = self.trigger or {"id": "start", "type": "trigger_manual", "config": {}}
        first = {"id": "first", "source": trigger["id"], "target": "it"}
        nodes = [trigger, *(() if self.trigger else (self.node,)), *self.more]
        edges = [*(() if self.trigger else (first,)), *self.edges]
        return {"version": 1, "nodes": nodes, "edges": edges}


def node(type_name: str, config: Json, situation: Situation, **more: Json) -> Json:
    found = {"id": "it", "type": type_name, "config": config, **more}
    if situation is Situation.TIMEOUT:
        found["timeout_seconds"] = 0.7
    if situation is Situation.RETRYABLE:
        found["retry"] = {"max_retries": 100, "initial_delay_ms": 20, "max_delay_ms": 500}
    return found


Config = Callable[[Outside, str, str], Json]
REACHING: dict[str, Config] = {
    "action_http": lambda out, what, token: {"url": out.url(what, token)},
    "action_email": lambda out, what, token: {
        "to": f"{what}-{token}@example.com",
        "subject": "Hello",
        "text": "Hello.",
    },
    "action_notification": lambda out, what, token: {
        "channel": "slack",
        "webhook": out.url(what, token),
        "payload": {"title": "Hello"},
    },
    "action_integration": lambda out, what, token: {
        "connection_id": "one",
        "action_key": "reach",
        "params": {"url": out.url(what, token)},
    },
    "code_function": lambda out, what, token: {
        "function_slug": "reach-out",
        "input": {"url": out.url(what, token)},
    },
}
"""Task types that reach the outside: their config, so that it does what the situation wants."""

BODY = REACHING["action_http"]


def cells(out: Outside, token: Callable[[str], str]) -> list[Cell]:
    """Every cell that there is; `token` names one."""
    found: list[Cell] = []
    for situation in Situation:
        what = WHAT[situation]
        for name, config in REACHING.items():
            cell = f"{name}-{situation.name.lower()}"
            found.append(
                Cell(name, situation, node(name, config(out, what, token(cell)), situation))
            )
        found += _waiting(out, situation, token)
    return [
        *found,
        *_triggers(),
        *_snippets(),
        *_records(),
        *_reports(),
        *_inline(out, token),
    ]


def _waiting(out: Outside, situation: Situation, token: Callable[[str], str]) -> list[Cell]:
    """Nodes whose body reaches the outside: a loop, and branches that join."""
    what = WHAT[situation]
    found = []
    if situation is not Situation.RETRYABLE:
        config = BODY(out, what, token(f"loop-{situation.name.lower()}"))
        body = {"id": "body", "type": "action_http", "parentId": "it", "config": config}
        it = node("logic_loop", {"items": [1], "mode": "parallel"}, situation)
        found.append(Cell("logic_loop", situation, it, (body,)))
    if situation in (Situation.SUCCESS, Situation.CANCEL, Situation.KILLED, Situation.REDELIVERED):
        for name, join in (("logic_parallel", None), ("logic_join", "all")):
            config = BODY(out, what, token(f"{name}-{situation.name.lower()}"))
            branch = {"id": "branch", "type": "action_http", "config": config}
            other = {"id": "other", "type": "logic_parallel", "config": {}}
            last = {"id": "last", "type": "logic_join", "config": {"join": join or "any"}}
            edges = tuple(
                {"id": f"{a}-{b}", "source": a, "target": b}
                for a, b in (
                    ("it", "branch"),
                    ("it", "other"),
                    ("branch", "last"),
                    *((("other", "last"),) if join else ()),
                )
            )
            it = node("logic_parallel", {}, Situation.SUCCESS)
            found.append(Cell(name, situation, it, (branch, other, last), edges))
    return found


def _triggers() -> list[Cell]:
    """A trigger as a node: done when its run begins, whatever kind it is."""
    configs: dict[str, Json] = {
        "trigger_record": {"object": "nothing", "event": "created"},
        "trigger_schedule": {"cron": "0 9 * * *"},
        "trigger_webhook": {"verification": "none"},
        "trigger_manual": {},
        "trigger_integration": {},
    }
    wait = {"id": "rest", "type": "logic_delay", "config": {"duration": 0.01}}
    edge = {"id": "e", "source": "it", "target": "rest"}
    return [
        Cell(
            name,
            Situation.SUCCESS,
            None,
            (wait,),
            (edge,),
            reaches=False,
            trigger={"id": "it", "type": name, "config": config},
        )
        for name, config in configs.items()
    ]


def _snippets() -> list[Cell]:
    """Their outside is the clock: `until` is a moment that the test gives."""
    busy = "while (Date.now() < input.until) {} return 1;"
    codes = {
        Situation.SUCCESS: "return 1;",
        Situation.RETRYABLE: busy,
        Situation.FINAL: "throw new Error('no');",
        Situation.TIMEOUT: "while (true) {}",
        Situation.CANCEL: "while (true) {}",
        Situation.KILLED: busy,
        Situation.REDELIVERED: busy,
    }
    return [
        Cell(
            "code_snippet",
            situation,
            node(
                "code_snippet",
                {
                    "code": code,
                    "input": "{{trigger}}",
                    "timeout_seconds": 1 if situation is Situation.RETRYABLE else 60,
                },
                situation,
            ),
            reaches=False,
            fails_until=situation is Situation.RETRYABLE,
        )
        for situation, code in codes.items()
    ]


def _records() -> list[Cell]:
    """`locked` is a record that the test holds for a while."""
    update = {"operation": "update", "object": "thing", "data": {"n": 1}}
    found = [
        Cell(
            "action_record",
            Situation.SUCCESS,
            node(
                "action_record",
                {"operation": "create", "object": "thing", "data": {"n": 1}},
                Situation.SUCCESS,
            ),
            reaches=False,
        ),
        Cell(
            "action_record",
            Situation.FINAL,
            node("action_record", update | {"id": "nobody"}, Situation.FINAL),
            reaches=False,
        ),
    ]
    return found + [
        Cell(
            "action_record",
            situation,
            node("action_record", update | {"id": "locked"}, situation),
            reaches=False,
        )
        for situation in (
            Situation.TIMEOUT,
            Situation.CANCEL,
            Situation.KILLED,
            Situation.REDELIVERED,
        )
    ]


def _reports() -> list[Cell]:
    configs = {
        ("action_report", Situation.SUCCESS): {"rows": [{"a": 1}]},
        ("action_report", Situation.FINAL): {"rows": "{{trigger.until}}"},
        ("action_turn", Situation.SUCCESS): {"rotation": "r", "among": ["ana"]},
        ("action_turn", Situation.FINAL): {"rotation": "r", "object": "nobody"},
    }
    return [
        Cell(name, situation, node(name, config, situation), reaches=False)
        for (name, situation), config in configs.items()
    ]


def _inline(out: Outside, token: Callable[[str], str]) -> list[Cell]:
    """What the orchestrator works off by itself, and what waits for an answer."""
    S = Situation
    found = []

    def add(name: str, situation: Situation, config: Json, **more: Json) -> None:
        found.append(
            Cell(
                name,
                situation,
                node(name, config, situation, **more),
                reaches=False,
                vertex="orchestrator",
            )
        )

    at_once = {
        "logic_condition": {"field": "trigger.until", "op": "gt", "value": 0},
        "logic_switch": {"value": "{{trigger.until}}", "cases": [1, 2]},
    }
    for name, config in at_once.items():
        for situation in (S.SUCCESS, S.KILLED, S.REDELIVERED):
            add(name, situation, config)
    add("logic_condition", S.FINAL, {"expression": "trigger.none_of_these > 1"})
    add("logic_switch", S.FINAL, {"value": "{{trigger.none_of_these}}", "cases": [1]})
    delays = {
        S.SUCCESS: {"duration": 0.05},
        S.FINAL: {"until": "{{trigger.start}}"},
        S.TIMEOUT: {"duration": 600},
        S.CANCEL: {"duration": 600},
        S.KILLED: {"until": "{{trigger.at}}"},
        S.REDELIVERED: {"duration": 1},
    }
    for situation, config in delays.items():
        add("logic_delay", situation, config)
    for situation in (S.SUCCESS, S.FINAL, S.CANCEL, S.KILLED, S.REDELIVERED, S.TIMEOUT):
        config: Json = {"title": "Well?", "on_reject": "fail"}
        if situation is S.TIMEOUT:
            config |= {"timeout_seconds": 0.7, "on_timeout": "fail"}
        it = {"id": "it", "type": "logic_approval", "config": config}
        found.append(Cell("logic_approval", situation, it, reaches=False, vertex="orchestrator"))
    for situation in S:
        config = {"workflow": f"child {WHAT[situation]}", "input": {}}
        found.append(
            Cell(
                "meta_subworkflow",
                situation,
                node("meta_subworkflow", config, situation),
                vertex="orchestrator",
            )
        )
    for situation in (S.SUCCESS, S.CANCEL, S.KILLED, S.REDELIVERED):
        config = BODY(out, WHAT[situation], token(f"meta_error-{situation.name.lower()}"))
        it = {
            "id": "it",
            "type": "action_http",
            "config": BODY(out, "no", token(f"meta_error-{situation.name.lower()}-no")),
            "on_error": "goto:handler",
        }
        handler = {"id": "handler", "type": "meta_error", "config": {}}
        tell = {"id": "tell", "type": "action_http", "config": config}
        edges = ({"id": "e", "source": "handler", "target": "tell"},)
        found.append(Cell("meta_error", situation, it, (handler, tell), edges))
    return found


NOT_HERE = {
    (
        "action_record",
        Situation.RETRYABLE,
    ): "a store that is away only puts it off",
    ("action_report", Situation.RETRYABLE): "its rows alone decide",
    (
        "action_turn",
        Situation.RETRYABLE,
    ): "a store that is away only puts it off",
    **{
        (name, each): "it waits for nobody"
        for name in ("action_report", "action_turn")
        for each in (
            Situation.TIMEOUT,
            Situation.CANCEL,
            Situation.KILLED,
            Situation.REDELIVERED,
        )
    },
    **{
        (name, Situation.RETRYABLE): "no runner does it, so there is nothing to try again"
        for name in (
            "logic_condition",
            "logic_switch",
            "logic_parallel",
            "logic_join",
            "logic_delay",
            "logic_loop",
            "logic_approval",
            "meta_error",
        )
    },
    **{
        (name, each): "it is decided at once"
        for name in ("logic_condition", "logic_switch")
        for each in (Situation.TIMEOUT, Situation.CANCEL)
    },
    **{
        (name, each): "it only routes; nothing in it can fail or take time"
        for name in ("logic_parallel", "logic_join", "meta_error")
        for each in (Situation.FINAL, Situation.TIMEOUT)
    },
}
"""The cells that do not exist, and why."""
