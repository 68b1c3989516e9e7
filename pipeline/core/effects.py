"""What a decision asks the shell to do once its entries are committed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from permaflow.plan import Json
from pipeline.core.entries import Entry


class Dispatch(NamedTuple):
    """Send this attempt to the runners of `stage`. `timeout` in seconds; None is the default.

    `visit` counts how often a goto has opened the node again. `once`: a runner claims the attempt
    before it begins, and none begins what another has claimed.
    """

    scope: str
    node: str
    attempt: int
    stage: str
    type: str
    config: Json
    timeout: float | None
    visit: int = 0
    once: bool = False


class SetTimer(NamedTuple):
    """Report `TimerFired(key)` after `delay` seconds, or at the moment `until` (RFC 3339).

    Belongs to the same transaction as the entries.
    """

    key: str
    delay: float | None
    until: str | None = None


class ClearTimer(NamedTuple):
    """This timer is no longer armed. Belongs to the same transaction as the entries."""

    key: str


class StopStep(NamedTuple):
    """The result of this attempt is no longer wanted; a runner may stop it."""

    scope: str
    node: str
    attempt: int


class Ask(NamedTuple):
    """Put this question. Belongs to the same transaction as the entries."""

    scope: str
    node: str
    attempt: int
    kind: str
    config: Json


class Withdraw(NamedTuple):
    """This question is over, however that came; an answer to it is no longer wanted.

    Belongs to the same transaction as the entries. `answered` is whether its answer ended it.
    """

    scope: str
    node: str
    attempt: int
    kind: str
    answered: bool = False


Effect = Dispatch | SetTimer | ClearTimer | StopStep | Ask | Withdraw


@dataclass(frozen=True, slots=True)
class Decision:
    """Entries to append as one journal row, and effects to carry out afterwards.

    `stale` counts the events that came too late, `unknown` those that speak of something that the
    state does not know: a sign that somebody else may have appended since it was loaded.
    """

    entries: list[Entry]
    effects: list[Effect]
    stale: int = 0
    unknown: int = 0
