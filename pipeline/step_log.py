"""What the process's own log tells of an attempt. The lines that a task writes are kept, too."""

from __future__ import annotations

from collections.abc import Callable

from pipeline import telemetry
from pipeline.result_limits import readable
from pipeline.telemetry import log
from pipeline.wire import Dispatch, StepDone, StepFailed, StepParked

MAX_LINES = 200
MAX_LINE = 2_000
MAX_CHARACTERS = 32_000
"""What is kept of one attempt: so many lines, characters of a line, and characters of all."""

LEFT_OUT = "… more lines are left out"


def begun(dispatch: Dispatch) -> None:
    """An attempt has begun. For DEBUG alone: ask before, a step is too quick for calls in vain."""
    log.debug(
        telemetry.STEP_STARTED,
        run_id=str(dispatch.run_id),
        node=dispatch.node,
        attempt=dispatch.attempt,
        type=dispatch.type,
    )


def ended(dispatch: Dispatch, result: StepDone | StepFailed | StepParked | None) -> None:
    """It has ended; without a result it was stopped, or is somebody else's. For DEBUG alone."""
    log.debug(
        telemetry.STEP_FINISHED,
        run_id=str(dispatch.run_id),
        node=dispatch.node,
        attempt=dispatch.attempt,
        type=dispatch.type,
        outcome=type(result).__name__,
    )


class StepLog:
    """What one attempt wrote. `clean` takes secrets out of a line."""

    __slots__ = ("_clean", "_dispatch", "_size", "lines")

    def __init__(self, dispatch: Dispatch, clean: Callable[[str], str] = lambda line: line) -> None:
        self._clean = clean
        self.lines: list[str] | None = None
        self._dispatch = dispatch
        self._size = 0

    def write(self, line: str) -> None:
        """Keep a line; what is too much is left out, and that is said once."""
        if self.lines is None:
            self.lines = []
        if len(self.lines) > MAX_LINES or self._size > MAX_CHARACTERS:
            return
        text = readable(self._clean(str(line))[:MAX_LINE])
        self._size += len(text)
        if len(self.lines) == MAX_LINES or self._size > MAX_CHARACTERS:
            self._size = MAX_CHARACTERS + 1
            text = LEFT_OUT
        self.lines.append(text)
        run_id, node = str(self._dispatch.run_id), self._dispatch.node
        log.info(telemetry.STEP_LOGGED, run_id=run_id, node=node, line=text)
