"""/notifications/v1: what a user was told, and that it was read.

A user is the `user_name` of the API key that asks; a key with the scope `admin` may name any other
in `user`.
"""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import orjson
from fastapi import Query
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from pipeline.gateway import answers
from pipeline.gateway.answers import answer
from pipeline.gateway.auth import ADMIN, caller_of
from pipeline.gateway.bodies import read
from pipeline.gateway.definitions import Limit
from pipeline.gateway.ports import Ports
from pipeline.gateway.problems import Refusal
from pipeline.gateway.shapes import NotificationView, ReadBody, ReadView
from pipeline.store import notifications
from pipeline.store.notifications import LONGEST_USER, Notification

ROOT = "/notifications/v1"
SMALL = 1_000

User = Annotated[str | None, Query(min_length=1, max_length=LONGEST_USER)]


class Notifications:
    """The handlers."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def list_notifications(
        self,
        request: Request,
        user: User = None,
        unread: bool = False,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Response:
        """What a user was told, newest first."""
        org = caller_of(request).org
        found = await self._ports.pool.run_as(
            org,
            notifications.find,
            org,
            user_of(request, user),
            only_unread=unread,
            before=_place(cursor),
            limit=limit + 1,
        )
        shown = found[:limit]
        last = str(shown[-1].seq) if shown else ""
        return answers.page(request, found, limit, [view(each) for each in shown], last)

    async def read_notification(
        self, request: Request, notification_id: UUID, user: User = None
    ) -> Response:
        """Say that one was read."""
        org = caller_of(request).org
        await self._ports.pool.run_as(
            org, notifications.mark, org, user_of(request, user), notification_id
        )
        return Response(status_code=204)

    async def read_notifications(self, request: Request, user: User = None) -> Response:
        """Say that all up to one of them were read."""
        org = caller_of(request).org
        body = await read(request, ReadBody, SMALL)
        count = await self._ports.pool.run_as(
            org, notifications.mark_all, org, user_of(request, user), body.upto
        )
        return answer(ReadView(count=count))


def user_of(connection: HTTPConnection, wanted: str | None) -> str:
    """Whose notifications are asked for. 403 for somebody else's, 400 where nobody is named."""
    caller = caller_of(connection)
    if wanted is None or wanted == caller.user_name:
        if not caller.user_name:
            raise answers.bad_parameter(
                "user",
                "This API key belongs to no user. Make one with `permaflow key create --user`, or "
                "name the user, for which the key needs the scope `admin`.",
            )
        return caller.user_name
    if ADMIN not in caller.scopes:
        raise Refusal(
            403, "not_your_user", "To read for another user, a key needs the scope `admin`."
        )
    if len(wanted) > LONGEST_USER or not wanted.isprintable():
        raise answers.bad_parameter("user", "This is no name of a user.")
    return wanted


def view(notification: Notification) -> NotificationView:
    data: Any = orjson.loads(notification.data)
    return NotificationView(
        id=notification.id,
        seq=notification.seq,
        title=notification.title,
        description=notification.description,
        link=notification.link,
        data=data,
        run_id=notification.run_id,
        at=notification.at,
        read_at=notification.read_at,
    )


def _place(cursor: str | None) -> int | None:
    text = answers.decode_cursor(cursor)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 18:
        raise answers.bad_parameter("cursor", "This is no cursor of ours.")
    return int(text)
