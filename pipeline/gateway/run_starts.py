"""POST /workflows/v1/runs: the hot path. Checked, committed, and only then answered."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import Response

from permaflow.errors import ForbiddenError, NotFoundError
from permaflow.plan import Json, TriggerSpec
from pipeline.gateway.answers import JSON
from pipeline.gateway.auth import ADMIN, caller_of, name_of
from pipeline.gateway.bodies import check_size, invalid, read_json, validate
from pipeline.gateway.entrances import Entrance
from pipeline.gateway.input_schemas import misfits
from pipeline.gateway.ports import Ports
from pipeline.gateway.problems import Refusal
from pipeline.gateway.shapes import RunBody
from pipeline.ids import new_id
from pipeline.store import payloads, runs, starts, versions
from pipeline.store.database import Connection
from pipeline.store.keys import Caller
from pipeline.store.runs import Run
from pipeline.store.starts import (
    NOT_ACTIVE,
    Duplicate,
    Refused,
    Started,
    StartRequest,
    StartResult,
    run_key,
)

ROOT = "/workflows/v1/runs"
ENVELOPE = 10_000
SOURCE = "api"
ANY_WORKFLOW = UUID(int=0)
LONGEST_KEY = 255


class RunStarts:
    """The handler."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def start_run(self, request: Request) -> Response:
        """Start a run. It is stored when the answer comes, and goes on whatever happens.

        The same `Idempotency-Key` gives the same run, also if the workflow was paused since; with
        another body it is a 422.
        """
        caller = caller_of(request)
        limit = self._ports.settings.max_input_bytes
        _, value = await read_json(request, limit + ENVELOPE)
        body = validate(RunBody, value)
        key = key_of(caller.org, request)
        entrance = await self._ports.entrances.workflow(caller.org, body.workflow_id)
        if entrance is None:
            entrance = await self._entrance_then(caller.org, key)
        given = "input" if body.trigger_data is None else "trigger_data"
        data = body.input if body.trigger_data is None else body.trigger_data
        if entrance.schema is not None and (found := misfits(entrance.schema, data, f"/{given}")):
            raise invalid(found, "The input is not what the trigger's `input_schema` describes.")
        text = orjson.dumps(data)
        check_size(text, limit, f"/{given}")
        shaped = as_trigger(entrance.trigger, data)
        wanted = StartRequest(
            new_id(),
            caller.org,
            body.workflow_id,
            SOURCE,
            key=key,
            input=text if shaped is data else orjson.dumps(shaped),
            trigger_node=entrance.trigger.node if entrance.trigger else "",
            type=body.type,
            resource_type=body.resource_type,
            resource_id=body.resource_id,
            requested_by=_requester(caller, body.requested_by),
        )
        result = await self._ports.starts.start(wanted)
        match await or_earlier(self._ports, wanted, result):
            case Started(run_id=run_id, version=version):
                return accepted(
                    run_id, body.workflow_id, version, "running", 202, entrance.typical_seconds
                )
            case Duplicate(run_id=run_id):
                return await again(self._ports, wanted, run_id, entrance.typical_seconds)
            case _:
                raise NotFoundError(NOT_ACTIVE)

    async def _entrance_then(self, org: UUID, key: bytes | None) -> Entrance:
        """How the run of a key was started, whose workflow may have been paused since."""
        pool = self._ports.pool
        known = await pool.run_as(org, starts.known, [key]) if key is not None else {}
        if key not in known:
            raise NotFoundError(NOT_ACTIVE)
        run = await pool.run_as(org, runs.get, org, known[key])
        text = (await pool.run_as(org, versions.document, run.workflow_id, run.version)).document
        checked = await self._ports.documents.check(orjson.loads(text), len(text))
        named = (each for each in checked.triggers if each.node == run.trigger_node)
        return Entrance(next(named, None), None)


def _requester(caller: Caller, wanted: str) -> str:
    """Who asks for a run. What a person asks for is not put down to another: who asked may not
    decide about its approvals.
    """
    if wanted and caller.user_name and wanted != caller.user_name and ADMIN not in caller.scopes:
        raise ForbiddenError(
            f"The API key is {caller.user_name}'s: `requested_by` cannot name somebody else."
        )
    return wanted or name_of(caller)


def as_trigger(trigger: TriggerSpec | None, data: Json) -> Json:
    """What `{{trigger.…}}` is in a run that somebody started by hand.

    A workflow that waits for changes of records finds the data as its `record`, too. That record is
    of the trigger's object, so what others call it by (`order_id` for `orders`) is its `id`.
    """
    value = {} if data is None else data
    if trigger is None or trigger.kind != "record":
        return value
    if not isinstance(value, dict) or "record" in value:
        return value
    name = trigger.object.rpartition(".")[2]
    known_as = (f"{name.removesuffix('s')}_id", f"{name}_id")
    found = next((value[key] for key in known_as if key in value), None)
    record = value if "id" in value or found is None else {"id": found, **value}
    return {**value, "record": record}


def accepted(
    run_id: UUID, workflow_id: UUID, version: int, status: str, code: int, seconds: float | None
) -> Response:
    """Where to look for the run, and how long runs of its workflow take as a rule."""
    path = f"{ROOT}/{run_id}"
    body: dict[str, Any] = {
        "id": run_id,
        "run_id": run_id,
        "workflow_id": workflow_id,
        "version": version,
        "status": status,
        "estimated_seconds": seconds,
        "links": links(path),
    }
    headers = {"location": path}
    if code == 202:
        headers["retry-after"] = "1"
    return Response(orjson.dumps(body), code, headers=headers, media_type=JSON)


def links(path: str) -> dict[str, str]:
    return {
        "self": path,
        "steps": f"{path}/steps",
        "stream": f"{path}/stream",
        "cancel": f"{path}/cancel",
    }


def key_of(org: UUID, request: Request) -> bytes | None:
    """A key is the caller's own: it names one request, whatever workflow that was for."""
    text = request.headers.get("idempotency-key")
    if text is None:
        return None
    if not 1 <= len(text) <= LONGEST_KEY:
        raise Refusal(
            400, "bad_parameter", f"An Idempotency-Key has 1 to {LONGEST_KEY} characters."
        )
    return run_key(org, ANY_WORKFLOW, "", SOURCE, text)


async def or_earlier(ports: Ports, wanted: StartRequest, result: StartResult) -> StartResult:
    """The result; but what may not start now has its run if its key has started one before."""
    if wanted.key is None or not isinstance(result, Refused):
        return result
    known = await ports.pool.run_as(wanted.org, starts.known, [wanted.key])
    return Duplicate(known[wanted.key]) if wanted.key in known else result


async def again(
    ports: Ports, wanted: StartRequest, run_id: UUID, seconds: float | None = None
) -> Response:
    """The run that the key of a request has started; a 422 if that was for something else."""
    run, stored = await ports.pool.run_as(wanted.org, _earlier, wanted.org, run_id)
    if not _same(wanted, run, stored):
        raise Refusal(
            422,
            "idempotency_key_reused",
            f"This Idempotency-Key started the run {run_id}, for another request.",
        )
    return accepted(run.id, run.workflow_id, run.version, run.status, 200, seconds)


async def _earlier(connection: Connection, org: UUID, run_id: UUID) -> tuple[Run, bytes | None]:
    run = await runs.get(connection, org, run_id)
    if run.input_ref is None:
        return run, run.input
    return run, (await payloads.get(connection, [run.input_ref])).get(run.input_ref)


def _same(wanted: StartRequest, run: Run, stored: bytes | None) -> bool:
    """Whether the run is what the request asks for."""
    return _asked(run) == _asked(wanted) and _alike(
        orjson.loads(stored or b"null"), orjson.loads(wanted.input or b"null")
    )


def _asked(of: Run | StartRequest) -> tuple[object, ...]:
    return (
        of.workflow_id,
        of.rerun_of,
        of.type,
        of.resource_type,
        of.resource_id,
        of.requested_by,
    )


def _alike(one: Json, other: Json) -> bool:
    """Equal as JSON values: `true` is not 1."""
    match one, other:
        case dict(), dict():
            return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
        case list(), list():
            return len(one) == len(other) and all(map(_alike, one, other))
        case _:
            return one == other and isinstance(one, bool) == isinstance(other, bool)
