"""/workflows/v1/approvals: what waits for people, and what they decide.

A person is the user of the API key. A key with the scope `admin` sees everything and may speak for
another by `user`; a key without a user speaks for itself, and can decide only what anybody may.
"""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import orjson
from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response as HttpResponse

from permaflow.errors import ForbiddenError, NotFoundError
from permaflow.plan import Json
from pipeline.answers import post_answers
from pipeline.bus.subjects import TIMER
from pipeline.core.approval import APPROVE, Terms
from pipeline.gateway import answers
from pipeline.gateway.answers import answer
from pipeline.gateway.auth import ADMIN, caller_of, name_of
from pipeline.gateway.bodies import invalid, read
from pipeline.gateway.input_schemas import compile_schema, misfits
from pipeline.gateway.ports import Ports
from pipeline.gateway.shapes_approvals import (
    ApprovalSummary,
    ApprovalView,
    DecisionView,
    DelegateBody,
    EventView,
    QuorumView,
    RespondBody,
)
from pipeline.store import approvals, decisions
from pipeline.store.approvals import Approval, Row
from pipeline.store.decisions import Response
from pipeline.store.keys import Caller

ROOT = "/workflows/v1/approvals"
MOST_BYTES = 256 * 1024
"""Of a decision with its form."""


class PendingQuery(BaseModel):
    """Which open approvals to list. Without `user` those of the caller; with `admin` all."""

    model_config = ConfigDict(extra="forbid")

    user: str | None = Field(None, max_length=200, description="Needs the scope `admin`.")
    run_id: UUID | None = None
    limit: int = Field(50, ge=1, le=200)
    cursor: str | None = None


class Approvals:
    """The handlers."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def list_pending_approvals(
        self, request: Request, wanted: Annotated[PendingQuery, Query()]
    ) -> HttpResponse:
        """Approvals that wait for the caller, or (`admin`) for anybody."""
        caller = caller_of(request)
        person = wanted.user
        if ADMIN not in caller.scopes or (person is None and caller.user_name):
            person = person_of(caller, wanted.user)
        found = await self._ports.pool.run_as(
            caller.org,
            approvals.pending,
            caller.org,
            person=person,
            run=wanted.run_id,
            before=answers.uuid_cursor(wanted.cursor),
            limit=wanted.limit + 1,
        )
        shown = found[: wanted.limit]
        views = [summary(row, row.read_terms()) for row in shown]
        return answers.page(request, found, wanted.limit, views, str(shown[-1].id) if shown else "")

    async def get_approval(self, request: Request, approval_id: UUID) -> HttpResponse:
        """An approval, for those whom it concerns."""
        caller = caller_of(request)
        approval = await self._get(caller, approval_id)
        return answer(view(approval))

    async def respond_to_approval(self, request: Request, approval_id: UUID) -> HttpResponse:
        """Approve or reject. The answer comes once the decision is stored."""
        caller = caller_of(request)
        body = await read(request, RespondBody, MOST_BYTES)
        response = Response(
            person_of(caller, body.user),
            body.decision,
            body.data,
            body.comment,
            f"key:{caller.key_id}",
        )
        approval = await self._get(caller, approval_id)
        # A key without a user starts runs by its name, and decides by its id.
        if response.person == person_of(caller, None) and approval.is_barred(name_of(caller)):
            raise ForbiddenError(f"{name_of(caller)} asked for this, and may not decide about it.")
        return answer(view(await respond(self._ports, caller.org, approval_id, response)))

    async def delegate_approval(self, request: Request, approval_id: UUID) -> HttpResponse:
        """Let another decide in one's place."""
        caller = caller_of(request)
        body = await read(request, DelegateBody, MOST_BYTES)
        person = person_of(caller, body.user)
        await self._get(caller, approval_id)
        approval = await self._ports.pool.run_as(
            caller.org,
            decisions.delegate,
            caller.org,
            approval_id,
            person,
            body.to,
            comment=body.comment,
            via=f"key:{caller.key_id}",
        )
        self._ports.bus.ring(TIMER, b"0")
        return answer(view(approval))

    async def _get(self, caller: Caller, approval_id: UUID) -> Approval:
        """The approval; for others than those it concerns there is none."""
        approval = await self._ports.pool.run_as(caller.org, approvals.get, caller.org, approval_id)
        if ADMIN not in caller.scopes and not concerns(approval, person_of(caller, None)):
            raise NotFoundError(f"There is no approval {approval_id}.")
        return approval


async def respond(ports: Ports, org: UUID, approval_id: UUID, response: Response) -> Approval:
    """Takes a decision down and tells the run. Raises like `decisions.respond`; 422 for a form that
    does not fit.
    """
    approval = await ports.pool.run_as(org, approvals.get, org, approval_id)
    decisions.check(approval, response.person)
    if response.decision == APPROVE and approval.terms.form is not None:
        validator = compile_schema(approval.terms.form)
        assert validator is not None
        if found := misfits(validator, response.data, "/data"):
            raise invalid(found, "The data does not fit the form of this approval.")
    heard = await ports.pool.run_as(
        org,
        decisions.respond,
        org,
        approval_id,
        response,
        inline=ports.settings.inline_bytes,
    )
    post_answers(ports.bus, heard.answers)
    return heard.approval


def person_of(caller: Caller, wanted: str | None) -> str:
    """For whom a caller speaks."""
    own = caller.user_name or f"key:{caller.key_id}"
    if wanted is None or wanted == own:
        return own
    if ADMIN not in caller.scopes:
        raise ForbiddenError("To speak for another user needs the scope `admin`.")
    return wanted


def concerns(approval: Approval, person: str) -> bool:
    """Whether a person may see an approval: asked, been asked, asking, or to be seen by all."""
    return (
        approval.eligible is None
        or person in approval.eligible
        or person in approval.away
        or person == approval.row.requester
        or any(person == event.person for event in approval.events)
    )


def summary(row: Row, terms: Terms) -> ApprovalSummary:
    return ApprovalSummary(**_members(row, terms))


def view(approval: Approval) -> ApprovalView:
    """All of it."""
    waiting = approval.waiting_for
    return ApprovalView(
        **_members(approval.row, approval.terms),
        waiting_for=None if waiting is None else sorted(waiting),
        decisions=[DecisionView.model_validate(each) for each in decisions.decisions(approval)],
        events=[
            EventView.model_validate(
                {
                    "kind": each.kind,
                    "user": each.person,
                    "details": orjson.loads(each.details),
                    "comment": each.comment,
                    "via": each.via,
                    "at": each.at,
                }
            )
            for each in approval.events
        ],
    )


def _members(row: Row, terms: Terms) -> dict[str, Json]:
    path = f"{ROOT}/{row.id}"
    reached = terms.escalation[: max(0, row.level - 1)]
    users = [*terms.users, *(name for level in reached for name in level.users)]
    groups = [*terms.groups, *(name for level in reached for name in level.groups)]
    named = list(dict.fromkeys([*users, *(f"group:{name}" for name in groups)]))
    return {
        "id": row.id,
        "status": row.status,
        "title": terms.title or row.node,
        "description": terms.description,
        "data": terms.data,
        "form": terms.form,
        "assignees": None if terms.to_all else named,
        "quorum": QuorumView(need="all" if terms.need is None else terms.need, veto=terms.veto),
        "delegation": terms.delegation,
        "requester": row.requester,
        "run_id": row.run_id,
        "scope": row.scope,
        "node": row.node,
        "asked_at": row.asked_at,
        "expires_at": row.expires_at,
        "closed_at": row.closed_at,
        "closed_by": row.closed_by,
        "links": {
            "self": path,
            "respond": f"{path}/respond",
            "delegate": f"{path}/delegate",
            "run": f"/workflows/v1/runs/{row.run_id}",
        },
    }
