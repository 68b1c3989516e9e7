"""Bodies of requests: limited while they are read, parsed once, and every fault told at once.

What is no JSON, or JSON that not every part of the system can carry, is a 400 with a pointer; what
is JSON of the wrong form is a 422.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect, Request

from permaflow.errors import InputError
from permaflow.plan import Json, Problem
from permaflow.values import escape
from pipeline.gateway.problems import Refusal
from specs.json_limits import check_json_bytes

Model = TypeVar("Model", bound=BaseModel)

SLOWEST = 20.0
"""Seconds that a sender has for a whole body."""

_CODES = {"missing": "missing_field", "extra_forbidden": "unknown_field"}


async def read_bytes(request: Request, limit: int) -> bytes:
    """The body as it came. Refuses what is compressed (415), too large (413) or too slow (408)."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refusal(415, "content_encoding", "Send the body as it is, without compression.")
    length = request.headers.get("content-length", "")
    if length.isdecimal() and len(length) < 20 and int(length) > limit:
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(SLOWEST):
            async for part in request.stream():
                size += len(part)
                if size > limit:
                    raise _too_large(limit)
                parts.append(part)
    except TimeoutError:
        close = {"connection": "close"}
        raise Refusal(408, "timeout", "The body took too long to come.", headers=close) from None
    except ClientDisconnect:
        raise Refusal(400, "disconnected", "The body was cut off.") from None
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> Refusal:
    detail = f"The body may have {limit:,} bytes at most."
    problem = Problem("", "too_large", detail)
    return Refusal(413, "too_large", detail, errors=(problem,), headers={"connection": "close"})


def check_size(part: bytes, limit: int, pointer: str) -> None:
    """413 if a part of the body, which has been read, is larger than it may be."""
    if len(part) > limit:
        detail = f"This has {len(part):,} bytes; at most {limit:,} are allowed."
        raise Refusal(413, "too_large", detail, errors=(Problem(pointer, "too_large", detail),))


async def read_json(request: Request, limit: int) -> tuple[bytes, Json]:
    """The body and its JSON value. Without a Content-Type it is taken for JSON, too."""
    kind = request.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        raise Refusal(
            415, "media_type", "Send JSON, with the header `Content-Type: application/json`."
        )
    raw = await read_bytes(request, limit)
    return raw, parse_json(raw, limit)


def parse_json(raw: bytes, limit: int) -> Json:
    """The JSON value of a body; 400 if it is none."""
    try:
        return check_json_bytes(raw, max_bytes=limit)
    except InputError as error:
        problem = Problem(error.pointer, error.code, str(error))
        raise Refusal(400, "invalid_json", str(error), errors=(problem,)) from None


async def read(request: Request, model: type[Model], limit: int) -> Model:
    """The body as `model` describes it."""
    return validate(model, (await read_json(request, limit))[1])


def validate(model: type[Model], value: Json) -> Model:
    """A JSON value as `model` describes it; 422 with every problem otherwise."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid(problems_of(error)) from None


def invalid(problems: tuple[Problem, ...], detail: str = "") -> Refusal:
    """422 with these problems."""
    count = len(problems)
    said = detail or f"The body has {count} problem{'s' * (count != 1)}."
    return Refusal(422, "invalid_input", said, errors=problems)


def problems_of(error: ValidationError, skip: int = 0) -> tuple[Problem, ...]:
    """What pydantic found, with pointers; `skip` is how many parts its locations begin with."""
    found: list[Problem] = []
    for item in error.errors(include_url=False, include_input=False, include_context=False):
        pointer = "".join(f"/{escape(str(part))}" for part in item["loc"][skip:])
        code = _CODES.get(item["type"], item["type"])
        found.append(Problem(pointer, code, f"{item['msg'].removeprefix('Value error, ')}."))
    return tuple(found)
