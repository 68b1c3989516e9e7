"""Journals read for people: the history of a run, and what it gave back."""

from __future__ import annotations

import asyncio
from uuid import UUID

import orjson

from permaflow.plan import Json
from pipeline.core.entries import Entry, from_row
from pipeline.core.program import Program
from pipeline.core.state import Run as Replayed
from pipeline.core.view import History
from pipeline.gateway.ports import Ports
from pipeline.ids import question_id
from pipeline.outputs import apart, folded, loop_refs, output_of, with_values
from pipeline.store import payloads, runs
from pipeline.store.runs import JournalRow, Run

SLICE = 1_000
"""Rows of a journal that are read at once."""

RUNS = "/workflows/v1/runs"
APPROVALS = "/workflows/v1/approvals"


def reference(run_id: UUID, ref: UUID | str) -> dict[str, str]:
    """What stands for a value that is kept apart."""
    return {"$ref": f"{RUNS}/{run_id}/values/{ref}"}


def approval_of(run_id: UUID, scope: str, node: str, attempt: int) -> dict[str, str]:
    """The approval that an attempt of a step has asked for."""
    found = question_id(run_id, scope, node, attempt)
    return {"id": str(found), "href": f"{APPROVALS}/{found}"}


def entries_of(row: JournalRow) -> list[Entry]:
    return from_row(orjson.loads(row.entries))


class Histories:
    """Reads journals."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def rows(self, org: UUID, run_id: UUID) -> list[JournalRow]:
        """The whole journal, read in slices."""
        found: list[JournalRow] = []
        while True:
            after = found[-1].seq if found else 0
            rows = await self._ports.pool.run_as(
                org, runs.journal, org, run_id, after=after, limit=SLICE
            )
            found += rows
            if len(rows) < SLICE:
                return found

    async def history(self, rows: list[JournalRow]) -> History:
        """What happened, step by step."""
        return await apart(len(rows), _history, rows)

    async def output(self, run: Run, rows: list[JournalRow]) -> Json:
        """What a run gave back; None while it is open, or if its document is unknown here."""
        if run.finished_at is None or not rows:
            return None
        program = await self._ports.documents.program(run.org_id, run.workflow_id, run.version)
        if program is None:
            return None
        items = await self._loop_items(run, rows)
        return await apart(len(rows), _output, program, run, rows, items)

    async def state(
        self, run: Run, rows: list[JournalRow], program: Program, trigger_input: Json
    ) -> Replayed:
        """A run as its journal tells it by the plan of `program`, with `Ref`s for large values."""
        items = await self._loop_items(run, rows)
        entries = [row.entries for row in rows]
        values = (program, run.id, trigger_input, run.trigger_node, entries, items)
        return await asyncio.to_thread(folded, *values)

    async def _loop_items(self, run: Run, rows: list[JournalRow]) -> dict[str, Json]:
        refs = loop_refs(row.entries for row in rows)
        if not refs:
            return {}
        bodies = await self._ports.pool.run_as(run.org_id, payloads.get, refs)
        return {str(ref): orjson.loads(body) for ref, body in bodies.items()}


def _history(rows: list[JournalRow]) -> History:
    history = History()
    for row in rows:
        history.add(row.at, entries_of(row))
    return history


def _output(program: Program, run: Run, rows: list[JournalRow], items: dict[str, Json]) -> Json:
    entries = [row.entries for row in rows]
    found = output_of(program, run.id, input_of(run), run.trigger_node, entries, items)
    return with_values(found, lambda ref: reference(run.id, ref))


def input_of(run: Run) -> Json:
    """The trigger's data, or a reference to it."""
    if run.input_ref is not None:
        return reference(run.id, run.input_ref)
    return None if run.input is None else orjson.loads(run.input)
