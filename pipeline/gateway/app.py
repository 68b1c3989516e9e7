"""The application: every door of the gateway, with the scope that it needs."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from permaflow.errors import PermaflowError
from permaflow.plan import Problem
from pipeline import telemetry
from pipeline.gateway import shapes
from pipeline.gateway.auth import PUBLIC, Guard
from pipeline.gateway.definitions import ROOT as DEFINITIONS
from pipeline.gateway.definitions import Definitions
from pipeline.gateway.doors import Doors
from pipeline.gateway.front import Front
from pipeline.gateway.health import Health
from pipeline.gateway.openapi import describe
from pipeline.gateway.ports import Ports
from pipeline.gateway.problems import REQUEST_ID, Refusal, problem_response, refusal
from pipeline.gateway.run_starts import ROOT as RUNS
from pipeline.gateway.run_starts import RunStarts
from pipeline.gateway.runs import Runs
from pipeline.gateway.statuses import Statuses
from pipeline.gateway.webhooks import PATH as WEBHOOK
from pipeline.gateway.webhooks import Webhooks
from pipeline.ops import Ops
from pipeline.store import keys
from pipeline.telemetry import log


class Application:
    """The ASGI application, and what a test or a document wants to know of it."""

    def __init__(self, ports: Ports, ops: Ops) -> None:
        self.api = FastAPI(
            title="Permaflow",
            openapi_url=None,
            docs_url=None,
            redoc_url=None,
            redirect_slashes=False,
            telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        )
        self.api.router.routes.clear()
        self.guard = Guard(lambda text: ports.pool.run(keys.verify, text))
        self.doors = Doors(self.api, self.guard)
        _handle_errors(self.api, self.doors)
        _open_definitions(self.doors, ports)
        _open_runs(self.doors, ports)
        health = Health(ops, lambda: describe(self.doors))
        _open_health(self.doors, health)
        webhooks = Webhooks(ports)
        self.doors.add_hot(
            "POST",
            WEBHOOK,
            webhooks.receive_webhook,
            needs=PUBLIC,
            likeness=_webhook,
            operation_id="receive_webhook",
            response_model=shapes.WebhookAccepted,
            status_code=202,
            tags=["webhooks"],
        )
        self.doors.check_sealed()
        self.asgi = Front(self.api)


def _open_definitions(doors: Doors, ports: Ports) -> None:
    definitions = Definitions(ports)
    statuses = Statuses(ports, definitions)
    one = f"{DEFINITIONS}/{{workflow_id}}"
    reads: dict[str, Any] = {"needs": "workflows:read", "tags": ["definitions"]}
    writes: dict[str, Any] = {"needs": "workflows:write", "tags": ["definitions"]}
    view = shapes.DefinitionView
    doors.add(
        "POST",
        DEFINITIONS,
        definitions.create_definition,
        body=shapes.DefinitionBody,
        response_model=view,
        status_code=201,
        **writes,
    )
    doors.add(
        "GET",
        DEFINITIONS,
        definitions.list_definitions,
        response_model=shapes.Page[shapes.DefinitionSummary],
        **reads,
    )
    doors.add(
        "POST",
        f"{DEFINITIONS}/validate",
        definitions.validate_definition,
        body=shapes.DocumentBody,
        response_model=shapes.ValidationView,
        **reads,
    )
    doors.add("GET", one, definitions.get_definition, response_model=view, **reads)
    doors.add(
        "PUT",
        one,
        definitions.update_definition,
        body=shapes.DefinitionUpdate,
        response_model=view,
        **writes,
    )
    doors.add("DELETE", one, definitions.delete_definition, status_code=204, **writes)
    doors.add(
        "PATCH",
        f"{one}/status",
        statuses.set_status,
        body=shapes.StatusBody,
        response_model=view,
        **writes,
    )
    doors.add(
        "GET",
        f"{one}/versions",
        statuses.list_versions,
        response_model=shapes.Page[shapes.VersionSummary],
        **reads,
    )
    doors.add(
        "GET",
        f"{one}/versions/{{version}}",
        statuses.get_version,
        response_model=shapes.VersionView,
        **reads,
    )
    doors.add(
        "PUT",
        f"{one}/webhooks/{{node}}/secret",
        statuses.put_webhook_secret,
        body=shapes.SecretBody,
        status_code=204,
        **writes,
    )


def _open_runs(doors: Doors, ports: Ports) -> None:
    runs = Runs(ports)
    one = f"{RUNS}/{{run_id}}"
    reads: dict[str, Any] = {"needs": "runs:read", "tags": ["runs"]}
    writes: dict[str, Any] = {"needs": "runs:write", "tags": ["runs"]}
    doors.add_hot(
        "POST",
        RUNS,
        RunStarts(ports).start_run,
        body=shapes.RunBody,
        response_model=shapes.RunStarted,
        status_code=202,
        responses={200: {"model": shapes.RunStarted, "description": "Started before."}},
        **writes,
    )
    doors.add("GET", RUNS, runs.list_runs, response_model=shapes.Page[shapes.RunSummary], **reads)
    doors.add("GET", one, runs.get_run, response_model=shapes.RunView, **reads)
    doors.add(
        "GET",
        "/v1/workflows/runs/{run_id}",
        runs.get_run,
        response_model=shapes.RunView,
        operation_id="get_run_by_its_other_address",
        **reads,
    )
    doors.add(
        "GET",
        f"{one}/steps",
        runs.list_steps,
        response_model=shapes.Page[shapes.StepView],
        **reads,
    )
    doors.add("GET", f"{one}/values/{{value_id}}", runs.get_value, **reads)
    doors.add(
        "POST",
        f"{one}/cancel",
        runs.cancel_run,
        response_model=shapes.RunSummary,
        status_code=202,
        responses={200: {"model": shapes.RunSummary, "description": "Cancelled before."}},
        **writes,
    )


def _open_health(doors: Doors, health: Health) -> None:
    for path, endpoint in (
        ("/livez", health.livez),
        ("/readyz", health.readyz),
        ("/metrics", health.metrics),
        ("/version", health.version),
        ("/openapi.json", health.openapi),
    ):
        doors.add("GET", path, endpoint, needs=PUBLIC, tags=["health"])


async def _webhook(url_token: str) -> Response:
    """Start a run with what was sent. The answer comes once the run is stored."""
    raise AssertionError("this stands in the documentation only")


def _handle_errors(api: FastAPI, doors: Doors) -> None:
    async def refused(request: Request, error: Exception) -> Response:
        assert isinstance(error, Refusal)
        return problem_response(error, request.scope)

    async def failed(request: Request, error: Exception) -> Response:
        assert isinstance(error, PermaflowError)
        found = refusal(error)
        if found.status >= 500:
            log.error(
                telemetry.REQUEST_FAILED,
                path=request.scope["path"],
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
        return problem_response(
            Refusal(
                500, "error", "Something went wrong here. The log has it under the request's id."
            ),
            request.scope,
        )

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
