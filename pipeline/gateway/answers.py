"""Answers: JSON of a described shape, pages, and the tags that tell versions apart."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode
from uuid import UUID

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from permaflow.plan import Json, Problem
from pipeline.gateway.problems import Refusal

JSON = "application/json"


def answer(
    body: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None, **raw: bytes
) -> Response:
    """The shape as JSON. `raw` puts JSON text into members, byte for byte."""
    if not raw:
        return Response(body.model_dump_json(), status, headers=headers, media_type=JSON)
    members: dict[str, Any] = body.model_dump(mode="json")
    members |= {name: orjson.Fragment(text) for name, text in raw.items()}
    return Response(orjson.dumps(members), status, headers=headers, media_type=JSON)


def page(
    request: Request, found: Sequence[Any], limit: int, views: Sequence[BaseModel], last: str
) -> Response:
    """A page of a list. `found` has one more than `limit` if there are more; `last` is where the
    next page goes on."""
    more = len(found) > limit
    cursor = encode_cursor(last) if more else None
    body = {
        "data": [view.model_dump(mode="json") for view in views],
        "next_cursor": cursor,
        "has_more": more,
    }
    headers = {}
    if cursor is not None:
        query = urlencode([*_others(request), ("cursor", cursor)])
        headers["link"] = f'<{quote(request.scope["path"])}?{query}>; rel="next"'
    return Response(orjson.dumps(body), headers=headers, media_type=JSON)


def _others(request: Request) -> list[tuple[str, str]]:
    return [pair for pair in request.query_params.multi_items() if pair[0] != "cursor"]


def encode_cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str | None) -> str | None:
    """What `encode_cursor` was given. Another cursor is a 400."""
    if cursor is None:
        return None
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return raw.decode()
    except (binascii.Error, ValueError):
        raise bad_parameter("cursor", "This is no cursor of ours.") from None


def uuid_cursor(cursor: str | None) -> UUID | None:
    """A cursor that is an id."""
    text = decode_cursor(cursor)
    try:
        return None if text is None else UUID(text)
    except ValueError:
        raise bad_parameter("cursor", "This is no cursor of ours.") from None


def bad_parameter(name: str, message: str) -> Refusal:
    """400 about a parameter of the query."""
    problem = Problem(f"/query/{name}", "bad_value", message)
    return Refusal(400, "bad_parameter", f"`{name}`: {message}", errors=(problem,))


def absolute(request: Request, public_url: str, path: str) -> str:
    """The address of a path: under PERMAFLOW_PUBLIC_URL, else under what the request was sent to,
    which is what its `Host` says.
    """
    return (public_url or str(request.base_url)).rstrip("/") + path


def etag(version: int) -> dict[str, str]:
    return {"etag": f'"{version}"'}


def expected_version(request: Request) -> int | None:
    """The version that `If-Match` wants; None for any. What matches no version is a 412."""
    wanted = request.headers.get("if-match", "*").strip()
    if wanted == "*":
        return None
    text = wanted.strip('"')
    if wanted != f'"{text}"' or not text.isdecimal() or len(text) > 18:
        raise changed(f"`If-Match: {wanted[:50]}` is no tag of ours.")
    return int(text)


def changed(detail: str) -> Refusal:
    """412: it is not the version that the sender knows."""
    return Refusal(412, "version_changed", detail)


def members(value: Json) -> dict[str, Json]:
    """An object as it is; anything else as none."""
    return value if isinstance(value, dict) else {}
