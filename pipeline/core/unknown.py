"""Attempts of which nobody knows what they did, and what becomes of them."""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from permaflow.plan import Node, OnUnknown, Question, Task
from pipeline.core.events import AttemptFailed
from pipeline.core.state import ASKED, NodeState

OUTCOME_UNKNOWN = "outcome_unknown"
"""The code of an attempt that another runner had begun, and did not come back from."""

UNKNOWN_CODES = frozenset({OUTCOME_UNKNOWN, "runner_lost"})
"""The codes of attempts that ended without anybody to say how."""

RESOLVED = "resolved"
"""The code of the failure by which people answer that a step failed, or is to be tried again."""

KIND = "unknown"
"""The kind of the question that people are asked; see `pipeline.store.questions`."""


class Ended(Protocol):
    """An event or an entry that says that an attempt failed."""

    @property
    def code(self) -> str: ...
    @property
    def timed_out(self) -> bool: ...


def is_unknown(attempt: Ended) -> bool:
    """Whether nobody knows what this attempt did."""
    return attempt.timed_out or attempt.code in UNKNOWN_CODES


class Judgement(Enum):
    """What becomes of an attempt that failed."""

    RETRY = "another attempt"
    FAIL = "the node has failed"
    ASK = "people decide"
    LATE = "people decide already"


def judge(event: AttemptFailed, state: NodeState, node: Node) -> Judgement:
    """What becomes of the current attempt of a node, which has failed.

    Where people were asked what became of it, their answer counts whatever the retries say.
    """
    again = event.retryable and state.retries < node.retry.max_retries
    if state.phase is ASKED and isinstance(node.work, Task):
        if event.code == RESOLVED:
            again = event.retryable
        elif is_unknown(event):
            return Judgement.LATE
    elif is_unknown(event) and node.on_unknown is not OnUnknown.RETRY:
        return Judgement.ASK if node.on_unknown is OnUnknown.ASK else Judgement.FAIL
    return Judgement.RETRY if again else Judgement.FAIL


def question_of(node: Node) -> str | None:
    """The kind of question that a node may have put, if it may have put any."""
    if isinstance(node.work, Question):
        return node.work.kind
    return KIND if node.on_unknown is OnUnknown.ASK else None
