"""Errors become problems: ours, those of FastAPI, and bugs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from permaflow.errors import PermaflowError
from permaflow.plan import Problem
from pipeline import telemetry
from pipeline.gateway.approval_pages import refused_page, wants_page
from pipeline.gateway.doors import Doors
from pipeline.gateway.problems import (
    BUG,
    REQUEST_ID,
    Refusal,
    leads_to_link,
    problem_response,
    refusal,
    without_secrets,
)
from pipeline.telemetry import log


def handle_errors(api: FastAPI, doors: Doors) -> None:
    """Every answer of the application that is no success is a problem."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return _answered(error, request)

    async def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, PermaflowError)
        found = refusal(error)
        if found.status >= 500:
            log.error(
                telemetry.REQUEST_FAILED,
                path=without_secrets(request.scope["path"]),
                request_id=request.scope.get(REQUEST_ID, ""),
                error=str(error),
            )
        return _answered(found, request)

    async def unknown(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            allowed = ", ".join(doors.methods(request.scope))
            detail = f"This address takes {allowed}."
            found = Refusal(405, "method_not_allowed", detail, headers={"allow": allowed})
        elif error.status_code == 404:
            found = Refusal(404, "not_found", "There is nothing at this address.")
        else:
            found = Refusal(error.status_code, "refused", str(error.detail))
        return _answered(found, request)

    async def misfit(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return _answered(_misfit(error), request)

    async def crashed(request: Request, _: Exception) -> Response:
        return _answered(Refusal(500, "error", BUG), request)

    api.add_exception_handler(Refusal, refused)
    api.add_exception_handler(PermaflowError, failed)
    api.add_exception_handler(HTTPException, unknown)
    api.add_exception_handler(RequestValidationError, misfit)
    api.add_exception_handler(Exception, crashed)


def _answered(refused: Refusal, request: Request) -> Response:
    """People who open links that decide are shown a page."""
    if leads_to_link(request.scope["path"]) and wants_page(request):
        return refused_page(refused)
    return problem_response(refused, request.scope)


def _misfit(error: RequestValidationError) -> Refusal:
    """A bad parameter is a 400; an id that is none leads nowhere, a 404."""
    found = [(str(each["loc"][0]), each) for each in error.errors()]
    if any(place == "path" for place, _ in found):
        return Refusal(404, "not_found", "There is nothing at this address.")
    told = [(each, _sentence(each)) for _, each in found]
    problems = tuple(
        Problem("".join(f"/{part}" for part in each["loc"]), "bad_value", said)
        for each, said in told
    )
    detail = " ".join(f"`{each['loc'][-1]}`: {said}" for each, said in told)
    return Refusal(400, "bad_parameter", detail, errors=problems)


def _sentence(each: Mapping[str, Any]) -> str:
    """What is wrong with a parameter, and what would be right."""
    kind, limits = str(each["type"]), each.get("ctx", {})
    match kind:
        case "greater_than_equal":
            return f"It must be {limits['ge']:,} or more."
        case "less_than_equal":
            return f"It must be {limits['le']:,} or less."
        case "literal_error" | "enum":
            return f"It must be {limits['expected']}."
        case "string_too_long":
            return f"It may have {limits['max_length']:,} characters at most."
        case "string_too_short":
            return f"It must have {limits['min_length']:,} characters at least."
    for beginning, said in _SENTENCES.items():
        if kind.startswith(beginning):
            return said
    return f"{each['msg']}."


_SENTENCES = {
    "date": "It must be a time such as `2030-01-31T09:00:00Z`; the `+` of an offset is `%2B`.",
    "timezone": "It must be a time with its offset from UTC, such as `2030-01-31T09:00:00Z`.",
    "int": "It must be a whole number.",
    "float": "It must be a number.",
    "bool": "It must be true or false.",
    "uuid": "It must be an id, such as `0190a0a0-0000-7000-8000-000000000000`.",
    "extra_forbidden": "There is no such parameter here.",
    "missing": "It is missing.",
}
"""How the types of pydantic's errors begin → what is told."""
