"""The end of a child, told to the run that waits for it.

An answer is stored before the end of the child is settled, so it is given at least once, and the
first one counts. Whoever started a child gets its output, by reference when it is large, or the
failure `child_failed` with the error of the child in its details.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

import orjson

from permaflow.errors import (
    DocumentError,
    EvaluationError,
    LimitError,
    NotFoundError,
    StoreError,
)
from permaflow.plan import Json
from pipeline import telemetry
from pipeline.answers import give, output_answer, post_answers
from pipeline.bus.port import Bus
from pipeline.outputs import Ref, apart, loop_refs, output_of, refs_in, with_values
from pipeline.programs import Programs
from pipeline.settings import Settings
from pipeline.store import children, payloads
from pipeline.store.answers import Answer
from pipeline.store.children import EndedChild
from pipeline.store.database import Database
from pipeline.telemetry import log
from specs.subworkflows import map_output

FAILED = "child_failed"
_TOGETHER = 100
"""Children whose journals are read at once."""


class Children:
    """Tells parents what became of their children."""

    def __init__(
        self, bus: Bus, database: Database, programs: Programs, settings: Settings
    ) -> None:
        self._bus = bus
        self._database = database
        self._programs = programs
        self._settings = settings

    async def tell(self, run_ids: Sequence[UUID]) -> None:
        """Answer for those of these runs that have ended and are waited for. Raises `StoreError`;
        what cannot be told for other reasons is a failure of the step that waits.
        """
        ended = await self._database.run(children.ended, run_ids)
        for first in range(0, len(ended), _TOGETHER):
            await self._answer(ended[first : first + _TOGETHER])

    async def _answer(self, ended: Sequence[EndedChild]) -> None:
        wanted = [child.id for child in ended if child.status == "completed"]
        rows = await self._database.run(children.journals, wanted) if wanted else {}
        large: list[payloads.Payload] = []
        given = [await self._of(child, rows.get(child.id, []), large) for child in ended]
        stored = await self._database.run(give, given, large)
        post_answers(self._bus, stored)

    async def _of(
        self, child: EndedChild, rows: Sequence[bytes], large: list[payloads.Payload]
    ) -> Answer:
        failed = child.status != "completed"
        try:
            if failed and child.on_failure != "continue":
                return failure(child)
            output = None if failed else await self._output(child, rows)
            if child.mapping is None and child.on_failure != "continue" and isinstance(output, Ref):
                return Answer(child.id, output_ref=output.id)
            value = await self._mapped(child, output)
            return self._as_answer(child, value, large)
        except StoreError:
            raise
        except (DocumentError, NotFoundError, EvaluationError, LimitError) as error:
            return Answer(child.id, code=error.code, message=f"{_called(child)}: {error}")
        except Exception as error:  # one that cannot be read must not keep the others waiting
            log.exception(telemetry.BATCH_FAILED, vertex="completion", error=repr(error))
            message = f"{_called(child)} has ended, but its output cannot be read: {error}"
            return Answer(child.id, code=FAILED, message=message)

    async def _output(self, child: EndedChild, rows: Sequence[bytes]) -> Json:
        program = await self._programs.get(child.workflow_id, child.version)
        trigger_input: Json = Ref(child.input_ref) if child.input_ref else None
        if child.input is not None:
            trigger_input = orjson.loads(child.input)
        items = await self._values(loop_refs(rows))
        return await apart(
            len(rows),
            output_of,
            program,
            child.id,
            trigger_input,
            child.trigger_node,
            rows,
            {str(ref): value for ref, value in items.items()},
        )

    async def _mapped(self, child: EndedChild, output: Json) -> Json:
        values = await self._values(refs_in(output))
        output = with_values(output, values.__getitem__)
        if child.mapping is not None and child.status == "completed":
            about = {"id": str(child.id), "status": child.status, "output": output}
            output = map_output(child.mapping, about)
        if child.on_failure != "continue":
            return output
        return {
            "run_id": str(child.id),
            "status": child.status,
            "output": output,
            "error": None if child.error is None else orjson.loads(child.error),
        }

    async def _values(self, refs: Sequence[UUID]) -> dict[UUID, Json]:
        if not refs:
            return {}
        bodies = await self._database.run(payloads.get, refs)
        return {ref: orjson.loads(body) for ref, body in bodies.items()}

    def _as_answer(self, child: EndedChild, value: Json, large: list[payloads.Payload]) -> Answer:
        body = orjson.dumps(value)
        most = self._settings.max_output_bytes
        if len(body) > most:
            raise LimitError(f"Its output has {len(body):,} bytes; at most {most:,} are allowed.")
        inline = self._settings.inline_bytes
        return output_answer(
            child.id, body, large, org=child.org, inline=inline, run_id=child.parent_id
        )


def failure(child: EndedChild) -> Answer:
    """What a parent is told of a child that did not complete. One that somebody cancelled would
    not fare better the next time.
    """
    error = orjson.loads(child.error) if child.error else {}
    said = error.get("message") or child.status
    details = {"run_id": str(child.id), "status": child.status, "error": error or None}
    answer = Answer(
        child.id,
        code=FAILED,
        message=f"{_called(child)} ended as {child.status}: {said}",
        retryable=child.status != "cancelled",
    )
    return replace(answer, details=orjson.dumps(details))


def _called(child: EndedChild) -> str:
    return f"The sub-workflow's run {child.id}"
