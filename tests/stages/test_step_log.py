"""What a task writes with `ctx.log`."""

from __future__ import annotations

from pipeline.ids import new_id
from pipeline.step_log import LEFT_OUT, MAX_CHARACTERS, MAX_LINE, MAX_LINES, StepLog
from pipeline.wire import Dispatch


def step_log() -> StepLog:
    return StepLog(Dispatch(new_id(), "", "a", 1, "code_snippet", None, 5.0))


def test_nothing_is_kept_of_a_task_that_writes_nothing() -> None:
    assert step_log().lines is None


def test_lines_are_kept_without_what_no_column_can_hold() -> None:
    log = step_log()
    log.write("a\0b \ud800")
    assert log.lines == ["a␀b ?"]


def test_a_long_line_is_cut() -> None:
    log = step_log()
    log.write("x" * 10_000)
    assert log.lines == ["x" * MAX_LINE]


def test_many_lines_are_cut_off_and_that_is_said_once() -> None:
    log = step_log()
    for number in range(10_000):
        log.write(f"line {number}")
    assert log.lines is not None
    assert len(log.lines) == MAX_LINES + 1
    assert log.lines[-2:] == [f"line {MAX_LINES - 1}", LEFT_OUT]


def test_many_characters_are_cut_off_and_that_is_said_once() -> None:
    log = step_log()
    for _ in range(MAX_LINES):
        log.write("x" * MAX_LINE)
    assert log.lines is not None
    assert log.lines[-1] == LEFT_OUT
    assert log.lines.count(LEFT_OUT) == 1
    assert sum(map(len, log.lines)) <= MAX_CHARACTERS + len(LEFT_OUT)
