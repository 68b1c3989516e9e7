"""What follows, after the commit, from questions that were put or withdrawn."""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.answers import post_answers
from pipeline.bus.port import Bus
from pipeline.bus.subjects import WAITS
from pipeline.starter import post, wake
from pipeline.store.journal import Told
from pipeline.store.questions import CHANGE, CHILD, Asked
from pipeline.wire import Cancel


def follow(bus: Bus, asked: Sequence[Asked], told: Told) -> None:
    """Wakes children, ends those that nobody waits for, and tells what was answered at once. Does
    not wait, and does not fail; the reconciler makes good what is lost.
    """
    kinds = {question[-1] for question in asked}
    if CHILD in kinds:
        refused = {answer.question_id for answer in told.answers if answer.code is not None}
        children = [question for question in asked if question[-1] == CHILD]
        wake(bus, [(each[0], each[5]) for each in children if each[0] not in refused])
    if CHANGE in kinds:
        bus.ring(WAITS, b"")
    if told.answers:
        post_answers(bus, told.answers)
    if told.ending:
        post(bus, [(org, Cancel(run_id, "parent")) for run_id, org in told.ending])
