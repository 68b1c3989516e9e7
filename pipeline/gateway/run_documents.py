"""/workflows/v1/runs/{id}/document: the document of a run, with the state of every step in it.

One document is what is drawn, what is run and what is looked into afterwards: every block, node or
step of it carries its `status` and, once it has begun, `updated_at` (seconds since 1970).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import Response

from permaflow.plan import Json
from pipeline.core.view import History, Step
from pipeline.gateway.answers import answer
from pipeline.gateway.auth import caller_of
from pipeline.gateway.histories import Histories
from pipeline.gateway.ports import Ports
from pipeline.gateway.shapes import View
from pipeline.store import runs, versions
from pipeline.store.database import Connection
from pipeline.store.runs import Run

PENDING = "PENDING"
STATUSES = {
    "running": "RUNNING",
    "retrying": "RUNNING",
    "waiting": "WAITING",
    "completed": "SUCCESS",
    "failed": "FAILED",
    "timed_out": "TIMED_OUT",
    "skipped": "SKIPPED",
    "cancelled": "CANCELLED",
}
_WORST = ("RUNNING", "WAITING", "FAILED", "TIMED_OUT", "CANCELLED", "SUCCESS", "SKIPPED")
"""Of a step in a loop, whose iterations differ, the first of these."""


class RunDocument(View):
    """The document that a run was started with. Its steps have `status` and `updated_at`."""

    run_id: UUID
    workflow_id: UUID
    version: int
    dialect: str
    status: str
    document: Any


class RunDocuments:
    """The handler."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._histories = Histories(ports)

    async def get_run_document(self, request: Request, run_id: UUID) -> Response:
        """The document of a run, with the state of every step in it."""
        org = caller_of(request).org
        run, document = await self._ports.pool.run_as(org, _load, org, run_id)
        history = await self._histories.history(await self._histories.rows(org, run_id))
        view = RunDocument(
            run_id=run.id,
            workflow_id=run.workflow_id,
            version=run.version,
            dialect=document.dialect,
            status=run.status,
            document=None,
        )
        filled = with_states(orjson.loads(document.document), history)
        return answer(view, document=orjson.dumps(filled))


def with_states(document: Json, history: History) -> Json:
    """The document with `status` and `updated_at` at every step. `document` is changed in place."""
    states = _states(history.steps.values())
    match document:
        case {"dag": {"tasks": list(tasks)}}:
            _fill(tasks, "name", states)
        case {"nodes": list(nodes)}:
            _fill(nodes, "id", states)
        case {"triggerEvent": _}:
            for name, prefix in (("steps", "step"), ("fallback", "fallback")):
                if name in document:
                    document[name] = _filled_steps(document[name], prefix, states)
    return document


def _filled_steps(value: Json, prefix: str, states: dict[str, dict[str, Json]]) -> Json:
    steps = orjson.loads(value) if isinstance(value, str) else value
    for index, step in enumerate(steps if isinstance(steps, list) else ()):
        if isinstance(step, dict):
            step.update(_state(step.get("id") or f"{prefix}_{index}", states))
    return steps


def _fill(steps: list[Json], name: str, states: dict[str, dict[str, Json]]) -> None:
    for step in steps:
        if isinstance(step, dict):
            step.update(_state(step.get(name), states))


def _state(name: Json, states: dict[str, dict[str, Json]]) -> dict[str, Json]:
    return states.get(str(name), {"status": PENDING})


def _states(steps: Iterable[Step]) -> dict[str, dict[str, Json]]:
    found: dict[str, dict[str, Json]] = {}
    for step in steps:
        status = STATUSES.get(step.status, step.status.upper())
        at = int((step.finished_at or step.started_at).timestamp())
        known = found.get(step.node)
        if known is not None:
            status = min(status, known["status"], key=_rank)
            at = max(at, known["updated_at"])
        found[step.node] = {"status": status, "updated_at": at}
    return found


def _rank(status: str) -> int:
    return _WORST.index(status) if status in _WORST else len(_WORST)


async def _load(connection: Connection, org: UUID, run_id: UUID) -> tuple[Run, versions.Document]:
    run = await runs.get(connection, org, run_id)
    return run, await versions.document(connection, run.workflow_id, run.version)
