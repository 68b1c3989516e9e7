"""/workflows/v1/definitions: saving, reading and removing workflows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated
from uuid import UUID

import msgspec
from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from permaflow.errors import StateError
from permaflow.plan import Json, Problem, TriggerSpec
from pipeline.bus.subjects import WORKFLOWS
from pipeline.gateway import answers
from pipeline.gateway.answers import answer
from pipeline.gateway.auth import caller_of, name_of
from pipeline.gateway.bodies import check_size, read_json, validate
from pipeline.gateway.documents import Checked, is_signed
from pipeline.gateway.ports import Ports
from pipeline.gateway.problems import within
from pipeline.gateway.shapes import (
    DefinitionBody,
    DefinitionSummary,
    DefinitionUpdate,
    DefinitionView,
    DocumentBody,
    ProblemItem,
    StatsView,
    Status,
    TriggerView,
    ValidationView,
    WebhookView,
)
from pipeline.gateway.watching import listening, watched
from pipeline.ids import new_id
from pipeline.store import audit, stats, triggers, versions, workflows
from pipeline.store.database import Connection
from pipeline.store.workflows import Draft, Workflow

ROOT = "/workflows/v1/definitions"
ENVELOPE = 20_000
"""Bytes that a body may have around its document."""

Limit = Annotated[int, Query(ge=1, le=200)]
_read_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class Definitions:
    """The handlers."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def create_definition(self, request: Request) -> Response:
        """Save a new workflow. It is a draft until its status is set to `active`."""
        caller = caller_of(request)
        raw, value = await read_json(request, self._limit)
        body = validate(DefinitionBody, value)
        text = self._document_text(raw)
        checked = await self._ports.documents.accept(body.definition, len(text), "/definition")
        workflow_id = new_id()
        draft = Draft(
            name=body.name,
            document=text,
            dialect=checked.dialect,
            triggers=checked.triggers,
            description=body.description,
            trigger_type=body.trigger_type or kind_of(checked.triggers),
            by=name_of(caller),
        )
        saved = await self._ports.pool.run_as(caller.org, _create, caller.org, workflow_id, draft)
        headers = {"location": f"{ROOT}/{workflow_id}"}
        return self._show(request, saved, 201, headers, checked)

    async def list_definitions(
        self,
        request: Request,
        status: Status | None = None,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Response:
        """Workflows, newest first."""
        org = caller_of(request).org
        found = await self._ports.pool.run_as(
            org,
            workflows.find,
            org,
            status=status,
            before=answers.uuid_cursor(cursor),
            limit=limit + 1,
        )
        shown = found[:limit]
        views = [_summary(workflow) for workflow in shown]
        return answers.page(request, found, limit, views, str(shown[-1].id) if shown else "")

    async def get_definition(self, request: Request, workflow_id: UUID) -> Response:
        """A workflow with its document as it was written."""
        return await self.show(request, workflow_id)

    async def update_definition(self, request: Request, workflow_id: UUID) -> Response:
        """Save the next version. With `If-Match`, only if nobody has saved another meanwhile.

        Runs go on with the version that they were started with.
        """
        caller = caller_of(request)
        raw, value = await read_json(request, self._limit)
        body = validate(DefinitionUpdate, value)
        text = self._document_text(raw)
        checked = await self._ports.documents.accept(body.definition, len(text), "/definition")
        heard: bool | None = None
        async with listening(self._ports.bus) as rings:
            saved, generation = await self._ports.pool.run_as(
                caller.org,
                _update,
                caller.org,
                workflow_id,
                body,
                text,
                checked,
                answers.expected_version(request),
                name_of(caller),
            )
            self.changed()
            if generation is not None:
                found = checked.triggers
                heard = await watched(rings, generation, self._ports, caller.org, found)
        return self._show(request, saved, checked=checked, watched=heard)

    async def delete_definition(self, request: Request, workflow_id: UUID) -> Response:
        """Remove a workflow from sight. Its runs go on, its triggers fire no more."""
        caller = caller_of(request)
        await self._ports.pool.run_as(caller.org, _delete, caller.org, workflow_id, name_of(caller))
        self.changed()
        return Response(status_code=204)

    async def validate_definition(self, request: Request) -> Response:
        """Look at a document without saving it."""
        raw, value = await read_json(request, self._limit)
        body = validate(DocumentBody, value)
        text = self._document_text(raw)
        checked = await self._ports.documents.check(body.definition, len(text))
        view = ValidationView(
            valid=not checked.problems,
            dialect=checked.dialect,
            problems=items(within("/definition", checked.problems)),
            warnings=items(within("/definition", checked.warnings)),
            triggers=[TriggerView(node=each.node, kind=each.kind) for each in checked.triggers],
        )
        return answer(view)

    async def show(
        self, request: Request, workflow_id: UUID, watched: bool | None = None
    ) -> Response:
        """The workflow as it is now."""
        org = caller_of(request).org
        detail = await self._ports.pool.run_as(org, _detail, org, workflow_id)
        return self._show(request, detail, watched=watched)

    def _show(
        self,
        request: Request,
        detail: _Detail,
        status: int = 200,
        headers: dict[str, str] | None = None,
        checked: Checked | None = None,
        watched: bool | None = None,
    ) -> Response:
        workflow, document, hooks, counted = detail
        base = self._ports.settings.public_url
        view = DefinitionView(
            **_summary(workflow).model_dump(),
            dialect=document.dialect,
            webhooks=[
                WebhookView(
                    node=hook.node,
                    path=(path := f"/webhooks/workflow/{hook.token}"),
                    url=answers.absolute(request, base, path),
                    has_secret=hook.is_signed,
                )
                for hook in hooks
            ],
            stats=StatsView.model_validate(counted, from_attributes=True)
            if counted
            else StatsView(),
            watched=watched,
            warnings=items(within("/definition", checked.warnings)) if checked else [],
        )
        return answer(
            view,
            status,
            {**(headers or {}), **answers.etag(workflow.version)},
            definition=document.document,
        )

    def changed(self) -> None:
        """Tell everybody that the active triggers may be others now."""
        self._ports.entrances.forget()
        self._ports.bus.ring(WORKFLOWS)

    @property
    def _limit(self) -> int:
        return self._ports.settings.max_document_bytes + ENVELOPE

    def _document_text(self, raw: bytes) -> bytes:
        text = document_text(raw)
        check_size(text, self._ports.settings.max_document_bytes, "/definition")
        return text


def document_text(raw: bytes) -> bytes:
    """The document in a body that is known to have one, byte for byte."""
    return bytes(_read_members(raw)["definition"])


def kind_of(specs: Sequence[TriggerSpec]) -> str:
    """What starts a workflow, in a word."""
    if not specs:
        return "manual"
    return "cdc" if specs[0].kind == "record" else specs[0].kind


def items(problems: tuple[Problem, ...]) -> list[ProblemItem]:
    return [ProblemItem(pointer=p.pointer, code=p.code, message=p.message) for p in problems]


def _summary(workflow: Workflow) -> DefinitionSummary:
    path = f"{ROOT}/{workflow.id}"
    links = {
        "self": path,
        "status": f"{path}/status",
        "versions": f"{path}/versions",
        "runs": f"/workflows/v1/runs?workflow_id={workflow.id}",
    }
    return DefinitionSummary(
        id=workflow.id,
        name=workflow.name,
        description=workflow.description,
        trigger_type=workflow.trigger_type,
        status=workflow.status,  # type: ignore[arg-type]
        version=workflow.version,
        created_at=workflow.created_at,
        updated_at=workflow.updated_at,
        activated_at=workflow.activated_at,
        links=links,
    )


async def _create(connection: Connection, org: UUID, workflow_id: UUID, draft: Draft) -> _Detail:
    await workflows.create(connection, org, workflow_id, draft)
    details: Json = {"name": draft.name, "version": 1}
    await audit.add(connection, org, draft.by, "workflow.created", str(workflow_id), details)
    return await _detail(connection, org, workflow_id)


async def _update(
    connection: Connection,
    org: UUID,
    workflow_id: UUID,
    body: DefinitionUpdate,
    text: bytes,
    checked: Checked,
    expected: int | None,
    by: str,
) -> tuple[_Detail, int | None]:
    """What was saved; and the generation of the triggers from now on, if the workflow is active."""
    found = await workflows.lock(connection, org, workflow_id)
    if expected is not None and found.version != expected:
        raise answers.changed(
            f"The workflow is at version {found.version}, not {expected}: somebody changed it. "
            "Load it and apply the change again."
        )
    draft = Draft(
        name=found.name if body.name is None else body.name,
        document=text,
        dialect=checked.dialect,
        triggers=checked.triggers,
        description=found.description if body.description is None else body.description,
        trigger_type=body.trigger_type or kind_of(checked.triggers),
        by=by,
    )
    if found.status == workflows.ACTIVE:
        await check_secrets(connection, org, workflow_id, checked.triggers)
    saved = await workflows.update(connection, org, workflow_id, draft)
    details: Json = {"version": saved.version}
    await audit.add(connection, org, by, "workflow.updated", str(workflow_id), details)
    detail = await _detail(connection, org, workflow_id)
    is_active = found.status == workflows.ACTIVE
    return detail, await triggers.generation(connection) if is_active else None


async def _delete(connection: Connection, org: UUID, workflow_id: UUID, by: str) -> None:
    await workflows.delete(connection, org, workflow_id)
    await audit.add(connection, org, by, "workflow.deleted", str(workflow_id), {})


async def check_secrets(
    connection: Connection, org: UUID, workflow_id: UUID, specs: Sequence[TriggerSpec]
) -> None:
    """Raises `StateError` if senders must sign and there is no secret to check with."""
    signed = [spec.node for spec in specs if is_signed(spec)]
    if not signed:
        return
    hooks = await triggers.webhooks(connection, org, workflow_id)
    known = {hook.node for hook in hooks if hook.is_signed}
    for node in signed:
        if node not in known:
            raise StateError(
                f"Senders to `{node}` must sign, and there is no secret to check with. "
                f"Set it first: PUT {ROOT}/{workflow_id}/webhooks/{node}/secret."
            )


_Detail = tuple[Workflow, versions.Document, list[triggers.Webhook], "stats.WorkflowStats | None"]


async def _detail(connection: Connection, org: UUID, workflow_id: UUID) -> _Detail:
    workflow = await workflows.get(connection, org, workflow_id)
    document = await versions.document(connection, workflow_id, workflow.version)
    hooks = await triggers.webhooks(connection, org, workflow_id)
    counted = await stats.of(connection, org, [workflow_id])
    return workflow, document, hooks, counted.get(workflow_id)
