"""Stored answers as events of their runs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from pipeline.bus.port import Bus
from pipeline.starter import post
from pipeline.store.answers import StoredAnswer
from pipeline.wire import Event, StepDone, StepFailed

_decode = msgspec.json.Decoder().decode


def as_event(answer: StoredAnswer) -> Event:
    """An answer is the result of the step that asked."""
    run_id, scope, node, attempt = answer.run_id, answer.scope, answer.node, answer.attempt
    if answer.code is not None:
        return StepFailed(
            run_id, scope, node, attempt, answer.code, answer.message, answer.retryable
        )
    output = None if answer.output is None else _decode(answer.output)
    return StepDone(run_id, scope, node, attempt, output, answer.port, answer.output_ref)


def post_answers(bus: Bus, answers: Sequence[StoredAnswer]) -> None:
    """Tell runs what they were answered, after the commit. Does not wait, and does not fail."""
    post(bus, [(answer.org, as_event(answer)) for answer in answers])
