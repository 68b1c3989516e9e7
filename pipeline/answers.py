"""Answers to what runs ask: stored, and told as events of their runs."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

import msgspec

from pipeline.bus.port import Bus
from pipeline.ids import new_id
from pipeline.starter import post
from pipeline.store import answers, payloads
from pipeline.store.answers import Answer, StoredAnswer
from pipeline.store.database import Connection
from pipeline.store.payloads import Payload
from pipeline.wire import Event, StepDone, StepFailed

_decode = msgspec.json.Decoder().decode


def as_event(answer: StoredAnswer) -> Event:
    """An answer is the result of the step that asked."""
    run_id, scope, node, attempt = answer.run_id, answer.scope, answer.node, answer.attempt
    if answer.code is not None:
        details = None if answer.details is None else _decode(answer.details)
        return StepFailed(
            run_id,
            scope,
            node,
            attempt,
            answer.code,
            answer.message,
            answer.retryable,
            details=details,
        )
    output = None if answer.output is None else _decode(answer.output)
    return StepDone(run_id, scope, node, attempt, output, answer.port, answer.output_ref)


def output_answer(
    question: UUID,
    body: bytes,
    large: list[Payload],
    *,
    org: UUID,
    inline: int,
    run_id: UUID | None = None,
    port: str | None = None,
) -> Answer:
    """An answer with this output (JSON text). One of more than `inline` bytes goes by reference:
    store `large` with the answer.
    """
    if len(body) <= inline:
        return Answer(question, output=body, port=port)
    ref = new_id()
    large.append(Payload(ref, org, body, run_id))
    return Answer(question, output_ref=ref, port=port)


async def give(
    connection: Connection, given: Sequence[Answer], large: Sequence[Payload]
) -> list[StoredAnswer]:
    """Stores answers with their large outputs; gives those that were the first."""
    if large:
        await payloads.put(connection, large)
    return await answers.give(connection, given) if given else []


def post_answers(bus: Bus, given: Sequence[StoredAnswer]) -> None:
    """Tell runs what they were answered, after the commit. Does not wait, and does not fail."""
    post(bus, [(answer.org, as_event(answer)) for answer in given])
