"""The doors to what actions leave behind, and to the secrets that they use."""

from __future__ import annotations

from typing import Any

from starlette.responses import PlainTextResponse, Response

from pipeline.gateway import shapes
from pipeline.gateway.auth import ADMIN
from pipeline.gateway.doors import Doors
from pipeline.gateway.downloads import ROOT as DOCUMENTS
from pipeline.gateway.downloads import Downloads
from pipeline.gateway.notification_streams import NotificationStreams
from pipeline.gateway.notifications import ROOT as NOTIFICATIONS
from pipeline.gateway.notifications import Notifications
from pipeline.gateway.ports import Ports
from pipeline.gateway.secrets import ROOT as SECRETS
from pipeline.gateway.secrets import Secrets


def open_notifications(doors: Doors, ports: Ports, streams: NotificationStreams) -> None:
    notifications = Notifications(ports)
    reads: dict[str, Any] = {"needs": "notifications:read", "tags": ["notifications"]}
    writes: dict[str, Any] = {"needs": "notifications:write", "tags": ["notifications"]}
    doors.add(
        "GET",
        NOTIFICATIONS,
        notifications.list_notifications,
        response_model=shapes.Page[shapes.NotificationView],
        **reads,
    )
    doors.add_hot(
        "GET",
        f"{NOTIFICATIONS}/stream",
        streams.stream_notifications,
        likeness=_notifications,
        operation_id="stream_notifications",
        response_class=PlainTextResponse,
        responses={200: {"content": {"text/event-stream": {}}, "description": "Without an end."}},
        **reads,
    )
    doors.add_socket(f"{NOTIFICATIONS}/ws", streams.serve_socket, needs="notifications:read")
    doors.add(
        "POST",
        f"{NOTIFICATIONS}/read",
        notifications.read_notifications,
        body=shapes.ReadBody,
        response_model=shapes.ReadView,
        **writes,
    )
    doors.add(
        "POST",
        f"{NOTIFICATIONS}/{{notification_id}}/read",
        notifications.read_notification,
        status_code=204,
        **writes,
    )


def open_documents(doors: Doors, ports: Ports) -> None:
    doors.add(
        "GET",
        f"{DOCUMENTS}/{{document_id}}",
        Downloads(ports).get_document,
        response_class=PlainTextResponse,
        responses={200: {"content": {"*/*": {}}, "description": "The file, as an attachment."}},
        needs="runs:read",
        tags=["documents"],
    )


def open_secrets(doors: Doors, ports: Ports) -> None:
    secrets = Secrets(ports)
    one = f"{SECRETS}/{{secret_name}}"
    admins: dict[str, Any] = {"needs": ADMIN, "tags": ["secrets"]}
    doors.add(
        "GET",
        SECRETS,
        secrets.list_secrets,
        response_model=shapes.Page[shapes.SecretView],
        **admins,
    )
    doors.add("PUT", one, secrets.put_secret, body=shapes.SecretValue, status_code=204, **admins)
    doors.add("DELETE", one, secrets.delete_secret, status_code=204, **admins)


async def _notifications(user: str | None = None, last_event_id: str | None = None) -> Response:
    """Watch what a user is told: server-sent events, from the unread on, or from `Last-Event-ID`.

    Each event is a `notification`; its id is the `seq` of it. The same comes as messages of JSON
    over a WebSocket at `/notifications/v1/ws`.
    """
    raise AssertionError("this stands in the documentation only")
