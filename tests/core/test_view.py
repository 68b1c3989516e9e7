"""A journal as people see it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.core.entries import (
    TAGS,
    Asked,
    Cancelled,
    Compensating,
    Continued,
    Dispatched,
    Entry,
    Failed,
    Finished,
    Iterated,
    IterationFailed,
    Jumped,
    Kept,
    Logged,
    LoopOpened,
    Parked,
    Reopened,
    Retrying,
    Skipped,
    Started,
    Succeeded,
    Waiting,
)
from pipeline.core.view import OPEN, RUN_COMPLETED, History, Step, tell

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


def history(*rows: list[Entry]) -> History:
    """One row a second."""
    found = History()
    for second, row in enumerate(rows):
        found.add(at(second), row)
    return found


def step(*rows: list[Entry], scope: str = "", node: str = "a") -> Step:
    return history(*rows).steps[scope, node]


def test_a_step_begins_with_its_first_attempt_and_ends_with_its_last() -> None:
    found = step(
        [Dispatched("", "a", 1)],
        [Retrying("", "a", 1, 3.0, "http_503", "busy")],
        [Dispatched("", "a", 2)],
        [Succeeded("", "a", 2, {"n": 1}, "yes")],
    )
    assert (found.status, found.attempts, found.port) == ("completed", 2, "yes")
    assert (found.started_at, found.finished_at) == (at(0), at(3))
    assert (found.output, found.error) == ({"n": 1}, None)


def test_a_step_between_attempts_tells_why_and_for_how_long() -> None:
    found = step([Dispatched("", "a", 1)], [Retrying("", "a", 1, 3.0, "http_503", "busy")])
    assert found.status == "retrying"
    assert found.error == {"code": "http_503", "message": "busy", "retry_in": 3.0}
    assert found.finished_at is None


@pytest.mark.parametrize(
    ("entries", "status"),
    [
        ([Dispatched("", "a", 1)], "running"),
        ([Dispatched("", "a", 1), Parked("", "a", 1, 5.0)], "waiting"),
        ([Waiting("", "a", 5.0)], "waiting"),
        ([Waiting("", "a", 5.0), Succeeded("", "a", 0)], "completed"),
        ([Skipped("", "a")], "skipped"),
        ([Dispatched("", "a", 1), Cancelled("", "a")], "cancelled"),
        ([Dispatched("", "a", 1), Failed("", "a", 1, "x", "y")], "failed"),
        ([Dispatched("", "a", 1), Failed("", "a", 1, "x", "y", True)], "timed_out"),
        ([LoopOpened("", "a", [1, 2])], "running"),
        ([Dispatched("", "a", 1), Finished("cancelled")], "cancelled"),
    ],
)
def test_a_step_has_the_status_of_its_last_entry(entries: list[Entry], status: str) -> None:
    found = step(entries)
    assert found.status == status
    assert (found.finished_at is None) == (status in OPEN)


def test_a_jump_begins_a_step_anew() -> None:
    found = step(
        [Dispatched("", "a", 1)],
        [Succeeded("", "a", 1, "old", "left", "ref"), Jumped("", "b", "a")],
        [Dispatched("", "a", 2)],
    )
    assert (found.status, found.attempts, found.started_at) == ("running", 2, at(2))
    assert (found.output, found.port, found.ref, found.finished_at) == (None, None, None, None)


def test_a_jump_cancels_what_it_drops_and_nothing_else() -> None:
    found = history(
        [Waiting("", "d", 1.0)],
        [Succeeded("", "d", 0), Dispatched("", "slow", 1), Asked("", "ap", 1)],
        [LoopOpened("", "l", [1]), Iterated("", "l", 0, 1), Dispatched("l[0]", "s", 1)],
        [Dispatched("", "other", 1), Dispatched("", "f", 1)],
        [Failed("", "f", 1, "x", "y"), Jumped("", "f", "d", ["ap", "l", "slow"])],
        [Waiting("", "d", 1.0)],
    )
    assert {place: step.status for place, step in found.steps.items()} == {
        ("", "d"): "waiting",
        ("", "slow"): "cancelled",
        ("", "ap"): "cancelled",
        ("", "l"): "cancelled",
        ("l[0]", "s"): "cancelled",
        ("", "other"): "running",
        ("", "f"): "failed",
    }
    assert found.steps["", "slow"].finished_at == at(4)


def test_a_null_output_is_not_the_output_of_a_visit_before() -> None:
    found = step(
        [Dispatched("", "a", 1), Succeeded("", "a", 1, "old")],
        [Dispatched("", "a", 2), Succeeded("", "a", 2, None)],
    )
    assert found.output is None


@pytest.mark.parametrize("value", [0, "", [], {}, False])
def test_an_empty_output_is_an_output(value: Any) -> None:
    assert step([Dispatched("", "a", 1), Succeeded("", "a", 1, value)]).output == value


def test_a_loop_tells_how_many_items_it_has_and_how_many_failed() -> None:
    found = history(
        [LoopOpened("", "each", [1, 2]), Iterated("", "each", 0, 2)],
        [Dispatched("each[0]", "a", 1), Dispatched("each[1]", "a", 1)],
        [Failed("each[0]", "a", 1, "x", "y"), IterationFailed("each[0]", "x", "y")],
        [Succeeded("each[1]", "a", 1), Succeeded("", "each", 0)],
    )
    assert found.steps["", "each"].output == {"count": 2, "failed": 1}
    assert found.steps["each[0]", "a"].status == "failed"
    assert found.counts() == {"completed": 2, "failed": 1}


@pytest.mark.parametrize("outer", ["", "o.1[0]"])
@pytest.mark.parametrize(
    ("name", "label"), [("v1.each", "v1.each"), ("a@b", "a@b"), ("a@b", "a@b@2")]
)
def test_a_loop_counts_what_failed_whatever_it_is_called(outer: str, name: str, label: str) -> None:
    scope = f"{outer}.{label}[1]" if outer else f"{label}[1]"
    rows = [LoopOpened(outer, name, [1, 2]), IterationFailed(scope, "x", "y")]
    assert step(rows, scope=outer, node=name).output == {"count": 2, "failed": 1}


def test_a_failed_iteration_cancels_what_is_open_in_it_and_nothing_else() -> None:
    found = history(
        [LoopOpened("", "o", [1]), Iterated("", "o", 0, 1)],
        [LoopOpened("o[0]", "i", [1, 2]), Iterated("o[0]", "i", 0, 2)],
        [Dispatched(f"o[0].i[{n}]", "a", 1) for n in (0, 1)],
        [IterationFailed("o[0].i[1]", "x", "y")],
    )
    assert found.steps["o[0].i[0]", "a"].status == "running"
    assert found.steps["o[0].i[1]", "a"].status == "cancelled"
    assert found.steps["o[0]", "i"].output == {"count": 2, "failed": 1}


@pytest.mark.parametrize(
    ("end", "status"),
    [
        (Failed("", "l", 1, "timeout", "late", True), "timed_out"),
        (Failed("", "l", 1, "x", "y"), "failed"),
        (Cancelled("", "l"), "cancelled"),
    ],
)
def test_a_loop_that_ends_early_cancels_what_is_open_in_it_and_nothing_else(
    end: Entry, status: str
) -> None:
    found = history(
        [LoopOpened("", "l", [1, 2]), Iterated("", "l", 0, 2), Dispatched("", "l.l", 1)],
        [LoopOpened("", "ll", [1]), Iterated("", "ll", 0, 1), Dispatched("ll[0]", "s", 1)],
        [LoopOpened("l[0]", "i", [1]), Iterated("l[0]", "i", 0, 1), Asked("l[0].i[0]", "ask", 1)],
        [Dispatched("l[1]", "s", 1), Succeeded("l[1]", "s", 1), Dispatched("l[1]", "t", 1)],
        [end],
    )
    assert {place: step.status for place, step in found.steps.items()} == {
        ("", "l"): status,
        ("", "l.l"): "running",
        ("", "ll"): "running",
        ("ll[0]", "s"): "running",
        ("l[0]", "i"): "cancelled",
        ("l[0].i[0]", "ask"): "cancelled",
        ("l[1]", "s"): "completed",
        ("l[1]", "t"): "cancelled",
    }
    assert found.steps["l[0].i[0]", "ask"].finished_at == at(4)


def test_a_loop_that_opens_again_cancels_what_was_open_in_its_last_visit() -> None:
    found = history(
        [LoopOpened("", "l", [1]), Iterated("", "l", 0, 1), Dispatched("l[0]", "s", 1)],
        [Jumped("", "f", "l"), LoopOpened("", "l", [1]), Iterated("", "l", 0, 1)],
        [Dispatched("l@1[0]", "s", 1)],
        [Cancelled("", "l")],
    )
    first, again = found.steps["l[0]", "s"], found.steps["l@1[0]", "s"]
    assert (first.status, first.finished_at) == ("cancelled", at(1))
    assert (again.status, again.finished_at) == ("cancelled", at(3))


def test_a_loop_whose_steps_are_undone_after_a_retry_stays_as_it_ended() -> None:
    found = history(
        [LoopOpened("", "l", [1]), Iterated("", "l", 0, 1), Dispatched("l[0]", "s", 1)],
        [Succeeded("l[0]", "s", 1, None), Succeeded("", "l", 1, {"count": 1, "failed": 0})],
        [Dispatched("", "z", 1), Failed("", "z", 1, "x", "y"), Finished("failed", "x", "y", "z")],
        [Reopened(), Continued(), Dispatched("", "z", 2), Failed("", "z", 2, "x", "y")],
        [Compensating("failed", "x", "y", "z"), Dispatched("l[0]", "undo", 1)],
    )
    assert found.steps["", "l"].status == "completed"
    assert found.steps["l[0]", "undo"].status == "running"


def test_a_loop_that_a_retry_goes_on_with_cancels_what_is_open_in_it() -> None:
    found = history(
        [LoopOpened("", "l", [1, 2]), Iterated("", "l", 0, 2), Dispatched("l[0]", "s", 1)],
        [Failed("", "l", 1, "x", "y"), Finished("failed", "x", "y", "l")],
        [Reopened(), Continued(), Dispatched("l[0]", "s", 2), Dispatched("l[1]", "s", 1)],
        [Failed("", "l", 2, "timeout", "late", True)],
    )
    assert found.counts() == {"timed_out": 1, "cancelled": 2}


def test_steps_stand_in_the_order_in_which_they_began() -> None:
    found = history(
        [Dispatched("", "b", 1), Dispatched("", "a", 1)],
        [Succeeded("", "a", 1), Dispatched("", "c", 1)],
    )
    assert [node for _, node in found.steps] == ["b", "a", "c"]


def test_a_step_that_was_skipped_at_first_stands_where_it_began() -> None:
    found = history(
        [Dispatched("", "a", 1), Skipped("", "bad"), Dispatched("", "e", 1)],
        [Failed("", "e", 1, "x", "y"), Jumped("", "e", "a"), Dispatched("", "a", 2)],
        [Dispatched("", "bad", 1), Dispatched("", "z", 1)],
    )
    assert [node for _, node in found.steps] == ["a", "e", "bad", "z"]
    assert [step.place for step in found.steps.values()] == [1, 3, 4, 5]


def test_every_kind_of_entry_can_be_told() -> None:
    for kind in TAGS:
        entry = kind(*["x"] * len(kind._fields))  # type: ignore[attr-defined]
        name, data = tell(entry)
        assert name
        assert isinstance(data, dict)


def test_the_last_event_tells_the_status_and_the_error() -> None:
    assert tell(Finished("completed")) == (RUN_COMPLETED, {"status": "completed", "error": None})
    _, data = tell(Finished("failed", "boom", "It broke.", "a"))
    assert data["error"] == {"code": "boom", "message": "It broke.", "node": "a"}


def test_a_large_output_is_told_by_its_reference() -> None:
    assert "output" not in tell(Succeeded("", "a", 1, None, None, "ref"))[1]
    assert tell(Succeeded("", "a", 1, 5))[1]["output"] == 5
    assert "ref" not in tell(Succeeded("", "a", 1, 5))[1]


def test_a_loop_is_told_by_its_size_and_not_its_items() -> None:
    assert tell(LoopOpened("", "a", [1, 2, 3])) == (
        "loop_started",
        {"scope": "", "node": "a", "count": 3},
    )


def test_a_loop_whose_items_are_kept_apart_tells_its_size() -> None:
    entry = LoopOpened("", "a", None, "ref", 3)
    assert step([entry]).output == {"count": 3, "failed": 0}
    assert tell(entry)[1]["count"] == 3


def test_a_run_has_begun_with_its_trigger() -> None:
    assert tell(Started("hook")) == ("run_started", {"trigger": "hook"})


def test_what_the_attempts_of_a_step_wrote_is_kept_with_it() -> None:
    found = history(
        [Dispatched("", "a", 1)],
        [Logged("", "a", 1, ["first"]), Retrying("", "a", 1, 1.0, "busy", "not now")],
        [Dispatched("", "a", 2)],
        [Logged("", "a", 2, ["second"]), Succeeded("", "a", 2)],
    )
    assert found.steps["", "a"].log == ["first", "second"]


def test_a_failure_that_was_taken_over_has_its_details() -> None:
    kept = Kept("", "a", "FAILED", code="broke", message="It broke.", details={"status": 404})
    error = {"code": "broke", "message": "It broke.", "details": {"status": 404}}
    assert history([kept]).steps["", "a"].error == error
