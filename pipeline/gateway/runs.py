"""/workflows/v1/runs: finding runs, looking at one, and ending it."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

import orjson
from fastapi import Query
from pydantic import AliasChoices, BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from permaflow.errors import NotFoundError, StateError
from pipeline import starter
from pipeline.core.approval import KIND as APPROVAL
from pipeline.core.program import COMPENSATE, Program
from pipeline.gateway import answers
from pipeline.gateway.answers import JSON, answer
from pipeline.gateway.auth import caller_of, name_of
from pipeline.gateway.bodies import parse_json, read_bytes, validate
from pipeline.gateway.histories import Histories, approval_of, input_of, reference
from pipeline.gateway.metrics import Moment, aware
from pipeline.gateway.ports import Ports
from pipeline.gateway.run_starts import ROOT, links
from pipeline.gateway.shapes import (
    CancelBody,
    RunStatus,
    RunSummary,
    RunView,
    StepView,
    milliseconds,
)
from pipeline.store import payloads, runs
from pipeline.store.controls import PAUSABLE
from pipeline.store.database import Connection
from pipeline.store.runs import Run, RunFilter

ALIASES = {"success": "completed", "error": "failed", "paused": "waiting"}
STATUSES: tuple[str, ...] = RunStatus.__args__  # type: ignore[attr-defined]
MOST_STEPS = 1_000


class RunQuery(BaseModel):
    """Which runs to list; what is given must all hold. `status` may be several, with commas."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)

    workflow_id: UUID | None = None
    status: str | None = Field(None, description="Several are separated by commas.")
    type: str | None = None
    resource_type: str | None = Field(
        None, validation_alias=AliasChoices("resource_type", "resourceType")
    )
    resource_id: str | None = Field(
        None, validation_alias=AliasChoices("resource_id", "resourceId")
    )
    requested_by: str | None = Field(
        None, validation_alias=AliasChoices("requested_by", "requestedBy", "triggeredBy")
    )
    parent_id: UUID | None = None
    since: Moment | None = Field(None, description="Started at this moment, or later.")
    until: Moment | None = Field(None, description="Started before this moment.")
    limit: int = Field(50, ge=1, le=200)
    cursor: str | None = None


class Runs:
    """The handlers."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._histories = Histories(ports)

    async def list_runs(self, request: Request, wanted: Annotated[RunQuery, Query()]) -> Response:
        """Runs, newest first, without their data."""
        org = caller_of(request).org
        chosen = RunFilter(
            workflow_id=wanted.workflow_id,
            statuses=read_statuses(wanted.status),
            type=wanted.type,
            resource_type=wanted.resource_type,
            resource_id=wanted.resource_id,
            requested_by=wanted.requested_by,
            parent_id=wanted.parent_id,
            since=aware(wanted.since),
            until=aware(wanted.until),
        )
        found = await self._ports.pool.run_as(
            org,
            runs.find,
            org,
            chosen,
            before=answers.uuid_cursor(wanted.cursor),
            limit=wanted.limit + 1,
        )
        shown = found[: wanted.limit]
        views = [RunSummary(**summary(run)) for run in shown]
        return answers.page(request, found, wanted.limit, views, str(shown[-1].id) if shown else "")

    async def get_run(self, request: Request, run_id: UUID) -> Response:
        """A run, with what started it, what it gave back, and how its steps stand."""
        org = caller_of(request).org
        run = await self._ports.pool.run_as(org, runs.get, org, run_id)
        rows = await self._histories.rows(org, run_id)
        history = await self._histories.history(rows)
        view = RunView(
            **summary(run),
            steps=history.counts(),
            trigger_data=input_of(run),
            output=await self._histories.output(run, rows),
        )
        return answer(view)

    async def list_steps(
        self,
        request: Request,
        run_id: UUID,
        node: str | None = None,
        status: str | None = None,
        limit: Annotated[int, Query(ge=1, le=MOST_STEPS)] = 200,
        cursor: str | None = None,
    ) -> Response:
        """The steps of a run, in the order in which they began."""
        org = caller_of(request).org
        text = answers.decode_cursor(cursor) or "0"
        if not text.isdecimal() or len(text) > 9:
            raise answers.bad_parameter("cursor", "This is no cursor of ours.")
        after = int(text)
        run = await self._ports.pool.run_as(org, runs.get, org, run_id)
        history = await self._histories.history(await self._histories.rows(org, run_id))
        program = await self._ports.documents.program(org, run.workflow_id, run.version)
        nodes = program.nodes if program else {}
        steps = [
            step
            for step in history.steps.values()
            if step.place > after and node in (None, step.node) and status in (None, step.status)
        ]
        found = steps[: limit + 1]
        shown = found[:limit]
        views = []
        for step in shown:
            planned = nodes.get(step.node)
            output = reference(run_id, step.ref) if step.ref else step.output
            if planned is not None and planned.type.startswith("trigger_"):
                output = input_of(run)
            views.append(
                StepView(
                    scope=step.scope,
                    node=step.node,
                    type=planned.type if planned else "",
                    role=role_of(step.node, program),
                    status=step.status,
                    attempts=step.attempts,
                    started_at=step.started_at,
                    finished_at=step.finished_at,
                    duration_ms=milliseconds(step.started_at, step.finished_at),
                    port=step.port,
                    error=step.error,
                    log=step.log,
                    output=output,
                    approval=approval_of(run_id, step.scope, step.node, step.attempts)
                    if step.waits_for == APPROVAL
                    else None,
                    run_id=UUID(step.run) if step.run else None,
                )
            )
        last = str(shown[-1].place) if shown else ""
        return answers.page(request, found, limit, views, last)

    async def get_value(self, request: Request, run_id: UUID, value_id: UUID) -> Response:
        """A value that was too large to stand where it belongs."""
        org = caller_of(request).org
        body = await self._ports.pool.run_as(org, _value, org, run_id, value_id)
        return Response(body, media_type=JSON)

    async def cancel_run(self, request: Request, run_id: UUID) -> Response:
        """Ask for the end of a run. One that is ending already is answered as it is."""
        caller = caller_of(request)
        raw = await read_bytes(request, 10_000)
        body = validate(CancelBody, parse_json(raw, 10_000)) if raw.strip() else CancelBody()
        by = name_of(caller)
        run, asked = await self._ports.pool.run_as(caller.org, _cancel, caller.org, run_id, by)
        if asked:
            bus = self._ports.bus
            starter.cancel(bus, run_id, caller.org, by, body.reason, run.reopened)
        elif not _is_ending(run):
            raise StateError(f"The run is {run.status} already; it cannot be cancelled any more.")
        headers = {"location": f"{ROOT}/{run_id}"}
        return answer(RunSummary(**summary(run)), 202 if asked else 200, headers)


def _is_ending(run: Run) -> bool:
    """Whether it ends, or has ended, as somebody who cancels it wants."""
    return run.status in ("cancelled", "compensating") or (
        run.status == "compensated" and run.cancel_at is not None
    )


def role_of(node: str, program: Program | None) -> Literal["step", "compensation", "on_failure"]:
    """What a step is there for."""
    if node.endswith(COMPENSATE):
        return "compensation"
    return "on_failure" if program is not None and node in program.handlers else "step"


def read_statuses(text: str | None) -> list[str] | None:
    """The statuses that a filter names, by our names or those of others."""
    if text is None:
        return None
    found = []
    for part in text.split(","):
        name = ALIASES.get(part.strip(), part.strip())
        if name not in STATUSES:
            known = ", ".join((*STATUSES, *ALIASES))
            raise answers.bad_parameter("status", f"A status is one of {known}.")
        found.append(name)
    return found


def summary(run: Run) -> dict[str, Any]:
    """The members of a `RunSummary`."""
    return {
        "id": run.id,
        "run_id": run.id,
        "workflow_id": run.workflow_id,
        "version": run.version,
        "status": run.status,
        "source": run.source,
        "trigger_node": run.trigger_node,
        "type": run.type,
        "resource_type": run.resource_type,
        "resource_id": run.resource_id,
        "requested_by": run.requested_by,
        "parent_id": run.parent_id,
        "created_at": run.created_at,
        "started_at": run.created_at,
        "finished_at": run.finished_at,
        "duration_ms": milliseconds(run.created_at, run.finished_at),
        "cancel_requested_at": run.cancel_at,
        "cancel_requested_by": run.cancel_by,
        "paused": run.paused_at is not None and run.status in PAUSABLE,
        "paused_at": run.paused_at,
        "paused_by": run.paused_by,
        "reopened": run.reopened,
        "rerun_of": run.rerun_of,
        "error": None if run.error is None else orjson.loads(run.error),
        "links": links(f"{ROOT}/{run.id}"),
    }


async def _cancel(connection: Connection, org: UUID, run_id: UUID, by: str) -> tuple[Run, bool]:
    asked = await runs.request_cancel(connection, org, run_id, by)
    return await runs.get(connection, org, run_id), asked


async def _value(connection: Connection, org: UUID, run_id: UUID, value_id: UUID) -> bytes:
    await runs.get(connection, org, run_id)
    found = await payloads.get(connection, [value_id])
    if value_id not in found:
        raise NotFoundError(f"There is no value {value_id} here.")
    return found[value_id]
