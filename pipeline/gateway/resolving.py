"""POST …/steps/{node}/resolve: people say what became of an attempt that nobody heard of again."""

from __future__ import annotations

from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import Response

from permaflow.errors import InputError, StateError
from pipeline.answers import post_answers
from pipeline.core.unknown import KIND, RESOLVED
from pipeline.gateway.answers import answer
from pipeline.gateway.auth import caller_of, name_of
from pipeline.gateway.bodies import read
from pipeline.gateway.ports import Ports
from pipeline.gateway.run_starts import ROOT
from pipeline.gateway.shapes import ResolveBody, ResolvedView
from pipeline.store import answers, audit, runs
from pipeline.store.answers import Answer, StoredAnswer
from pipeline.store.database import Connection

MOST_BYTES = 64 * 1024
"""Of a body; an output that is larger has to be put somewhere else, and named here."""


class Resolving:
    """The handler."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def resolve_step(self, request: Request, run_id: UUID, node: str) -> Response:
        """Say what became of a step that waits because nobody knows: it was done, it failed, or it
        is to be tried again. The first answer counts; a later one is a 409.
        """
        caller = caller_of(request)
        body = await read(request, ResolveBody, MOST_BYTES)
        if body.outcome != "done" and (body.output is not None or body.port is not None):
            raise InputError("Only what was done has an output and a port.", pointer="/outcome")
        given = await self._ports.pool.run_as(
            caller.org, _resolve, caller.org, run_id, node, body, name_of(caller)
        )
        post_answers(self._ports.bus, given)
        view = ResolvedView(run_id=run_id, scope=body.scope, node=node, outcome=body.outcome)
        return answer(view, 202, {"location": f"{ROOT}/{run_id}"})


async def _resolve(
    connection: Connection, org: UUID, run_id: UUID, node: str, body: ResolveBody, by: str
) -> list[StoredAnswer]:
    await runs.get(connection, org, run_id)
    question = await answers.open_question(connection, org, run_id, body.scope, node, KIND)
    if question is None:
        raise StateError("This step does not wait for anybody to say what became of it.")
    if body.outcome == "done":
        said = Answer(question, orjson.dumps(body.output), port=body.port)
    else:
        message = body.message or f"{by}: {body.outcome}"
        again = body.outcome == "retry"
        said = Answer(question, code=RESOLVED, message=message, retryable=again)
    given = await answers.give(connection, [said])
    if not given:
        raise StateError("Somebody has said already what became of this step.")
    details = {"node": node, "scope": body.scope, "outcome": body.outcome, "said": body.message}
    await audit.add(connection, org, by, "step.resolved", str(run_id), details)
    return given
