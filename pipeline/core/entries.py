"""What can happen to a run: the entries of its journal.

Rules of this file:

* An entry is a fact that was decided once. Folding a journal never decides anything again, so a
  journal written by an older engine gives the same state in a newer one.
* Fields are only ever added at the end, with a default.
* What can be derived from the plan and the entries before is not written down.

In a journal row an entry is an array: its tag, then its fields.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from permaflow.plan import Json


class Started(NamedTuple):
    """The run began, at this trigger node ("" when the plan has none)."""

    trigger: str


class Dispatched(NamedTuple):
    """This attempt of a step went to a runner."""

    scope: str
    node: str
    attempt: int


class Succeeded(NamedTuple):
    """A node ended well. `attempt` is 0 for nodes that no runner does; `ref` names a large output.

    The output of a trigger, and of a loop, is not repeated here.
    """

    scope: str
    node: str
    attempt: int
    output: Json = None
    port: str | None = None
    ref: str | None = None


class Failed(NamedTuple):
    """A node ended badly, after its last attempt."""

    scope: str
    node: str
    attempt: int
    code: str
    message: str
    timed_out: bool = False
    details: Json = None


class Logged(NamedTuple):
    """An attempt that has just been reported wrote these lines."""

    scope: str
    node: str
    attempt: int
    lines: Sequence[str]


class Retrying(NamedTuple):
    """An attempt failed; the next one is due after `delay` seconds."""

    scope: str
    node: str
    attempt: int
    delay: float
    code: str
    message: str
    timed_out: bool = False


class Parked(NamedTuple):
    """A runner put an attempt off for `delay` seconds. No retry is used up."""

    scope: str
    node: str
    attempt: int
    delay: float
    reason: str = ""


class Doubted(NamedTuple):
    """Nobody knows what this attempt did; people were asked."""

    scope: str
    node: str
    attempt: int
    code: str
    message: str


class Waiting(NamedTuple):
    """A delay began: for `duration` seconds, or until a moment (RFC 3339)."""

    scope: str
    node: str
    duration: float | None
    until: str | None = None


class Asked(NamedTuple):
    """A question of this kind went out; its answer, or its timeout, ends this attempt. `run` is the
    run that was started for it, if one was.
    """

    scope: str
    node: str
    attempt: int
    kind: str = ""
    run: str = ""


class Skipped(NamedTuple):
    """This node will not run: what it waits for can no longer come."""

    scope: str
    node: str


class Cancelled(NamedTuple):
    """This node was stopped because a join no longer needs it."""

    scope: str
    node: str


class LoopOpened(NamedTuple):
    """A loop knows its items. `ref` names them when they are large, and `size` says how many."""

    scope: str
    node: str
    items: Json
    ref: str | None = None
    size: int | None = None


class Iterated(NamedTuple):
    """`size` iterations of a loop began, from index `first` on."""

    scope: str
    node: str
    first: int
    size: int


class IterationFailed(NamedTuple):
    """An iteration ended badly, and the loop goes on."""

    scope: str
    code: str
    message: str


class Jumped(NamedTuple):
    """After `node` failed, `target` and all that follows from it are open again. `dropped` are
    those of them that were under way, for who reads without the plan.
    """

    scope: str
    node: str
    target: str
    dropped: Sequence[str] = ()


class CancelRequested(NamedTuple):
    """Somebody wants the run to end."""

    by: str = ""
    reason: str = ""


class Compensating(NamedTuple):
    """The run did not complete; before it ends as told here, what it did is undone.

    Whatever was still open in it is dropped.
    """

    status: str
    code: str = ""
    message: str = ""
    node: str = ""


class Finished(NamedTuple):
    """The run ended. Whatever was still open in it is dropped."""

    status: str
    code: str = ""
    message: str = ""
    node: str = ""


class Paused(NamedTuple):
    """Somebody holds the run: results are taken in, but nothing new begins."""

    by: str = ""


class Resumed(NamedTuple):
    """The run may go on."""

    by: str = ""


class Reopened(NamedTuple):
    """A run that had ended goes on. What failed in it, or was dropped at its end, is open again."""

    by: str = ""


class Migrated(NamedTuple):
    """From here on the run follows this version of its workflow. `timed`: that limits its time, and
    the one before did not.
    """

    version: int
    by: str = ""
    timed: bool = False


class Continued(NamedTuple):
    """After it was reopened, resumed or migrated, all nodes of the run were looked at again."""


class Kept(NamedTuple):
    """A node ended so in an earlier run, of which this one is a rerun. `ref` as in `Succeeded`."""

    scope: str
    node: str
    outcome: str
    output: Json = None
    port: str | None = None
    ref: str | None = None
    code: str = ""
    message: str = ""
    attempt: int = 0
    details: Json = None


Entry = (
    Started
    | Dispatched
    | Succeeded
    | Failed
    | Logged
    | Retrying
    | Parked
    | Doubted
    | Waiting
    | Asked
    | Skipped
    | Cancelled
    | LoopOpened
    | Iterated
    | IterationFailed
    | Jumped
    | CancelRequested
    | Compensating
    | Finished
    | Paused
    | Resumed
    | Reopened
    | Migrated
    | Continued
    | Kept
)

TAGS: dict[type[Any], str] = {
    Started: "started",
    Dispatched: "dispatched",
    Succeeded: "succeeded",
    Failed: "failed",
    Logged: "logged",
    Retrying: "retrying",
    Parked: "parked",
    Doubted: "doubted",
    Waiting: "waiting",
    Asked: "asked",
    Skipped: "skipped",
    Cancelled: "cancelled",
    LoopOpened: "loop_opened",
    Iterated: "iterated",
    IterationFailed: "iteration_failed",
    Jumped: "jumped",
    CancelRequested: "cancel_requested",
    Compensating: "compensating",
    Finished: "finished",
    Paused: "paused",
    Resumed: "resumed",
    Reopened: "reopened",
    Migrated: "migrated",
    Continued: "continued",
    Kept: "kept",
}
"""The word that stands for each entry in a journal; never changed, only added to."""

_TYPES: dict[str, type[Any]] = {tag: kind for kind, tag in TAGS.items()}


class UnknownEntryError(KeyError):
    """A newer engine wrote this: the tag is unknown here, or it has more fields."""


def to_row(entries: Iterable[Entry]) -> list[tuple[Any, ...]]:
    """The arrays of a journal row."""
    return [(TAGS[type(entry)], *entry) for entry in entries]


def from_row(row: Iterable[Sequence[Any]]) -> list[Entry]:
    """The entries of a journal row. Raises `UnknownEntryError`."""
    try:
        return [_TYPES[array[0]](*array[1:]) for array in row]
    except (KeyError, TypeError) as error:
        raise UnknownEntryError(f"This engine does not know what it reads: {error}") from error
