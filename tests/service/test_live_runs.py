"""What an orchestrator keeps in memory: not more runs, and not more of them, than it may."""

from __future__ import annotations

from pipeline.core.program import Program
from pipeline.core.state import Run
from pipeline.ids import new_id
from pipeline.live_runs import LiveRun, LiveRuns
from pipeline.store.journal import StoredRun
from tests.core.plans import plan_of, step


def run(weight: int) -> LiveRun:
    stored = StoredRun(new_id(), new_id(), new_id(), 1, "running", "", None, None, ())
    return LiveRun(Run(stored.id, Program(plan_of(step("a"))), None, ""), stored, weight)


def runs(size: int = 100, weight: int = 1_000) -> LiveRuns:
    return LiveRuns(None, None, size, weight)  # type: ignore[arg-type]


def test_the_oldest_runs_make_room_for_the_others() -> None:
    kept = runs(size=3)
    for _ in range(5):
        kept.keep(run(1))
    assert (len(kept), kept.weight) == (3, 3)


def test_heavy_runs_make_room_too_though_one_is_always_kept() -> None:
    kept = runs(weight=1_000)
    for _ in range(5):
        kept.keep(run(400))
    assert (len(kept), kept.weight) == (2, 800)
    kept.keep(run(5_000))
    assert (len(kept), kept.weight) == (1, 5_000)


def test_what_a_run_takes_on_is_counted_and_forgotten_with_it() -> None:
    kept = runs()
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
