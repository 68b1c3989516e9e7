"""Open runs that go over to another version of their workflow, if it fits."""

from __future__ import annotations

import asyncio
from time import monotonic
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from permaflow.errors import StateError
from permaflow.plan import Problem
from pipeline import starter
from pipeline.core.entries import Migrated
from pipeline.core.migration import Difference, differences, is_timed
from pipeline.core.program import Program
from pipeline.core.state import Run as Replayed
from pipeline.gateway.answers import answer
from pipeline.gateway.auth import caller_of, name_of
from pipeline.gateway.bodies import parse_json, read_bytes, validate
from pipeline.gateway.controls import insist
from pipeline.gateway.histories import Histories, input_of
from pipeline.gateway.ports import Ports
from pipeline.gateway.problems import Refusal
from pipeline.gateway.run_starts import ROOT
from pipeline.gateway.runs import summary
from pipeline.gateway.shapes import (
    MigrateBody,
    MigrateRunsBody,
    MigrationView,
    RefusedMigration,
    RunSummary,
)
from pipeline.store import audit, controls, runs, workflows
from pipeline.store.controls import PAUSABLE
from pipeline.store.database import Connection
from pipeline.store.keys import Caller
from pipeline.store.runs import Run, RunFilter

MOST_AT_ONCE = 500
PAGE = 100


class Migrations:
    """The handlers."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._histories = Histories(ports)

    async def migrate_run(self, request: Request, run_id: UUID) -> Response:
        """Let an open run go on by another version of its workflow, the current one by default.

        A 409 says, step by step, why it cannot.
        """
        caller = caller_of(request)
        raw = await read_bytes(request, 10_000)
        body = validate(MigrateBody, parse_json(raw, 10_000)) if raw.strip() else MigrateBody()
        run = await self._ports.pool.run_as(caller.org, runs.get, caller.org, run_id)
        version = body.version or await self._current(caller.org, run.workflow_id)
        async with self._ports.turns.turn(caller.org):
            found = await self._migrate(run, version, name_of(caller), dry=body.dry_run)
        if found:
            reasons = [Problem("", "does_not_fit", each.reason) for each in found]
            message = f"The run cannot go on by version {version}: {found[0].reason}"
            raise Refusal(409, "does_not_fit", message, errors=reasons)
        run = await self._ports.pool.run_as(caller.org, runs.get, caller.org, run_id)
        return answer(RunSummary(**summary(run)), 200, {"location": f"{ROOT}/{run_id}"})

    async def migrate_runs(self, request: Request, workflow_id: UUID) -> Response:
        """Let the open runs of a workflow go on by its current version, those that can.

        Looks at 500 of them at most, newest first, and no longer than PERMAFLOW_DRY_RUN_TIMEOUT.
        `has_more` says whether there may be others, which `before: next_before` goes on with.
        """
        caller = caller_of(request)
        raw = await read_bytes(request, 10_000)
        value = parse_json(raw, 10_000) if raw.strip() else {}
        body = validate(MigrateRunsBody, value)
        async with self._ports.turns.turn(caller.org):
            return answer(await self._migrate_some(caller, workflow_id, body))

    async def _migrate_some(
        self, caller: Caller, workflow_id: UUID, body: MigrateRunsBody
    ) -> MigrationView:
        until = monotonic() + self._ports.settings.dry_run_timeout
        version = await self._current(caller.org, workflow_id)
        wanted = RunFilter(workflow_id=workflow_id, statuses=PAUSABLE)
        before, more, ended = body.before, True, False
        migrated, checked, refused = 0, 0, list[RefusedMigration]()
        while more and not ended:
            page = await self._ports.pool.run_as(
                caller.org, runs.find, caller.org, wanted, before=before, limit=PAGE
            )
            more = len(page) == PAGE
            for run in page:
                # However long one takes, every request gets on by one at least.
                ended = checked >= MOST_AT_ONCE or (checked > 0 and monotonic() > until)
                if ended:
                    more = True
                    break
                before = run.id
                if run.version == version or body.from_version not in (None, run.version):
                    continue
                checked += 1
                found = await self._try(run, version, name_of(caller), dry=body.dry_run)
                migrated += not found
                if found:
                    reasons = [each.reason for each in found]
                    refused.append(
                        RefusedMigration(run_id=run.id, version=run.version, reasons=reasons)
                    )
            ended = ended or monotonic() > until
        return MigrationView(
            version=version,
            dry_run=body.dry_run,
            checked=checked,
            migrated=migrated,
            refused=refused,
            has_more=more,
            next_before=before if more else None,
        )

    async def _current(self, org: UUID, workflow_id: UUID) -> int:
        return (await self._ports.pool.run_as(org, workflows.get, org, workflow_id)).version

    async def _try(self, run: Run, version: int, by: str, *, dry: bool) -> list[Difference]:
        try:
            return await self._migrate(run, version, by, dry=dry)
        except StateError as error:  # it has ended meanwhile, or does not compile any more
            return [Difference("", str(error))]

    async def _migrate(self, run: Run, version: int, by: str, *, dry: bool) -> list[Difference]:
        """Why it cannot go over; empty if it has, or would have. Raises `StateError`."""
        found: list[Difference] = []

        async def attempt() -> tuple[Run, int | None]:
            nonlocal found
            now = await self._ports.pool.run_as(run.org_id, runs.get, run.org_id, run.id)
            if now.status not in PAUSABLE:
                raise StateError(f"The run is {now.status}; it cannot go over to another version.")
            if now.version == version:
                return now, None
            old = await self._program(now, now.version)
            new = await self._program(now, version)
            found, seq = await self._differences(now, old, new)
            if found or dry:
                return now, None
            went_over = Migrated(version, by, is_timed(old, new))
            return now, await self._ports.pool.run_as(
                run.org_id, _apply, run.org_id, run.id, went_over, seq
            )

        _, seq = await insist(attempt)
        if seq is not None:
            starter.advanced(self._ports.bus, run.id, run.org_id, seq)
        return found

    async def _differences(
        self, run: Run, old: Program, new: Program
    ) -> tuple[list[Difference], int]:
        rows = await self._histories.rows(run.org_id, run.id)
        data = input_of(run)
        state = await self._histories.state(run, rows, old, data)
        after: Replayed | None
        try:
            after = await self._histories.state(run, rows, new, data)
        except (KeyError, AssertionError, AttributeError):  # it speaks of what is not there
            after = None
        found = await asyncio.to_thread(differences, state, after, new)
        return found, rows[-1].seq if rows else 0

    async def _program(self, run: Run, version: int) -> Program:
        documents = self._ports.documents
        program = await documents.program(run.org_id, run.workflow_id, version)
        if program is None:
            raise StateError(f"Version {version} of the workflow does not compile any more.")
        return program


async def _apply(
    connection: Connection, org: UUID, run_id: UUID, went_over: Migrated, after: int
) -> int:
    seq = await controls.migrate(connection, org, run_id, went_over, after)
    data = {"version": went_over.version}
    await audit.add(connection, org, went_over.by, "run.migrated", str(run_id), data)
    return seq
