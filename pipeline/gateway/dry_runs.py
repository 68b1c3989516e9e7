"""/workflows/v1/definitions/…/dry-run: what a workflow would do, and nothing that it does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import Response

from permaflow.errors import InputError
from permaflow.plan import Json, TriggerSpec
from pipeline.core.dry_run import Mock, Place
from pipeline.core.entries import Failed, Succeeded, from_row
from pipeline.core.program import Program
from pipeline.gateway.answers import answer
from pipeline.gateway.auth import ADMIN, caller_of
from pipeline.gateway.bodies import read_json, validate
from pipeline.gateway.dry_run_views import DryRunBody, DryRunView, Happening, by_hand, play
from pipeline.gateway.ports import Ports
from pipeline.gateway.problems import Refusal
from pipeline.store import payloads, runs, versions, workflows
from pipeline.store.database import Connection
from pipeline.store.runs import Run, RunFilter

READS_RUNS = "runs:read"
ENVELOPE = 1_000_000
"""Bytes that a body may have around its document and its data: mocks above all."""

MOST_ROWS = 1_000
"""Rows of a journal that are read to learn what the steps of a run came to."""

MOST_RECORDED_BYTES = 1_000_000
"""A recorded value that is larger is left out; its step has no recorded answer."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is played, and what it is compared with."""

    program: Program
    triggers: Sequence[TriggerSpec]
    version: int | None = None
    active: Program | None = None
    compared_with: int | None = None


class DryRuns:
    """The handlers."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def dry_run(self, request: Request) -> Response:
        """Play a document that is not saved."""
        body = await self._read(request)
        if body.definition is None:
            raise InputError("There is no `definition` to play.", pointer="/definition")
        found = await self._program(body.definition)
        return await self._play(caller_of(request).org, body.events_of, body, found)

    async def dry_run_of(self, request: Request, workflow_id: UUID) -> Response:
        """Play a workflow as it is saved, an earlier version of it, or a document in its place."""
        org = caller_of(request).org
        body = await self._read(request)
        found = await self._ports.pool.run_as(org, workflows.get, org, workflow_id)
        version = None if body.definition is not None else body.version or found.version
        document = body.definition
        if version is not None:
            text = await self._ports.pool.run_as(org, versions.document, workflow_id, version)
            document = orjson.loads(text.document)
        subject = replace(await self._program(document), version=version)
        if body.compare and version != found.version:
            active = await self._ports.documents.program(org, workflow_id, found.version)
            compared = None if active is None else found.version
            subject = replace(subject, active=active, compared_with=compared)
        return await self._play(org, body.events_of or workflow_id, body, subject)

    async def _read(self, request: Request) -> DryRunBody:
        settings = self._ports.settings
        limit = settings.max_document_bytes + settings.max_input_bytes + ENVELOPE
        _, value = await read_json(request, limit)
        body = validate(DryRunBody, value)
        if body.events is not None and "trigger_data" in body.model_fields_set:
            raise InputError("Give either `events` or `trigger_data`.", pointer="/events")
        scopes = caller_of(request).scopes
        if body.events is not None and not scopes & {READS_RUNS, ADMIN}:
            raise Refusal(
                403, "missing_scope", f"To play recorded events needs the scope `{READS_RUNS}`."
            )
        return body

    async def _program(self, document: Json) -> _Subject:
        size = len(orjson.dumps(document))
        checked = await self._ports.documents.accept(document, size, "/definition")
        assert checked.compiled.plan is not None
        plan = self._ports.settings.limits.hold(checked.compiled.plan)
        return _Subject(Program(plan), checked.triggers)

    async def _play(
        self, org: UUID, events_of: UUID | None, body: DryRunBody, subject: _Subject
    ) -> Response:
        if body.events is None:
            happenings = [by_hand(subject.triggers, body.trigger_data, body.trigger)]
        elif events_of is None:
            raise InputError("Say with `events_of` of which workflow.", pointer="/events_of")
        else:
            happenings = await self._ports.pool.run_as(
                org, _recorded, org, events_of, body.events, body.recorded
            )
        events = await asyncio.to_thread(
            play, subject.program, subject.active, happenings, body.mocks
        )
        view = DryRunView(
            version=subject.version, compared_with=subject.compared_with, events=events
        )
        return answer(view)


async def _recorded(
    connection: Connection, org: UUID, workflow_id: UUID, count: int, with_steps: bool
) -> list[Happening]:
    """The last events that started runs of a workflow, newest first."""
    found = await runs.find(connection, org, RunFilter(workflow_id=workflow_id), limit=count)
    happenings = []
    for each in found:
        run = await runs.get(connection, org, each.id)
        recorded = await _steps(connection, org, run.id) if with_steps else {}
        data = await _input(connection, run)
        happenings.append(Happening(data, run.trigger_node, run.id, recorded))
    return happenings


async def _input(connection: Connection, run: Run) -> Json:
    text = run.input
    if run.input_ref is not None:
        text = (await payloads.get(connection, [run.input_ref])).get(run.input_ref)
    return None if text is None else orjson.loads(text)


async def _steps(connection: Connection, org: UUID, run_id: UUID) -> dict[Place, Mock]:
    """What became of the steps that runners, people or others have answered for."""
    rows = await runs.journal(connection, org, run_id, limit=MOST_ROWS)
    ended = [
        entry
        for row in rows
        for entry in from_row(orjson.loads(row.entries))
        if isinstance(entry, Succeeded | Failed) and entry.attempt
    ]
    values = await _values(connection, ended)
    found: dict[Place, Mock] = {}
    for entry in ended:
        if isinstance(entry, Failed):
            mock = Mock(code=entry.code, message=entry.message, timed_out=entry.timed_out)
        elif entry.ref is None:
            mock = Mock(entry.output, entry.port)
        elif entry.ref in values:
            mock = Mock(values[entry.ref], entry.port)
        else:
            continue
        found[entry.scope, entry.node] = mock
    return found


async def _values(connection: Connection, entries: Sequence[Succeeded | Failed]) -> dict[str, Json]:
    refs = [UUID(each.ref) for each in entries if isinstance(each, Succeeded) and each.ref]
    found = await payloads.get(connection, refs) if refs else {}
    return {
        str(ref): orjson.loads(body)
        for ref, body in found.items()
        if len(body) <= MOST_RECORDED_BYTES
    }
