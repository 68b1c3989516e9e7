"""Cells of what the orchestrator works off by itself, and of what waits for an answer; and why
some cells do not exist.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.matrix.acting import acting
from tests.matrix.cells import ORCHESTRATOR, WHAT, Cell, Json, Situation, edge, node, token
from tests.matrix.outside import Outside

S = Situation
CHILD = "child"
THING = "thing"


def cells(out: Outside) -> list[Cell]:
    """Every cell that there is."""
    return [*acting(out), *triggers(), *branches(), *delays(), *approvals(), *children(out)]


def triggers() -> Iterator[Cell]:
    """A trigger as a node: done when its run begins, whatever kind it is."""
    configs: dict[str, Json] = {
        "trigger_record": {"object": "nothing", "event": "created"},
        "trigger_schedule": {"cron": "0 9 * * *"},
        "trigger_webhook": {"verification": "none"},
        "trigger_manual": {},
        "trigger_integration": {"connection_id": "crm", "event": "contact.created"},
    }
    rest = {"id": "rest", "type": "logic_delay", "config": {"duration": 0.01}}
    for name, config in configs.items():
        it = {"id": "it", "type": name, "config": config}
        edges = (edge("it", "rest"),)
        yield Cell(name, S.SUCCESS, it, more=(rest,), edges=edges, trigger=it, vertex=ORCHESTRATOR)


def branches() -> Iterator[Cell]:
    """Decided as soon as what is before them has ended, which it does after the kill."""
    status = "{{steps.gate.output.status}}"
    configs: dict[str, tuple[Json, Json, str]] = {
        "logic_condition": (
            {"field": "steps.gate.output.status", "op": "eq", "value": 200},
            {"expression": "trigger.none_of_these > 1"},
            "true",
        ),
        "logic_switch": (
            {"value": status, "cases": [200, 201]},
            {"value": "{{trigger.none_of_these}}", "cases": [1]},
            "200",
        ),
    }
    for name, (good, bad, handle) in configs.items():
        for situation in (S.SUCCESS, S.FINAL, S.KILLED, S.REDELIVERED):
            yield Cell(
                name,
                situation,
                node(name, bad if situation is S.FINAL else good, situation),
                vertex=ORCHESTRATOR,
                gate="held" if situation in (S.KILLED, S.REDELIVERED) else "ok",
                handle=handle,
            )


def delays() -> Iterator[Cell]:
    moment = {"until": "{{steps.gate.output.body.at}}"}
    configs: dict[Situation, Json] = {
        S.SUCCESS: {"duration": 0.05},
        S.FINAL: {"until": "{{trigger.soon}}"},
        S.TIMEOUT: {"duration": 600},
        S.CANCEL: {"duration": 600},
        S.KILLED: moment,
        S.REDELIVERED: {"duration": 1},
    }
    for situation, config in configs.items():
        killed = situation is S.KILLED
        yield Cell(
            "logic_delay",
            situation,
            node("logic_delay", config, situation),
            vertex=ORCHESTRATOR,
            gate="held" if killed else "",
            late=killed,
        )
    for situation in configs:
        record_id = token("logic_delay", situation, "a field")
        if situation is S.FINAL:
            record_id = "{{trigger.none_of_these}}"
        until = {"object": THING, "record_id": record_id, "field": "n", "op": "eq", "value": 1}
        config = {"until_field": until, "on_timeout": "fail"}
        if situation is S.TIMEOUT:
            config["timeout_seconds"] = 0.7
        it = {"id": "it", "type": "logic_delay", "config": config}
        yield Cell("logic_delay", situation, it, "a field", vertex=ORCHESTRATOR)


def approvals() -> Iterator[Cell]:
    for situation in (S.SUCCESS, S.FINAL, S.TIMEOUT, S.CANCEL, S.KILLED, S.REDELIVERED):
        config: Json = {"title": "Well?", "on_reject": "fail"}
        if situation is S.TIMEOUT:
            config |= {"timeout_seconds": 0.7, "on_timeout": "fail"}
        it = {"id": "it", "type": "logic_approval", "config": config}
        yield Cell("logic_approval", situation, it, vertex=ORCHESTRATOR)


def children(out: Outside) -> Iterator[Cell]:
    """A child that asks the outside. Nobody waits for one that is `async`: that it has begun is
    all that its step says.
    """
    name = "meta_subworkflow"
    for situation in Situation:
        url = out.url(WHAT[situation], token(name, situation))
        it = node(name, {"workflow": CHILD, "input": {"url": url}}, situation)
        yield Cell(name, situation, it, vertex=ORCHESTRATOR, reaches=True)
    for situation in (S.SUCCESS, S.FINAL, S.KILLED, S.REDELIVERED):
        url = out.url("ok", token(name, situation, "async"))
        child = "nobody" if situation is S.FINAL else CHILD
        config = {"workflow": child, "mode": "async", "input": {"url": url}}
        yield Cell(
            name,
            situation,
            node(name, config, situation),
            "async",
            vertex=ORCHESTRATOR,
            gate="held" if situation in (S.KILLED, S.REDELIVERED) else "",
        )


ROUTES = (("logic_parallel", ""), ("logic_join", ""), ("meta_error", ""))
BRANCHES = (("logic_condition", ""), ("logic_switch", ""))
WAITS = (("logic_delay", ""), ("logic_delay", "a field"), ("logic_approval", ""))
ASYNC = ("meta_subworkflow", "async")

NOT_HERE: dict[tuple[str, str, Situation], str] = {
    (*node, situation): why
    for nodes, situations, why in (
        (ROUTES, (S.RETRYABLE, S.FINAL, S.TIMEOUT), "it only leads on, which takes no time"),
        (BRANCHES, (S.RETRYABLE,), "the same values would be decided alike"),
        (BRANCHES, (S.TIMEOUT, S.CANCEL), "it is decided in the moment in which it begins"),
        (WAITS, (S.RETRYABLE,), "a wait has one outcome; there are no attempts"),
        ((("logic_loop", ""),), (S.RETRYABLE,), "the steps of its body are tried again, not it"),
        (
            (ASYNC,),
            (S.RETRYABLE, S.TIMEOUT, S.CANCEL),
            "it is over when its child has begun, whatever becomes of that",
        ),
    )
    for node in nodes
    for situation in situations
}
"""The cells that do not exist, and why."""
