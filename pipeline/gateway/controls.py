"""What people do with runs beside starting and ending them: retry, pause and resume."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from permaflow.errors import ConflictError
from permaflow.plan import Json
from pipeline import starter
from pipeline.bus.subjects import TIMER
from pipeline.gateway.answers import answer
from pipeline.gateway.auth import caller_of, name_of
from pipeline.gateway.ports import Ports
from pipeline.gateway.run_starts import ROOT
from pipeline.gateway.runs import summary
from pipeline.gateway.shapes import RunSummary
from pipeline.store import audit, controls, runs
from pipeline.store.database import Connection
from pipeline.store.runs import Run

TRIES = 20
"""A run that is being advanced all the time lets others in between two of its rows."""

LONGEST_PAUSE = 0.02

Control = Callable[[Connection, UUID, UUID, str], Awaitable[int | None]]


class Controls:
    """The handlers."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def retry_run(self, request: Request, run_id: UUID) -> Response:
        """Let a run go on that failed, timed out or was cancelled, from where that happened.

        What has succeeded in it stays. Of two retries at once one is a 409.
        """
        return await self._control(request, run_id, "run.retried", controls.retry, 202)

    async def pause_run(self, request: Request, run_id: UUID) -> Response:
        """Hold a run: what its steps come to is taken in, but nothing new begins."""
        return await self._control(request, run_id, "run.paused", controls.pause, 200)

    async def resume_run(self, request: Request, run_id: UUID) -> Response:
        """Let a run go on that is held."""
        answered = await self._control(request, run_id, "run.resumed", controls.resume, 200)
        self._ports.bus.ring(TIMER, b"0")  # what became due meanwhile
        return answered

    async def _control(
        self, request: Request, run_id: UUID, action: str, control: Control, status: int
    ) -> Response:
        caller = caller_of(request)
        run, seq = await insist(
            lambda: self._ports.pool.run_as(
                caller.org, _apply, caller.org, run_id, name_of(caller), action, control
            )
        )
        if seq is not None:
            starter.advanced(self._ports.bus, run_id, caller.org, seq)
        headers = {"location": f"{ROOT}/{run_id}"}
        return answer(RunSummary(**summary(run)), status, headers)


async def insist(work: Callable[[], Awaitable[tuple[Run, int | None]]]) -> tuple[Run, int | None]:
    """Do it again while somebody else is faster. Raises `ConflictError` when they always are."""
    for _ in range(TRIES - 1):
        try:
            return await work()
        except ConflictError:
            await asyncio.sleep(random.uniform(0, LONGEST_PAUSE))
    return await work()


async def _apply(
    connection: Connection, org: UUID, run_id: UUID, by: str, action: str, control: Control
) -> tuple[Run, int | None]:
    seq = await control(connection, org, run_id, by)
    if seq is not None:
        details: dict[str, Json] = {"seq": seq}
        await audit.add(connection, org, by, action, str(run_id), details)
    return await runs.get(connection, org, run_id), seq
