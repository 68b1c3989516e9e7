"""What a refused request is answered: RFC 9457 problems, and which error has which status.

Handlers raise errors of `permaflow.errors`, or a `Refusal` for what only HTTP knows. Details of
what is broken inside (the database's words, a traceback) never leave; they are in the log, under
the request's id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from permaflow.errors import DocumentError, InputError, PermaflowError
from permaflow.plan import Json, Problem

MEDIA_TYPE = "application/problem+json"
TYPE = "urn:permaflow:problem:"
REQUEST_ID = "permaflow.request_id"
"""Where the ASGI scope keeps the id of a request."""

STATUSES: Mapping[str, int] = {
    "invalid_document": 422,
    "invalid_input": 422,
    "limit_exceeded": 422,
    "evaluation": 422,
    "forbidden": 403,
    "not_found": 404,
    "wrong_state": 409,
    "conflict": 409,
    "store": 503,
    "store_unavailable": 503,
    "bus": 503,
    "bus_unavailable": 503,
    "settings": 503,
}
"""Code of an error → status. Whatever is not here is a bug: 500."""

_UNSAID: Mapping[str, str] = {
    "store": "The database refused at present. Try again.",
    "store_unavailable": "The database cannot be reached at present. Try again.",
    "bus": "The message bus refused at present. Try again.",
    "bus_unavailable": "The message bus cannot be reached at present. Try again.",
}
BUG = "Something went wrong here. The log has it under the request's id."
RETRY_AFTER = "1"

_LINK = re.compile(r"(/approvals/links/)[^/]+")


class Refusal(Exception):
    """A request that is answered with a problem."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[Problem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        self.headers = dict(headers or {})


def refusal(error: PermaflowError) -> Refusal:
    """How an error of ours is answered."""
    status = STATUSES.get(error.code, 500)
    detail = BUG if status == 500 else _UNSAID.get(error.code, str(error))
    errors: Sequence[Problem] = ()
    match error:
        case DocumentError():
            errors = error.problems
        case InputError():
            errors = (Problem(error.pointer, error.code, str(error)),)
        case _:
            pass
    headers = {"retry-after": RETRY_AFTER} if status == 503 else None
    return Refusal(status, error.code, detail, errors=errors, headers=headers)


def leads_to_link(path: str) -> bool:
    """Whether this is the address of a link that decides."""
    return _LINK.search(path) is not None


def without_secrets(path: str) -> str:
    """A path as it may stand in a log: a link that decides is as good as a key."""
    return _LINK.sub(r"\1…", path)


def within(prefix: str, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The same problems, of a part that stands at `prefix` of the request's body."""
    return tuple(Problem(prefix + each.pointer, each.code, each.message) for each in problems)


def problem_response(refused: Refusal, scope: Mapping[str, Any]) -> Response:
    """The answer to a refused request."""
    body: dict[str, Json] = {
        "type": TYPE + refused.code,
        "title": HTTPStatus(refused.status).phrase,
        "status": refused.status,
        "code": refused.code,
        "detail": refused.detail,
        "instance": scope.get("path", ""),
        "request_id": scope.get(REQUEST_ID, ""),
        "errors": [
            {"pointer": each.pointer, "code": each.code, "message": each.message}
            for each in refused.errors
        ],
    }
    return Response(
        orjson.dumps(body), refused.status, headers=refused.headers, media_type=MEDIA_TYPE
    )
