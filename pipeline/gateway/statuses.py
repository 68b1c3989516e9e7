"""What else there is to a definition: its status, its versions, its webhooks' secrets."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import orjson
from fastapi import Path
from starlette.requests import Request
from starlette.responses import Response

from connectors.webhook_signatures import check_secret, read_verification
from permaflow.errors import InputError, NotFoundError
from permaflow.plan import TriggerSpec
from pipeline.gateway import answers
from pipeline.gateway.answers import answer
from pipeline.gateway.auth import caller_of, name_of
from pipeline.gateway.bodies import invalid, read
from pipeline.gateway.definitions import Definitions, Limit, check_secrets
from pipeline.gateway.documents import WEBHOOK
from pipeline.gateway.entrances import secret_place
from pipeline.gateway.ports import Ports
from pipeline.gateway.shapes import SecretBody, StatusBody, VersionSummary, VersionView
from pipeline.gateway.watching import listening, watched
from pipeline.store import audit, triggers, versions, workflows
from pipeline.store.database import Connection
from pipeline.store.workflows import Workflow

SMALL = 10_000
"""Bytes that a body of a few words may have."""


class Statuses:
    """The handlers."""

    def __init__(self, ports: Ports, definitions: Definitions) -> None:
        self._ports = ports
        self._definitions = definitions

    async def set_status(self, request: Request, workflow_id: UUID) -> Response:
        """Activate, pause or archive a workflow. To set the status that it has changes nothing.

        The answer to an activation waits a moment until changes of what its triggers name are
        watched, and says so in `watched`: true, or false if that was not to be heard in time or a
        table that they name is not published.
        """
        caller = caller_of(request)
        wanted = (await read(request, StatusBody, SMALL)).status
        workflow, text = await self._ports.pool.run_as(
            caller.org, _current, caller.org, workflow_id
        )
        specs: tuple[TriggerSpec, ...] = ()
        if wanted == workflows.ACTIVE:
            checked = await self._ports.documents.accept(orjson.loads(text), len(text), "")
            specs = tuple(checked.triggers)
        if wanted == workflow.status:
            return await self._definitions.show(request, workflow_id)
        async with listening(self._ports.bus) as rings:
            generation = await self._ports.pool.run_as(
                caller.org,
                _set_status,
                caller.org,
                workflow_id,
                wanted,
                specs,
                workflow.version,
                name_of(caller),
            )
            self._definitions.changed()
            heard = await watched(rings, generation, self._ports, caller.org, specs)
        return await self._definitions.show(request, workflow_id, watched=heard)

    async def list_versions(
        self,
        request: Request,
        workflow_id: UUID,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Response:
        """The versions of a workflow, newest first."""
        org = caller_of(request).org
        text = answers.decode_cursor(cursor)
        if text is not None and not (text.isdecimal() and len(text) < 10):
            raise answers.bad_parameter("cursor", "This is no cursor of ours.")
        found = await self._ports.pool.run_as(
            org, _versions, org, workflow_id, None if text is None else int(text), limit + 1
        )
        shown = found[:limit]
        views = [VersionSummary.model_validate(each, from_attributes=True) for each in shown]
        return answers.page(request, found, limit, views, str(shown[-1].version) if shown else "")

    async def get_version(
        self,
        request: Request,
        workflow_id: UUID,
        version: Annotated[int, Path(ge=1, le=2**31 - 1)],
    ) -> Response:
        """A version of a workflow, as it was written. It never changes."""
        org = caller_of(request).org
        found = await self._ports.pool.run_as(org, _version, org, workflow_id, version)
        view = VersionView(
            version=found.version,
            dialect=found.dialect,
            created_by=found.created_by,
            created_at=found.created_at,
        )
        return answer(view, definition=found.document)

    async def put_webhook_secret(self, request: Request, workflow_id: UUID, node: str) -> Response:
        """Set the secret that senders to a webhook trigger sign with. Nobody can read it again."""
        caller = caller_of(request)
        body = await read(request, SecretBody, SMALL)
        if (body.secret is None) == (body.secrets is None):
            raise invalid((), "Give either `secret` or `secrets`.")
        secrets = body.secrets if body.secrets is not None else [body.secret or ""]
        workflow, text = await self._ports.pool.run_as(
            caller.org, _current, caller.org, workflow_id
        )
        checked = await self._ports.documents.check(orjson.loads(text), len(text))
        spec = next((s for s in checked.triggers if s.node == node and s.kind == WEBHOOK), None)
        if spec is None:
            raise NotFoundError(f"The workflow {workflow.id} has no webhook trigger {node!r}.")
        scheme = read_verification(spec.settings.get("verification")).scheme
        for index, secret in enumerate(secrets):
            try:
                check_secret(scheme, secret)
            except InputError as error:
                pointer = "/secret" if body.secrets is None else f"/secrets/{index}"
                raise InputError(str(error), pointer=pointer) from None
        encrypted = self._ports.box.encrypt(orjson.dumps(secrets), secret_place(workflow_id, node))
        await self._ports.pool.run_as(
            caller.org, _set_secret, caller.org, workflow_id, node, encrypted, name_of(caller)
        )
        self._ports.entrances.forget()
        return Response(status_code=204)


async def _current(connection: Connection, org: UUID, workflow_id: UUID) -> tuple[Workflow, bytes]:
    workflow = await workflows.get(connection, org, workflow_id)
    document = await versions.document(connection, workflow_id, workflow.version)
    return workflow, document.document


async def _set_status(
    connection: Connection,
    org: UUID,
    workflow_id: UUID,
    status: str,
    specs: tuple[TriggerSpec, ...],
    expected: int,
    by: str,
) -> int:
    """The generation of the triggers from now on."""
    await check_secrets(connection, org, workflow_id, specs)
    await workflows.set_status(connection, org, workflow_id, status, specs, expected=expected)
    await audit.add(connection, org, by, f"workflow.{status}", str(workflow_id), {})
    return await triggers.generation(connection)


async def _set_secret(
    connection: Connection, org: UUID, workflow_id: UUID, node: str, encrypted: bytes, by: str
) -> None:
    await triggers.set_webhook_secret(connection, org, workflow_id, node, encrypted)
    details = {"node": node}
    await audit.add(connection, org, by, "webhook.secret_set", str(workflow_id), details)


async def _versions(
    connection: Connection, org: UUID, workflow_id: UUID, before: int | None, limit: int
) -> list[versions.Version]:
    await workflows.get(connection, org, workflow_id)
    return await versions.find(connection, org, workflow_id, before=before, limit=limit)


async def _version(
    connection: Connection, org: UUID, workflow_id: UUID, version: int
) -> versions.Document:
    await workflows.get(connection, org, workflow_id)
    return await versions.document(connection, workflow_id, version)
