"""POST /workflows/v1/runs/{run_id}/rerun: a run again, all of it or from a step on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import Response

from permaflow.errors import NotFoundError, StateError
from permaflow.plan import Json
from pipeline import starter
from pipeline.core.entries import Kept
from pipeline.core.program import Program
from pipeline.core.rerun import begins_at, what_is_kept, what_is_missing, what_was_asked
from pipeline.gateway.auth import caller_of, name_of
from pipeline.gateway.bodies import check_size, invalid, parse_json, read_bytes, validate
from pipeline.gateway.histories import Histories
from pipeline.gateway.ports import Ports
from pipeline.gateway.run_starts import ENVELOPE, accepted, again, key_of, or_earlier
from pipeline.gateway.shapes import RerunBody
from pipeline.ids import new_id
from pipeline.outputs import Ref, refs_in, with_values
from pipeline.store import controls, payloads, reruns, runs, workflows
from pipeline.store.database import Connection
from pipeline.store.payloads import Payload
from pipeline.store.questions import CHILD
from pipeline.store.runs import Run
from pipeline.store.starts import Duplicate, Started, StartRequest

SOURCE = "rerun"


@dataclass(slots=True)
class Taken:
    """What a rerun takes over: entries, copies of values, and values of its own."""

    entries: list[Kept]
    copies: dict[UUID, UUID]
    large: list[Payload]


class Reruns:
    """The handler."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._histories = Histories(ports)

    async def rerun_run(self, request: Request, run_id: UUID) -> Response:
        """Do a run again, as a new run: all of it, or what follows from a step.

        What does not follow from that step is taken over with what it gave back. The same
        `Idempotency-Key` gives the same run; for another run or with other data it is a 422.
        """
        caller = caller_of(request)
        limit = self._ports.settings.max_input_bytes
        raw = await read_bytes(request, limit + ENVELOPE)
        value = parse_json(raw, limit + ENVELOPE) if raw.strip() else {}
        body = validate(RerunBody, value)
        run, current = await self._ports.pool.run_as(caller.org, _find, caller.org, run_id)
        version = {"same": run.version, "latest": current}.get(str(body.version))
        version = version if version is not None else int(body.version)
        is_other = "input" in body.model_fields_set
        if is_other:
            text = orjson.dumps(body.input)
            check_size(text, limit, "/input")
        else:
            text = await self._input(run)
        new = new_id()
        taken = Taken([], {}, [])
        if body.from_step is not None:
            taken = await self._taken(
                run, new, body.from_step, version, orjson.loads(text), is_other=is_other
            )
        wanted = StartRequest(
            new,
            caller.org,
            run.workflow_id,
            SOURCE,
            key=key_of(caller.org, request),
            input=text,
            trigger_node=run.trigger_node,
            version=version,
            type=run.type,
            resource_type=run.resource_type,
            resource_id=run.resource_id,
            requested_by=name_of(caller),
            allow_inactive=True,
            rerun_of=run.id,
        )
        result = await self._ports.pool.run_as(
            caller.org,
            reruns.start,
            wanted,
            taken.entries,
            taken.copies,
            taken.large,
            self._ports.settings.inline_bytes,
        )
        match await or_earlier(self._ports, wanted, result):
            case Started():
                starter.announce(self._ports.bus, [wanted], [result])
                return accepted(new, run.workflow_id, version, "running", 202, None)
            case Duplicate(run_id=known):
                return await again(self._ports, wanted, known)
            case _:
                raise NotFoundError(
                    f"The workflow {run.workflow_id} is archived or deleted, or has no version "
                    f"{version}."
                )

    async def _input(self, run: Run) -> bytes:
        if run.input_ref is None:
            return run.input or b"null"
        found = await self._ports.pool.run_as(run.org_id, payloads.get, [run.input_ref])
        if run.input_ref not in found:
            raise StateError("The data that started the run is no longer kept.")
        return found[run.input_ref]

    async def _taken(
        self,
        run: Run,
        new: UUID,
        start: str,
        version: int,
        trigger_input: Json,
        *,
        is_other: bool,
    ) -> Taken:
        """What the new run takes over from the old one. Raises `StateError`, `InputError`.

        `is_other`: the input is not that of the old run. Nobody has approved of it.
        """
        if run.finished_at is None:
            raise StateError(f"The run is {run.status}; it can be rerun from a step once it ends.")
        if await self._ports.pool.run_as(run.org_id, controls.was_undone, run.org_id, run.id):
            raise StateError("What the run had done was undone; run all of it again instead.")
        old = await self._program(run, run.version)
        program = old if version == run.version else await self._program(run, version)
        if start not in old.plan.nodes:
            raise invalid((), f"There is no step {start!r} in the run.")
        first = begins_at(old.plan, start)
        rows = await self._histories.rows(run.org_id, run.id)
        state = await self._histories.state(run, rows, old, trigger_input)
        kept = what_is_kept(state, program, first)
        missing = what_is_missing(kept, old.plan, program.plan, first)
        if missing:
            raise StateError(f"The run does not fit version {version}: {' '.join(missing)}")
        if is_other and (decided := await self._decided(run, kept, old)):
            raise StateError(
                f"People decided in `{decided}` about other data. Leave `input` out, or begin no "
                "later than there."
            )
        return await self._with_values(run, new, kept)

    async def _decided(self, run: Run, kept: Sequence[Kept], old: Program) -> str | None:
        """A step that is taken over in which people were asked, or in the runs that it waited for.

        Of a sub-workflow that is no longer kept, nobody knows: it counts as well.
        """
        for node in what_was_asked(kept, old.plan):
            return node
        children = what_was_asked(kept, old.plan, CHILD)
        waited = [node for node, asked in children.items() if asked.config["mode"] != "async"]
        if not waited:
            return None
        async with self._ports.turns.turn(run.org_id):  # it reads the journals of all of them
            return await self._ports.pool.run_as(
                run.org_id, reruns.asked_below, run.org_id, run.id, waited
            )

    async def _program(self, run: Run, version: int) -> Program:
        documents = self._ports.documents
        program = await documents.program(run.org_id, run.workflow_id, version)
        if program is None:
            raise StateError(f"Version {version} of the workflow does not compile any more.")
        return program

    async def _with_values(self, run: Run, new: UUID, kept: Sequence[Kept]) -> Taken:
        """Large outputs are copied in the database; those of loops are put together here."""
        copies: dict[UUID, UUID] = {}
        mixed = [ref for e in kept if not isinstance(e.output, Ref) for ref in refs_in(e.output)]
        bodies: dict[UUID, bytes] = {}
        if mixed:
            bodies = await self._ports.pool.run_as(run.org_id, payloads.get, mixed)
            if not bodies.keys() >= set(mixed):
                raise StateError("What some step of the run gave back is no longer kept.")
        taken = Taken([], copies, [])
        for entry in kept:
            if isinstance(entry.output, Ref):
                copy = copies.setdefault(entry.output.id, new_id())
                taken.entries.append(entry._replace(output=None, ref=str(copy)))
                continue
            output = with_values(entry.output, lambda ref: orjson.loads(bodies[ref]))
            text = orjson.dumps(output)
            if len(text) > self._ports.settings.inline_bytes:
                own = Payload(new_id(), run.org_id, text, new)
                taken.large.append(own)
                taken.entries.append(entry._replace(output=None, ref=str(own.id)))
            else:
                taken.entries.append(entry._replace(output=output))
        return taken


async def _find(connection: Connection, org: UUID, run_id: UUID) -> tuple[Run, int]:
    run = await runs.get(connection, org, run_id)
    workflow = await workflows.get(connection, org, run.workflow_id)
    return run, workflow.version
