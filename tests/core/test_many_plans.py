"""Twenty thousand random plans against the reference interpreters, on all processors.

Every plan is played with events that come twice, late, early and in any order, by processes that
die and are replaced. What becomes of each node, and of the run, must be entry by entry what the
interpreter says that is played along; and for the plans in which the order of things decides
nothing, what the one says that knows of no order.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from permaflow.plan import Delay, Json, Node, Pass, Plan, Question, Task, Work
from pipeline.builtins import task_types
from pipeline.core.entries import (
    Asked,
    Cancelled,
    Compensating,
    Dispatched,
    Doubted,
    Entry,
    Finished,
    IterationFailed,
    Jumped,
    LoopOpened,
    Retrying,
    Skipped,
    Succeeded,
    Waiting,
)
from pipeline.core.events import CancelAsked, Event, TimerFired, Woken
from pipeline.core.state import RUN_TIMER
from pipeline.settings import Settings
from specs.reading import Report
from specs.work import read_work
from tests.core.agreement import agree
from tests.core.plans import EVERYTHING, ORDERLY, TASKS, TYPES, Table, cases, plans
from tests.core.reference import expect
from tests.core.stepwise import Stepwise
from tests.core.test_properties import changes_nothing, nuisance
from tests.core.world import World

PLANS = 20_000
WITHIN = 600.0
"""Seconds; the promise is for two processors."""

MOST_TURNS = 6_000
SMALLER = replace(ORDERLY, nodes=8)
"""Than those of the other properties, which are fewer."""
WILD = replace(EVERYTHING, nodes=10)
TROUBLED = replace(EVERYTHING, nodes=8, trouble=True)

COMMON = (
    *TYPES,
    "agrees whatever the order",
    "goto",
    "a loser at work",
    "a loser not begun",
    "an iteration failed",
    "skipped",
    "retried",
    "people decide",
    "approval timed out",
    "change timed out",
    "child timed out",
    "logic_delay timed out",
    "logic_loop timed out",
    "leaves through its timeout port",
    "waits for a duration",
    "waits for a moment",
    "waits for a change",
    "told of an error",
    "cancelled",
    "run timed out",
    "out of steps",
    "undone",
    "completed",
    "failed",
    "told twice",
    "told late",
    "invented",
    "another process",
)
"""What has to happen in many of the plans."""
MANY = 100


class Play:
    """A run whose events come in any order, again and again, to processes that come and go.

    Timers that limit something fire in a `slow` one only, and nobody cancels any other.
    """

    def __init__(self, plan: Plan, table: Table, chance: random.Random, *, slow: bool) -> None:
        self.chance, self.slow = chance, slow
        self.world = World(plan, table, audited=False)
        self.reference = Stepwise(plan, self.world.trigger)
        self.told: list[Event] = []
        self.found: set[str] = set()
        """What happened, beside what the journal says."""

    def tell(self, *events: Event) -> None:
        for event in events:
            if isinstance(event, TimerFired) and event.key in self.world.armed:
                self.found.add("run timed out" if event.key == RUN_TIMER else self.limit(event))
        self.reference.hear(events, self.world.tell(*events))
        self.told += events

    def limit(self, event: TimerFired) -> str:
        kind, *_, name, _ = event.key.split("\x1f")
        node = self.world.program.nodes[name]
        if kind != "timeout":
            return kind
        if isinstance(node.work, Question) and node.work.timeout_port is not None:
            self.found.add("leaves through its timeout port")
        what = node.work.kind if isinstance(node.work, Question) else node.type
        return f"{what} timed out"

    def again(self, name: str) -> Event:
        self.found.add(name)
        return self.chance.choice(self.told)

    def to_its_end(self) -> None:
        self.tell(Woken())
        for _ in range(MOST_TURNS):
            if self.world.run.finished:
                break
            self.turn()
        else:
            raise AssertionError("the run does not end")
        self.shrug_off()
        assert self.reference.end is not None
        assert self.world.run.status == self.reference.end.status
        if self.world.run.status == "completed":
            assert self.world.run.output() == self.reference.output()

    def turn(self) -> None:
        choices = self.world.next_events(slow=self.slow)
        assert choices, "the run is stuck"
        event = self.chance.choice(choices)
        limits = [e for e in choices if isinstance(e, TimerFired) and e.key.startswith("timeout")]
        if limits and self.chance.randrange(4) == 0:
            event = self.chance.choice(limits)
        elif event == TimerFired(RUN_TIMER) and self.chance.randrange(6):
            event = choices[0]  # else no run would come far
        match self.chance.randrange(12):
            case 0 | 1:
                self.found.add("told twice")
                self.tell(event, event)
            case 2 | 3:
                self.tell(event, self.again("told late"))
            case 4 | 5:
                self.found.add("another process")
                self.world.restart()
                self.tell(event)
            case 6:
                self.tell(self.again("told late"))
            case 7 | 8:
                self.shrug_off()
                self.tell(event)
            case 9 if self.slow and self.chance.randrange(4) == 0:
                self.tell(CancelAsked("ann", "enough"))
            case _:
                self.tell(event)

    def shrug_off(self) -> None:
        """Something late, early or invented changes nothing, not even in what is not written."""
        self.found.add("invented")
        changes_nothing(self.world, nuisance(self.world, self.chance.randrange(9_999)))


NAMES: dict[type[Entry], str] = {
    Jumped: "goto",
    IterationFailed: "an iteration failed",
    Skipped: "skipped",
    Retrying: "retried",
    Doubted: "people decide",
    Compensating: "undone",
}


def happened(world: World) -> set[str]:
    """What the journal of a run tells, by the names of `COMMON`."""
    found, at_work = set[str](), set[tuple[str, ...]]()
    for entry in world.entries:
        if (name := NAMES.get(type(entry))) is not None:
            found.add(name)
        match entry:
            case Jumped(scope=scope):
                at_work = {where for where in at_work if where[0] != scope}
            case Cancelled():
                found.add(f"a loser {'at work' if entry[:2] in at_work else 'not begun'}")
            case Finished(status=status, code=code):
                found |= {status, "out of steps"} if code == "step_limit" else {status}
            case Dispatched() | Asked() | Waiting() | LoopOpened() | Succeeded():
                at_work.add(entry[:2])
                if (node := world.plan.nodes.get(entry.node)) is not None:
                    found |= {node.type, *ways(node, entry)}
            case _:
                pass
    return found


def ways(node: Node, entry: Entry) -> Iterator[str]:
    match entry:
        case Waiting(until=until):
            yield "waits for a duration" if until is None else "waits for a moment"
        case Asked(kind="change"):
            yield "waits for a change"
        case Succeeded(output=output) if node.type == "meta_error" and output:
            yield "told of an error"


def hunt(count: int, number: int, *, shrink: bool = True) -> None:
    """`count` plans; the seed makes them the same again. Prints what happened in how many."""
    counted: Counter[str] = Counter()

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink) if shrink else (Phase.generate,),
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data(), st.randoms(use_true_random=False))
    def compare(data: st.DataObject, chance: random.Random) -> None:
        kinds = data.draw(st.sampled_from((WILD, SMALLER, TROUBLED)))
        orderly = kinds is SMALLER
        case = data.draw(cases(kinds))
        play = Play(*case, chance, slow=not orderly and chance.random() < 0.7)
        play.to_its_end()
        if orderly:
            agree(play.world, case, expect(*case, play.world.run.trigger))
            play.found.add("agrees whatever the order")
        counted.update(("plans", *play.found, *happened(play.world)))

    compare()
    print(json.dumps(counted))


WAIT = {"object": "orders", "record_id": "1", "field": "state", "op": "eq", "value": "paid"}
CONFIGS: dict[str, list[Json]] = {
    "logic_condition": [{"condition": {"field": "trigger.a", "op": "eq", "value": 1}}],
    "logic_switch": [{"value": "{{trigger.a}}", "cases": [1]}],
    "logic_loop": [{"items": [1]}],
    "logic_delay": [{"duration": 1}, {"until": "2030-01-31T09:00:00Z"}, {"until_field": WAIT}],
    "logic_approval": [{"assignees": ["ann"]}],
    "meta_subworkflow": [{"workflow": "other"}],
}
"""Type → a config for each thing that may become of it. Tasks have their stage."""


@pytest.fixture(scope="module")
def drawn() -> set[tuple[object, ...]]:
    """The types of random plans, each with what was made of it."""
    found = set[tuple[object, ...]]()

    @settings(max_examples=400, database=None, derandomize=True, deadline=None)
    @given(plans(WILD))
    def draw(plan: Plan) -> None:
        found.update((node.type, *shape(node.work)) for node in plan.nodes.values())

    draw()
    return found


@pytest.mark.parametrize("name", TYPES)
def test_a_type_is_in_random_plans_what_the_dialects_make_of_it(
    drawn: set[tuple[object, ...]], name: str
) -> None:
    types, report = task_types(Settings()), Report()
    if name in TASKS:
        made = {(name, Task, types.stage(name))}
    else:
        configs = CONFIGS.get(name, [{}])
        works = [read_work(name, config, report, lambda *_: None, types) for config in configs]
        made = {(name, *shape(work)) for work in works}
    assert not report.problems
    assert {one for one in drawn if one[0] == name} == made


def shape(work: Work) -> tuple[object, ...]:
    """What a run makes a difference between."""
    match work:
        case Task(stage=stage):
            return Task, stage
        case Question(kind=kind):
            return Question, kind
        case Delay(until=until):
            return Delay, until is not None
        case Pass(output=output):
            return Pass, output is not None
        case _:
            return (type(work),)


@pytest.mark.slow
def test_twenty_thousand_random_plans_come_to_what_the_references_say() -> None:
    processors = os.cpu_count() or 1
    number = int(os.environ.get("PERMAFLOW_TEST_SEED", "0")) or random.randrange(1, 10**6)
    print(f"PERMAFLOW_TEST_SEED={number}")
    began = time.monotonic()
    share = -(-PLANS // processors)
    hunters = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"from tests.core.test_many_plans import hunt; hunt({share}, {number + each})",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in range(processors)
    ]
    said = [hunter.communicate(timeout=WITHIN) for hunter in hunters]
    for hunter, (_, error) in zip(hunters, said, strict=True):
        assert hunter.returncode == 0, error[-4000:]
    counted: Counter[str] = Counter()
    for output, _ in said:
        counted.update(json.loads(output.splitlines()[-1]))
    print(counted)
    assert counted["plans"] >= PLANS
    assert not {name: counted[name] for name in COMMON if counted[name] < MANY}
    assert time.monotonic() - began < WITHIN
