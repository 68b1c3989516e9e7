"""Every node type × success, failures, timeout, cancel, kill -9 and redelivery, on real servers."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.builtins import TASK_TYPES
from specs.triggers import KINDS
from specs.work import INLINE
from tests.matrix.cells import RUNNER, Cell, Situation
from tests.matrix.deciding import NOT_HERE, cells
from tests.matrix.outside import Outside
from tests.matrix.play import Came, play_everything

pytestmark = [pytest.mark.service, pytest.mark.slow]

Results = dict[str, Came | BaseException]
PLAYED = cells(Outside())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """All cells, played once, side by side."""
    return asyncio.run(play_everything(tmp_path_factory.mktemp("matrix")))


def test_every_type_has_every_situation_or_a_reason_why_not() -> None:
    played = {(cell.type, cell.kind, cell.situation) for cell in PLAYED}
    kinds = {(name, kind) for name, kind, _ in {*played, *NOT_HERE} if name not in KINDS}
    assert {name for name, _ in kinds} == {*TASK_TYPES, *INLINE}
    everything = {(*kind, situation) for kind in kinds for situation in Situation}
    # A trigger as a node is done when its run begins: it can neither fail nor take time.
    everything |= {(name, "", Situation.SUCCESS) for name in KINDS}
    assert played | set(NOT_HERE) == everything
    assert not played & set(NOT_HERE)
    assert len(played) == len(PLAYED)
    for (name, kind, situation), why in NOT_HERE.items():
        print(f"{name} {kind}: no {situation}, because {why}")


@pytest.mark.parametrize("cell", PLAYED, ids=str)
def test_a_node_in_a_situation(results: Results, cell: Cell) -> None:
    came = results[str(cell)]
    if isinstance(came, BaseException):
        raise came
    well = True
    match cell.situation:
        case Situation.FINAL:
            well = False
            assert (came.status, came.step["status"]) == ("failed", "failed"), came
            assert came.step["attempts"] <= 1
        case Situation.TIMEOUT:
            well = False
            assert (came.status, came.step["status"]) == ("failed", "timed_out"), came
        case Situation.CANCEL:
            well = False
            assert came.status == "cancelled", came
        case Situation.RETRYABLE:
            assert came.step["attempts"] >= 2, came
            if cell.vertex == RUNNER and cell.reaches:
                assert came.asked >= 2
                assert len(came.keys) == 1
        case Situation.KILLED:
            assert came.in_time, "the kill came too late to tell anything"
            if cell.vertex == RUNNER and cell.reaches:
                assert came.asked >= 2, "nobody did it again"
            assert len(came.keys) == (cell.reaches or cell.kind == "async"), came
        case Situation.REDELIVERED:
            delivered_twice(cell, came)
    if well:
        assert came.status == "completed", came
        asked = "handler" if cell.type == "meta_error" else "it"
        assert came.successes[asked] == 1, came
        assert set(came.successes.values()) == {1}, "a result was applied twice"
    if came.rows is not None:
        assert came.rows == well, came


def delivered_twice(cell: Cell, came: Came) -> None:
    """Everything that leads to the step came twice, and was told apart from what is new."""
    assert came.repeated >= 2
    # A sub-workflow asks with a key of its own: there was one.
    assert len(came.keys) == (cell.reaches or cell.kind == "async"), came
    if cell.vertex == RUNNER:
        assert came.deliveries >= 2
        if cell.reaches:
            assert came.asked >= 2
        else:
            first, *others = came.results
            assert others
            assert all(other == first for other in others), "done again, it came to something else"
