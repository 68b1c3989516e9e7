"""GET /documents/v1/{document_id}: a file that a step wrote, to be kept and never to be run.

What is in a file may come from anybody. So it is sent as an attachment, is not what it does not say
it is, and if somebody opens it here anyway, it may do nothing.
"""

from __future__ import annotations

import re
from urllib.parse import quote
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response

from permaflow.ports import Document
from pipeline.gateway.auth import caller_of
from pipeline.gateway.ports import Ports
from pipeline.store import documents
from pipeline.store.documents import PATH

ROOT = PATH

_odd = re.compile(r"[^ !#$&'()+,\-.0-9=@A-Z\[\]^_`a-z{}~]")

_SAFE = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "cache-control": "private, no-store",
}


class Downloads:
    """The handler."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def get_document(self, request: Request, document_id: UUID) -> Response:
        """A file that a step wrote."""
        org = caller_of(request).org
        found = await self._ports.pool.run_as(org, documents.get, org, document_id)
        return Response(
            found.body,
            headers=_SAFE | {"content-disposition": _attachment(found)},
            media_type=_sound(found.content_type),
        )


def _attachment(document: Document) -> str:
    """The name in ASCII for everybody, and as it is for those who read RFC 8187."""
    plain = "".join(
        c if c.isascii() and c.isprintable() and c not in '"\\%;' else "_" for c in document.name
    )
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(document.name, safe='')}"


def _sound(content_type: str) -> str:
    """The type, unless it cannot stand in a header."""
    if content_type.isascii() and content_type.isprintable():
        return content_type
    return "application/octet-stream"
