"""Small workflows that, together, take a node through everything that can become of it."""

from __future__ import annotations

from typing import Any

Json = Any

UNDO = {
    "type": "code_function",
    "config": {"function_slug": "noop", "input": "{{steps.first.output}}"},
    "retry": {"max_retries": 1},
}


def documents() -> list[Json]:
    """Branches, joins, delays, loops, jumps and timeouts, each with tasks that may end any way."""
    return [
        _graph(_task("a", on_error="continue"), _task("b"), edges=["t>a", "a>b"]),
        _graph(
            _check("check"),
            _task("yes"),
            _task("no", on_error="continue"),
            edges=["t>check", "check:true>yes", "check:false>no"],
        ),
        _graph(
            _task("slow"),
            _pause(),
            _loop("each", concurrency=2),
            _task("body", parentId="each"),
            _task("quick"),
            _task("later"),
            {"id": "first", "type": "logic_join", "config": {"join": "any"}},
            edges=[
                *("t>slow", "t>pause", "t>each", "t>quick"),
                *("slow>first", "pause>later", "later>first", "each>first", "quick>first"),
            ],
        ),
        _graph(
            _loop("each", mode="sequential", stop_on_error=False),
            _task("body", parentId="each", on_error="continue"),
            {
                "id": "rest",
                "type": "logic_delay",
                "parentId": "each",
                "config": {"until": "{{trigger.none?}}"},
                "on_error": "continue",
            },
            _task("after", parentId="each"),
            edges=["t>each", "body>rest", "rest>after"],
        ),
        _graph(
            _task("first"),
            _pause(),
            _check("check"),
            _task("yes"),
            _task("no"),
            _task("side", on_error="continue"),
            {"id": "any", "type": "logic_join", "config": {"join": "any"}},
            _task("last", on_error="goto:first", max_visits=2),
            edges=[
                *("t>first", "first>pause", "first>check", "check:true>yes", "check:false>no"),
                *("first>side", "yes>any", "no>any", "side>any", "pause>last", "any>last"),
            ],
        ),
        _graph(
            _task("first"),
            _pause(),
            _task("side"),
            _loop("each"),
            _task("body", parentId="each"),
            _task("last", on_error="goto:first", max_visits=2),
            edges=["t>first", "first>pause", "first>side", "first>each", "first>last"],
        ),
        _graph(
            _task("first"),
            _approval(timeout_seconds=60, on_timeout="approve"),
            _task("yes"),
            _task("no"),
            _task("last", on_error="goto:first", max_visits=2),
            edges=[
                *("t>first", "first>ask", "ask>yes", "ask:rejected>no"),
                *("first>last",),
            ],
        ),
        _graph(
            _approval(timeout_seconds=60),
            _task("quick"),
            {"id": "any", "type": "logic_join", "config": {"join": "any"}},
            edges=["t>ask", "t>quick", "ask>any", "quick>any"],
        ),
        _graph(
            _task("first", compensate=UNDO, on_unknown="ask"),
            _task("last"),
            edges=["t>first", "first>last"],
            on_failure={"type": "code_function", "config": {"function_slug": "noop"}},
        ),
        _graph(_pause(), edges=["t>pause"]),
        _graph(_pause(), _task("lost", "{{trigger.none}}"), edges=["t>pause", "pause>lost"]),
    ]


def _graph(*nodes: dict[str, Json], edges: list[str], **more: Json) -> Json:
    trigger = {"id": "t", "type": "trigger_manual", "config": {}}
    written = []
    for number, edge in enumerate(edges):
        source, _, target = edge.partition(">")
        name, _, handle = source.partition(":")
        written.append({"id": f"e{number}", "source": name, "target": target})
        if handle:
            written[-1]["sourceHandle"] = handle
    return {"nodes": [trigger, *nodes], "edges": written, "timeout_seconds": 600, **more}


def _task(name: str, given: Json = None, **more: Json) -> dict[str, Json]:
    config = {"function_slug": "noop", "input": given}
    retry = {"max_retries": 1}
    return {"id": name, "type": "code_function", "config": config, "retry": retry, **more}


def _pause() -> dict[str, Json]:
    return {"id": "pause", "type": "logic_delay", "config": {"duration": 5}}


def _approval(**config: Json) -> dict[str, Json]:
    return {"id": "ask", "type": "logic_approval", "config": config, "on_error": "continue"}


def _check(name: str) -> dict[str, Json]:
    return {"id": name, "type": "logic_condition", "config": {"condition": "{{trigger.flag}}"}}


def _loop(name: str, **config: Json) -> dict[str, Json]:
    return {
        "id": name,
        "type": "logic_loop",
        "config": {"items": "{{trigger.items}}", **config},
        "on_error": "continue",
    }
