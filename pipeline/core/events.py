"""What is reported to a run from outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from permaflow.plan import Json


class AttemptDone(NamedTuple):
    """A runner did the work. `ref` names the output when it is large; `log` is what it wrote."""

    scope: str
    node: str
    attempt: int
    output: Json = None
    port: str | None = None
    ref: str | None = None
    log: Sequence[str] = ()


class AttemptFailed(NamedTuple):
    """An attempt failed. `after` is the least wait in seconds that the other side asked for."""

    scope: str
    node: str
    attempt: int
    code: str
    message: str
    retryable: bool = True
    timed_out: bool = False
    after: float | None = None
    details: Json = None
    log: Sequence[str] = ()


class AttemptParked(NamedTuple):
    """A runner wants the attempt made later, after so many seconds."""

    scope: str
    node: str
    attempt: int
    after: float
    reason: str = ""


class TimerFired(NamedTuple):
    """A timer of the run is due."""

    key: str


class CancelAsked(NamedTuple):
    """Somebody wants the run to end, which had been reopened so often when they asked."""

    by: str = ""
    reason: str = ""
    reopened: int = 0


class Woken(NamedTuple):
    """The run may not have begun yet."""


Event = AttemptDone | AttemptFailed | AttemptParked | TimerFired | CancelAsked | Woken
