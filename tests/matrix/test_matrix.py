"""Every node type × success, failures, timeout, cancel, kill -9 and redelivery, on real servers."""

from __future__ import annotations

import asyncio

import pytest

from pipeline.builtins import TASK_TYPES
from specs.triggers import KINDS
from specs.work import INLINE
from tests.matrix.cells import NOT_HERE, Situation, cells
from tests.matrix.outside import Outside
from tests.matrix.play import Came, play_everything

pytestmark = [pytest.mark.service, pytest.mark.slow]

Results = dict[tuple[str, Situation], Came]
PLAYED = [(cell.type, cell.situation) for cell in cells(Outside(), str)]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """All cells, played once, side by side."""
    return asyncio.run(play_everything(tmp_path_factory.mktemp("matrix")))


def test_every_type_has_every_situation_or_a_reason_why_not() -> None:
    types = {*TASK_TYPES, *INLINE}
    everything = {(name, situation) for name in types for situation in Situation}
    # A trigger as a node is done when its run begins: it can neither fail nor take time.
    everything |= {(name, Situation.SUCCESS) for name in KINDS}
    assert set(PLAYED) | set(NOT_HERE) == everything
    assert not set(PLAYED) & set(NOT_HERE)
    for (name, situation), why in NOT_HERE.items():
        print(f"{name}: no {situation}, because {why}")


@pytest.mark.parametrize(("name", "situation"), PLAYED, ids=[f"{n}: {s}" for n, s in PLAYED])
def test_a_node_in_a_situation(results: Results, name: str, situation: Situation) -> None:
    came = results[name, situation]
    if isinstance(came, BaseException):
        raise came
    match situation:
        case Situation.SUCCESS | Situation.RETRYABLE | Situation.KILLED | Situation.REDELIVERED:
            assert came.status == "completed", came
            assert came.successes == 1, "a result was applied twice, or not at all"
            if situation is Situation.RETRYABLE:
                assert came.step["attempts"] >= 2
        case Situation.FINAL:
            assert (came.status, came.step["status"]) == ("failed", "failed"), came
            assert came.step["attempts"] <= 1
        case Situation.TIMEOUT:
            assert came.status == "failed", came
            assert came.step["status"] == "timed_out"
        case Situation.CANCEL:
            assert came.status == "cancelled", came
