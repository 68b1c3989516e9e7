"""What an orchestrator keeps in memory: not more runs, and not more of them, than it may."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

import psycopg
import pytest

from permaflow.plan import Json
from pipeline import live_runs
from pipeline.core.program import Program
from pipeline.core.state import LoopState, Run
from pipeline.ids import new_id
from pipeline.live_runs import AT_WORK, LiveRun, LiveRuns
from pipeline.programs import Programs
from pipeline.store.journal import Journal, StoredRun
from pipeline.weights import weigh
from tests.core.plans import plan_of, step
from tests.fix_engine import Engine, graph, task


class Clock:
    """Time that passes when the test says so."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run(weight: int) -> LiveRun:
    stored = StoredRun(new_id(), new_id(), new_id(), 1, "running", "", None, None, ())
    return LiveRun(Run(stored.id, Program(plan_of(step("a"))), None, ""), stored, weight)


def runs(clock: Clock, size: int = 100, weight: int = 1_000) -> LiveRuns:
    return LiveRuns(None, None, size, weight, clock)  # type: ignore[arg-type]


def test_the_oldest_runs_make_room_for_the_others(clock: Clock) -> None:
    kept = runs(clock, size=3)
    for _ in range(5):
        kept.keep(run(1))
    assert (len(kept), kept.weight) == (3, 3)


def test_heavy_runs_that_rest_make_room_for_those_that_are_worked_on(clock: Clock) -> None:
    kept = runs(clock, weight=1_000)
    for _ in range(5):
        kept.keep(run(400))
        clock.now += AT_WORK + 1
    assert (len(kept), kept.weight) == (2, 800)
    kept.keep(run(5_000))
    assert (len(kept), kept.weight) == (1, 5_000)


def test_runs_that_are_worked_on_may_hold_twice_as_much(clock: Clock) -> None:
    kept = runs(clock, weight=1_000)
    for _ in range(9):
        kept.keep(run(400))
    assert (len(kept), kept.weight) == (5, 2_000)


async def test_a_run_over_the_limit_and_others_beside_it_stay_while_they_are_worked_on(
    clock: Clock,
) -> None:
    kept = runs(clock, weight=1_000)
    large, others = run(5_000), [run(500) for _ in range(4)]
    for _ in range(3):
        for live in (*others, large):
            kept.keep(live)
            assert await kept.get([live.run.id])
    assert len(kept) == 5
    clock.now += AT_WORK + 1
    kept.keep(others[0])
    assert kept.weight == 500


def test_what_a_run_takes_on_is_counted_and_forgotten_with_it(clock: Clock) -> None:
    kept = runs(clock)
    live = run(10)
    kept.keep(live)
    live.weight += 90
    kept.keep(live)
    kept.keep(live)
    assert kept.weight == 100
    kept.forget(live.run.id)
    kept.forget(live.run.id)
    assert (len(kept), kept.weight) == (0, 0)
    kept.keep(live)
    kept.forget_all(besides=lambda run_id: False)
    assert (len(kept), kept.weight) == (0, 0)


def test_a_run_weighs_what_it_holds_now_and_not_what_its_journal_has_become(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_runs, "_WEIGHED_FROM", 2_000)
    kept = runs(clock, weight=1_000_000)
    live = run(10)
    live.weigh_at = 2_000
    for _ in range(100):
        live.weight += 1_000
        kept.keep(live)
    assert kept.weight <= 3_000


def test_what_places_share_is_weighed_once() -> None:
    state = Run(new_id(), Program(plan_of(step("a"))), {"text": "x" * 1_000}, "")
    alone = weigh(state)
    assert 1_000 < alone < 2_000
    node = state.root.node("a")
    node.loop = LoopState([state.input] * 100)
    node.output = {"items": node.loop.outputs}
    state.root.steps["a"] = {"output": node.output}
    assert alone < weigh(state) < 4_000
    node.loop.outputs[3] = "y" * 10_000
    assert weigh(state) > 10_000


LARGE_LOOP = graph(
    {
        "id": "each",
        "type": "logic_loop",
        "config": {"items": "{{trigger.items}}", "mode": "parallel", "concurrency": 20},
    },
    {**task("body", output="{{loop.item}}"), "parentId": "each"},
    edges=["t>each"],
)


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Counter[UUID]:
    """How often each run has been replayed from its journal."""
    counted: Counter[UUID] = Counter()
    replay = LiveRuns._replay

    async def counting(self: LiveRuns, stored: StoredRun) -> LiveRun:
        counted[stored.id] += 1
        return await replay(self, stored)

    monkeypatch.setattr(LiveRuns, "_replay", counting)
    return counted


@pytest.mark.service
async def test_two_large_loops_side_by_side_are_not_replayed_again_and_again(
    engine: Engine, replays: Counter[UUID], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each holds more than half of what an orchestrator keeps, and its journal much more."""
    monkeypatch.setattr(live_runs, "_WEIGHED_FROM", 100_000)
    monkeypatch.setattr(live_runs, "AT_WORK", 60.0)  # however slow the machine
    held: list[int] = []
    keep = LiveRuns.keep

    def watched(self: LiveRuns, live: LiveRun) -> None:
        self._most = 700_000
        keep(self, live)
        held.append(self.weight)

    monkeypatch.setattr(LiveRuns, "keep", watched)
    items = [f"{number:03} " + "x" * 1_000 for number in range(300)]
    first, second = await engine.start(await engine.workflow(LARGE_LOOP), {"items": items}, count=2)
    for run_id in (first, second):
        assert (await engine.until(run_id)).status == "completed"
    assert max(held) > 700_000
    # Once when it starts; the journal's primary key may ask for one more.
    assert max(replays.values()) <= 5, replays


@pytest.mark.service
async def test_large_runs_that_wake_at_once_are_loaded_bit_by_bit(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits = {"id": "pause", "type": "logic_delay", "config": {"duration": 3600}}
    document = graph(task("a", output="{{trigger.text}}"), waits, edges=["t>a", "a>pause"])
    data = {"text": "x" * 20_000}
    ids = await engine.start(await engine.workflow(document), data, count=12)
    for run_id in ids:
        await engine.until(run_id, "waiting")
    loaded: list[Sequence[UUID]] = []
    load = Journal.load

    async def watched(self: Journal, wanted: Sequence[UUID]) -> list[StoredRun]:
        loaded.append(wanted)
        return await load(self, wanted)

    monkeypatch.setattr(Journal, "load", watched)
    url = engine.settings.database_url
    journal = Journal(lambda: psycopg.AsyncConnection.connect(url, autocommit=True))

    async def document_of(workflow_id: UUID, version: int) -> Json:
        return document

    programs = Programs(document_of, engine.types, engine.settings.limits)
    kept = LiveRuns(journal, programs, 1_000, 1_000_000)
    seen: set[UUID] = set()
    left: Sequence[UUID] = ids
    while left:
        before = set(left)
        left = await kept.prepare(left, room=130_000)
        ready = before - set(left)
        found = await kept.get(ready)
        assert set(found) == ready
        assert 1 <= len(ready) <= 4
        seen |= ready
    assert seen == set(ids)
    assert sum(map(len, loaded)) <= 3 * len(ids)
    await journal.close()
