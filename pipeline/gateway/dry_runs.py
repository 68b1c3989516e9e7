"""/workflows/v1/definitions/…/dry-run: what a workflow would do, and nothing that it does."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, replace
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import Response

from permaflow.errors import InputError
from permaflow.plan import Json
from pipeline.core.program import Program
from pipeline.gateway.answers import answer
from pipeline.gateway.auth import ADMIN, caller_of
from pipeline.gateway.bodies import read_json, validate
from pipeline.gateway.dry_run_views import DryRunBody, DryRunView
from pipeline.gateway.playing import Version, by_hand, play
from pipeline.gateway.ports import Ports
from pipeline.gateway.problems import Refusal
from pipeline.gateway.recorded import Recorded, last_events
from pipeline.store import versions, workflows

READS_RUNS = "runs:read"
ENVELOPE = 1_000_000
"""Bytes that a body may have around its document and its data: mocks above all."""


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is played, and what it is compared with."""

    played: Version
    version: int | None = None
    active: Version | None = None
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
        subject = _Subject(await self._accepted(body.definition))
        return await self._play(caller_of(request).org, body.events_of, body, subject)

    async def dry_run_of(self, request: Request, workflow_id: UUID) -> Response:
        """Play a workflow as it is saved, an earlier version of it, or a document in its place."""
        org = caller_of(request).org
        body = await self._read(request)
        found = await self._ports.pool.run_as(org, workflows.get, org, workflow_id)
        version = None if body.definition is not None else body.version or found.version
        document = body.definition
        if version is not None:
            document = await self._saved(org, workflow_id, version)
        subject = _Subject(await self._accepted(document), version)
        if body.compare and version != found.version:
            subject = await self._compared(subject, org, workflow_id, found.version)
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

    async def _saved(self, org: UUID, workflow_id: UUID, version: int) -> Json:
        found = await self._ports.pool.run_as(org, versions.document, workflow_id, version)
        return orjson.loads(found.document)

    async def _accepted(self, document: Json) -> Version:
        size = len(orjson.dumps(document))
        checked = await self._ports.documents.accept(document, size, "/definition")
        assert checked.compiled.plan is not None
        plan = self._ports.settings.limits.hold(checked.compiled.plan)
        return Version(Program(plan), checked.triggers)

    async def _compared(
        self, subject: _Subject, org: UUID, workflow_id: UUID, version: int
    ) -> _Subject:
        """With the active version, unless that does not compile here any more."""
        document = await self._saved(org, workflow_id, version)
        checked = await self._ports.documents.check(document, len(orjson.dumps(document)))
        if checked.compiled.plan is None:
            return subject
        plan = self._ports.settings.limits.hold(checked.compiled.plan)
        active = Version(Program(plan), checked.triggers)
        return replace(subject, active=active, compared_with=version)

    async def _play(
        self, org: UUID, events_of: UUID | None, body: DryRunBody, subject: _Subject
    ) -> Response:
        if body.events is not None and events_of is None:
            raise InputError("Say with `events_of` of which workflow.", pointer="/events_of")
        seconds = self._ports.settings.dry_run_timeout

        async def work() -> Response:
            until = time.monotonic() + seconds
            recorded = await self._events(org, events_of, body, subject)
            return await asyncio.to_thread(_answered, subject, recorded, body, until)

        return await self._ports.turns.take(org, seconds, work)

    async def _events(
        self, org: UUID, events_of: UUID | None, body: DryRunBody, subject: _Subject
    ) -> Recorded:
        if body.events is None or events_of is None:
            return Recorded(
                [by_hand(subject.played.triggers, body.trigger_data, body.trigger)], left_out=0
            )
        return await last_events(
            self._ports.pool, org, events_of, body.events, with_steps=body.recorded
        )


def _answered(subject: _Subject, recorded: Recorded, body: DryRunBody, until: float) -> Response:
    """Plays, and writes the answer, which may be long."""
    events = play(subject.played, subject.active, recorded.happenings, body.mocks, until)
    view = DryRunView(
        version=subject.version,
        compared_with=subject.compared_with,
        events=events,
        events_left_out=recorded.left_out,
    )
    return answer(view)
