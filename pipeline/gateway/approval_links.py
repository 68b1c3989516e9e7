"""Links that decide about an approval, for people who have no API key.

Mail scanners and previews follow links: GET shows what a link would do, and only POST does it. A
link speaks for one person with one decision; whether that person may decide is looked at when it is
used, like everybody else's right. Once it is decided, or that person has decided, a link shows what
came of it, and no longer what was asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from urllib.parse import parse_qsl
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import Response as HttpResponse

from permaflow.errors import ForbiddenError, NotFoundError
from permaflow.plan import Json, Problem
from pipeline.core.approval import APPROVE, REJECT
from pipeline.gateway.answers import absolute, answer
from pipeline.gateway.approval_forms import Form, read_form
from pipeline.gateway.approval_pages import HEADERS, PREFIX, asking, page, wants_page
from pipeline.gateway.approvals import MOST_BYTES, ROOT, respond
from pipeline.gateway.auth import caller_of
from pipeline.gateway.bodies import invalid, parse_json, read, read_bytes, validate
from pipeline.gateway.ports import Ports
from pipeline.gateway.problems import Refusal
from pipeline.gateway.rates import Rates
from pipeline.gateway.shapes_approvals import (
    Decision,
    LinkBody,
    LinkedView,
    LinkResponse,
    LinksView,
    LinkView,
)
from pipeline.store import approval_links, approvals, audit
from pipeline.store.approval_links import Link
from pipeline.store.approvals import Approval
from pipeline.store.database import Connection
from pipeline.store.decisions import Response, check

PATH = f"{ROOT}/links/{{token}}"
EACH, ALL = 10.0, 100.0
"""Uses a second of one link, and of all from one address."""
MOST_FIELDS = 10
"""Of a form, besides those that its page asks."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")
_UNKNOWN = "There is no such link, or its time is over."
_FORM = "application/x-www-form-urlencoded"


class ApprovalLinks:
    """The handlers."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._each = Rates(EACH, "A link may be used {rate:g} times a second.")
        self._all = Rates(ALL, "An address may use links {rate:g} times a second.")

    async def create_approval_links(self, request: Request, approval_id: UUID) -> HttpResponse:
        """Links with which somebody who was asked decides without an API key. Told once."""
        caller = caller_of(request)
        body = await read(request, LinkBody, MOST_BYTES)
        made = await self._ports.pool.run_as(
            caller.org, _create, caller.org, approval_id, body, f"key:{caller.key_id}"
        )
        base = self._ports.settings.public_url
        views = [
            LinkView(
                user=body.user,
                decision=decision,
                token=token,
                path=(path := PATH.replace("{token}", token)),
                url=absolute(request, base, path),
                expires_at=expires_at,
            )
            for decision, token, expires_at in made
        ]
        return answer(LinksView(data=views), 201, {"cache-control": "no-store"})

    async def show_approval_link(self, request: Request, token: str) -> HttpResponse:
        """What a link would decide. Looking decides nothing."""
        link = await self._link(request, token)
        approval = await self._approval(link)
        if wants_page(request):
            return _page(approval, link, read_form(_form(approval, link)))
        return answer(_linked(approval, link), headers=HEADERS)

    async def use_approval_link(self, request: Request, token: str) -> HttpResponse:
        """Decide as the link says. The body may hold `comment` and `data`, as JSON or as the form
        that the page of the link shows.
        """
        link = await self._link(request, token)
        raw = await read_bytes(request, MOST_BYTES)
        approval = await self._approval(link)
        check(approval, link.person)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        schema = _form(approval, link)
        texts = _texts(raw, schema) if kind == _FORM else {}
        form = read_form(schema, _answers(texts))
        try:
            body = _filled(form, texts) if kind == _FORM else _body(raw)
            given = (body.data, body.comment, f"link:{link.id}")
            response = Response(link.person, link.decision, *given)
            approval = await respond(self._ports, link.org, link.approval, response)
        except Refusal as refused:
            if refused.status != 422 or not wants_page(request):
                raise
            return _page(approval, link, form, texts.get("comment", ""), refused.errors)
        if wants_page(request):
            return _noted(approval, link)
        return answer(_linked(approval, link), headers=HEADERS)

    async def _approval(self, link: Link) -> Approval:
        return await self._ports.pool.run_as(link.org, approvals.get, link.org, link.approval)

    async def _link(self, request: Request, token: str) -> Link:
        self._all.take(request.client.host if request.client else "")
        self._each.take(token[:20])
        if not _TOKEN.fullmatch(token):
            raise NotFoundError(_UNKNOWN)
        link = await self._ports.pool.run(approval_links.verify, token)
        if link is None:
            raise NotFoundError(_UNKNOWN)
        return link


async def _create(
    connection: Connection, org: UUID, approval_id: UUID, body: LinkBody, via: str
) -> list[tuple[Decision, str, datetime]]:
    approval = await approvals.get(connection, org, approval_id)
    if approval.eligible is not None and body.user not in approval.eligible:
        raise ForbiddenError(f"{body.user} is not among those who are asked.")
    if approval.is_barred(body.user):
        raise ForbiddenError(f"{body.user} asked for this, and may not decide about it.")
    valid_for = timedelta(seconds=body.valid_for)
    made: list[tuple[Decision, str, datetime]] = []
    for decision in dict.fromkeys(body.decisions):
        token, expires_at = await approval_links.create(
            connection, org, approval_id, body.user, decision, valid_for
        )
        made.append((decision, token, expires_at))
    details = {"user": body.user, "decisions": body.decisions}
    await audit.add(connection, org, via, "approval.link", f"approval:{approval_id}", details)
    return made


def _body(raw: bytes) -> LinkResponse:
    if not raw.strip():
        return LinkResponse()
    return validate(LinkResponse, parse_json(raw, MOST_BYTES))


def _texts(raw: bytes, schema: Json) -> dict[str, str]:
    """What a page sends."""
    most = MOST_FIELDS + len(read_form(schema).fields)
    try:
        return dict(parse_qsl(raw.decode(errors="replace"), max_num_fields=most))
    except ValueError:
        detail = f"The form may have {most} fields at most."
        raise Refusal(400, "invalid_form", detail) from None


def _answers(texts: Mapping[str, str]) -> dict[str, str]:
    """The texts of the form, by property."""
    return {n.removeprefix(PREFIX): text for n, text in texts.items() if n.startswith(PREFIX)}


def _filled(form: Form, texts: Mapping[str, str]) -> LinkResponse:
    """Raises 422 if something is missing."""
    if missing := form.missing():
        raise invalid(missing)
    sent = {"comment": texts.get("comment", ""), "data": form.data()}
    return validate(LinkResponse, parse_json(orjson.dumps(sent), MOST_BYTES))


def _form(approval: Approval, link: Link) -> Json:
    """The JSON Schema of what has to be given with the decision of a link."""
    return approval.terms.form if link.decision == APPROVE else None


def _decided(approval: Approval, link: Link) -> str | None:
    """What the person of a link has decided."""
    said = approval.votes.get(link.person)
    return None if said is None else APPROVE if said else REJECT


def _linked(approval: Approval, link: Link) -> LinkedView:
    decided = _decided(approval, link)
    asked: dict[str, Json] = {}
    if approval.is_pending and decided is None:
        asked = {
            "title": approval.terms.title or approval.row.node,
            "description": approval.terms.description,
            "data": approval.terms.data,
            "form": approval.terms.form,
        }
    return LinkedView.model_validate(
        {
            "id": link.approval,
            "status": approval.row.status,
            "user": link.person,
            "decision": link.decision,
            "decided": decided,
            "expires_at": link.expires_at,
            **asked,
        }
    )


def _page(
    approval: Approval, link: Link, form: Form, comment: str = "", problems: Sequence[Problem] = ()
) -> HttpResponse:
    """What a link asks, or what came of it. With `problems` it asks again."""
    row, terms = approval.row, approval.terms
    status, decided = row.status.replace("_", " "), _decided(approval, link)
    if decided is not None:
        return page("Approval", f"You have said {decided} already. It is {status}.")
    if not approval.is_pending:
        return page("Approval", f"It is {status} already.")
    button = f"{link.decision.capitalize()} as {link.person}"
    rest = asking(form, comment, button, problems)
    return page(terms.title or row.node, terms.description, rest, 422 if problems else 200)


def _noted(approval: Approval, link: Link) -> HttpResponse:
    status = approval.row.status.replace("_", " ")
    return page("Approval", f"Noted: {_decided(approval, link)}. It is {status} now.")
