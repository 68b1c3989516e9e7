"""Records runs for `journals/`. A run that is there already is left as it is.

    python -m tests.replay.record

To keep what a new kind of entry means, add a run that has it, and record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from permaflow.plan import Json, Plan, Problem
from pipeline.core.entries import Kept, Migrated
from pipeline.core.events import CancelAsked, TimerFired, Woken
from specs.dialects import compile_document
from tests.core.dump import dump
from tests.core.plans import TRIGGER_INPUT, Broke, Done, Put, Table
from tests.core.world import RUN_ID, World

JOURNALS = Path(__file__).parent / "journals"
SUMS = JOURNALS / "sums.txt"

START = {"id": "start", "type": "trigger_manual"}


class AnyTypes:
    """The task types that recorded documents speak of."""

    def names(self) -> Sequence[str]:
        return ("action_http", "code_function")

    def stage(self, type_name: str) -> str:
        return type_name

    def verbatim(self, type_name: str) -> tuple[str, ...]:
        return ()

    def config_problems(self, type_name: str, config: Json) -> Sequence[Problem]:
        return ()


def compiled(document: Json) -> Plan:
    result = compile_document(document, AnyTypes())
    assert result.plan is not None, result.problems
    return result.plan


def call(name: str, text: str = "", **more: Json) -> dict[str, Json]:
    config = {"url": "https://example.com", "body": {"text": text}}
    return {"id": name, "type": "action_http", "config": config, **more}


def graph(nodes: list[Json], *arrows: str, **more: Json) -> Json:
    """Arrows are written `source target`, or `source:handle target`."""
    edges = []
    for arrow in arrows:
        source, target = arrow.split()
        source, _, handle = source.partition(":")
        edge = {"source": source, "target": target}
        edges.append({**edge, "sourceHandle": handle} if handle else edge)
    return {"version": 1, "nodes": nodes, "edges": edges, **more}


def played(document: Json, table: Table, schedule: Sequence[int] = (), turns: int = 999) -> World:
    """A run of a document, up to its end or for so many turns."""
    world = World(compiled(document), table, "start")
    world.tell(Woken())
    for turn in range(turns):
        choices = world.next_events()
        if world.run.finished or not choices:
            break
        world.tell(choices[(schedule[turn] if turn < len(schedule) else 0) % len(choices)])
    return world


Recorded = tuple[Json, World]


def retried_and_parked() -> Recorded:
    retry = {"max_retries": 3, "initial_delay_ms": 200, "backoff": "exponential"}
    tasks = [
        {"name": "check", "type": "code_function", "arguments": [{"input": "{{trigger.amount}}"}]},
        {"name": "keep", "type": "code_function", "depends": "check", "retry": retry},
        {"name": "lost", "type": "code_function", "depends": "check.FAILED"},
        {"name": "last", "type": "code_function", "depends": "keep && lost.SKIPPED"},
    ]
    document = {"dag": {"entrypoint": "check", "exitpoints": ["last"], "tasks": tasks}}
    table = Table({"keep": [Broke(), Put(7.0), Done()]})
    return document, played(document, table)


def first_of_three() -> Recorded:
    join = {"id": "join", "type": "logic_join", "config": {"join": "any"}}
    document = graph(
        [START, call("a"), call("b"), call("c"), join, call("after", "{{steps.b.output}}")],
        *("start a", "start b", "start c", "a join", "b join", "c join", "join after"),
    )
    return document, played(document, Table({"a": [Broke()]}), [1])


def loop_under_way() -> Recorded:
    config = {"items": ["x", "y", "z", "w"], "concurrency": 3, "stop_on_error": False}
    document = graph(
        [
            START,
            {"id": "each", "type": "logic_loop", "config": config, "timeout_seconds": 60},
            call("one", "{{loop.item}} {{loop.index}}", parentId="each"),
            call(
                "two",
                "{{steps.one.output}}",
                parentId="each",
                retry={"max_retries": 1, "initial_delay_ms": 100, "jitter": False},
            ),
            call("after", "{{steps.each.output.count}}"),
        ],
        *("start each", "one two", "each after"),
    )
    table = Table({"one": [Broke(retryable=False), Done()], "two": [Done(), Broke()]})
    return document, played(document, table, turns=4)


def nested_loops() -> Recorded:
    document = graph(
        [
            START,
            {"id": "rows", "type": "logic_loop", "config": {"items": [1, 2], "mode": "parallel"}},
            {
                "id": "columns",
                "type": "logic_loop",
                "config": {"items": "{{trigger}}", "mode": "sequential"},
                "parentId": "rows",
            },
            call("cell", "{{loop.item.key}}", parentId="columns"),
        ],
        "start rows",
    )
    return document, played(document, Table(), [1, 1, 0])


def gone_back_and_handled() -> Recorded:
    document = graph(
        [
            START,
            {"id": "each", "type": "logic_loop", "config": {"items": [1]}, "max_visits": 1},
            call("one", parentId="each"),
            call("check", on_error="goto:each"),
            call("other", on_error="goto:handler"),
            {"id": "handler", "type": "meta_error"},
            call("report", "{{error.message}}"),
        ],
        *("start each", "each check", "start other", "handler report"),
    )
    table = Table({"check": [Broke(retryable=False), Done()], "other": [Broke(timed_out=True)]})
    return document, played(document, table, [0, 1, 1])


def cancelled_while_waiting() -> Recorded:
    document = graph(
        [START, {"id": "wait", "type": "logic_delay", "config": {"duration": "1h"}}, call("a")],
        *("start wait", "start a"),
    )
    world = played(document, Table(), turns=1)
    world.tell(CancelAsked("ann", "It is no longer needed."))
    return document, world


def out_of_time() -> Recorded:
    document = graph([START, call("a", timeout_seconds=5)], "start a", timeout_seconds=10)
    world = played(document, Table(), turns=0)
    world.tell(TimerFired("run"))
    return document, world


def waiting_for_a_moment() -> Recorded:
    branch = {"field": "trigger.amount", "op": "gt", "value": 1}
    document = graph(
        [
            START,
            {"id": "much", "type": "logic_condition", "config": {"condition": branch}},
            {"id": "wait", "type": "logic_delay", "config": {"until": "2030-01-31T09:00:00Z"}},
            call("no"),
        ],
        *("start much", "much:true wait", "much:false no"),
    )
    return document, played(document, Table(), turns=0)


def undone_half_way() -> Recorded:
    undo = {
        "type": "action_http",
        "config": {"url": "https://example.com", "body": "{{error.code}}"},
    }
    document = graph(
        [
            START,
            call("reserve", compensate={**undo, "retry": {"max_retries": 1, "jitter": False}}),
            {"id": "each", "type": "logic_loop", "config": {"items": [1, 2]}},
            call("one", parentId="each", compensate=undo),
            call("charge", compensate=undo, retry={"max_retries": 1, "jitter": False}),
            call("ship"),
        ],
        *("start reserve", "reserve each", "each charge", "start ship"),
        on_failure={"type": "action_http", "config": {"url": "https://example.com"}},
    )
    table = Table({"charge": [Broke(timed_out=True)], "one#compensate": [Broke(False), Done()]})
    return document, played(document, table, [0, 1, 1, 1, 1, 1, 1, 1], turns=9)


def retried_inside_a_loop() -> Recorded:
    config = {"items": ["x", "y", "z"], "concurrency": 2}
    document = graph(
        [
            START,
            {"id": "each", "type": "logic_loop", "config": config, "timeout_seconds": 60},
            call("one", "{{loop.item}}", parentId="each"),
            call("two", "{{steps.one.output}}", parentId="each"),
            call("beside"),
            call("after", "{{steps.each.output.count}}"),
        ],
        *("start each", "one two", "each after", "start beside"),
        timeout_seconds=600,
    )
    table = Table({"two": [Done(), Broke(retryable=False)]})
    world = played(document, table, [0, 0, 1])
    assert world.run.status == "failed"
    world.retry(Table())
    world.tell(world.next_events()[0])
    return document, world


def held_and_let_go() -> Recorded:
    document = graph(
        [
            START,
            call("check", on_error="goto:again"),
            call("again"),
            {"id": "wait", "type": "logic_delay", "config": {"duration": "1h"}},
            call("last"),
        ],
        *("start check", "start wait", "check last", "wait last"),
    )
    world = played(document, Table({"check": [Broke(retryable=False)]}), turns=0)
    world.pause()
    world.tell(world.next_events()[0])
    world.resume()
    world.pause()
    return document, world


def nobody_knows() -> Recorded:
    document = graph([START, call("pay", on_unknown="ask"), call("b")], "start pay", "start b")
    return document, played(document, Table({"pay": [Broke(timed_out=True)]}), turns=1)


def waiting_for_people() -> Recorded:
    document = graph([START, {"id": "ask", "type": "logic_approval", "config": {}}], "start ask")
    return document, played(document, Table(), turns=0)


def begun_in_the_middle() -> Recorded:
    document = graph(
        [START, call("a", on_error="continue"), call("b"), call("c", "{{steps.a.error.code}}")],
        *("start a", "start b", "b c"),
    )
    world = World(compiled(document), Table(), "start", audited=False)
    world.append(
        Kept("", "a", "FAILED", code="broke", message="It broke."),
        Kept("", "b", "SUCCESS", {"n": 1}),
    )
    world.tell(Woken())
    return document, world


def gone_over() -> Recorded:
    wait: Json = {"id": "wait", "type": "logic_delay", "config": {"duration": "1h"}}
    document = graph([START, call("a"), wait, call("z")], "start a", "a wait", "wait z")
    world = played(document, Table(), turns=1)
    world.auditor = None  # it follows one plan
    world.append(Migrated(2, "ann"))
    world.tell(Woken())
    return document, world


RUNS: tuple[Callable[[], Recorded], ...] = (
    retried_and_parked,
    first_of_three,
    loop_under_way,
    nested_loops,
    gone_back_and_handled,
    cancelled_while_waiting,
    out_of_time,
    waiting_for_a_moment,
    undone_half_way,
    retried_inside_a_loop,
    held_and_let_go,
    nobody_knows,
    waiting_for_people,
    begun_in_the_middle,
    gone_over,
)


def content(document: Json, world: World) -> dict[str, Any]:
    return {
        "document": document,
        "run": str(RUN_ID),
        "trigger": "start",
        "input": TRIGGER_INPUT,
        "rows": [json.loads(row) for row in world.rows],
        "state": dump(world.replayed()),
    }


def main() -> None:
    for make in RUNS:
        file = JOURNALS / f"{make.__name__.replace('_', '-')}.json"
        if not file.exists():
            text = json.dumps(content(*make()), indent=1, ensure_ascii=False) + "\n"
            file.write_text(text, encoding="utf-8")
            with SUMS.open("a", encoding="utf-8") as sums:
                sums.write(f"{hashlib.sha256(text.encode()).hexdigest()}  {file.name}\n")
            print("recorded", file.name)


if __name__ == "__main__":
    main()
