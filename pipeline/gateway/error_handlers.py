"""Errors become problems: ours, those of FastAPI, and bugs."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from permaflow.errors import PermaflowError
from permaflow.plan import Problem
from pipeline import telemetry
from pipeline.gateway.doors import Doors
from pipeline.gateway.problems import (
    BUG,
    REQUEST_ID,
    Refusal,
    problem_response,
    refusal,
    without_secrets,
)
from pipeline.telemetry import log


def handle_errors(api: FastAPI, doors: Doors) -> None:
    """Every answer of the application that is no success is a problem."""

    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return problem_response(error, request.scope)

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
        return problem_response(found, request.scope)

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
        return problem_response(found, request.scope)

    async def misfit(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return problem_response(_misfit(error), request.scope)

    async def crashed(request: Request, _: Exception) -> Response:
        return problem_response(Refusal(500, "error", BUG), request.scope)

    api.add_exception_handler(Refusal, refused)
    api.add_exception_handler(PermaflowError, failed)
    api.add_exception_handler(HTTPException, unknown)
    api.add_exception_handler(RequestValidationError, misfit)
    api.add_exception_handler(Exception, crashed)


def _misfit(error: RequestValidationError) -> Refusal:
    """A bad parameter is a 400; an id that is none leads nowhere, a 404."""
    found = [(str(each["loc"][0]), each) for each in error.errors()]
    if any(place == "path" for place, _ in found):
        return Refusal(404, "not_found", "There is nothing at this address.")
    problems = tuple(
        Problem("".join(f"/{part}" for part in each["loc"]), "bad_value", f"{each['msg']}.")
        for _, each in found
    )
    said = "; ".join(f"`{each['loc'][-1]}`: {each['msg']}" for _, each in found)
    return Refusal(400, "bad_parameter", f"{said}.", errors=problems)
