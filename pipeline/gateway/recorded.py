"""The events that started the last runs of a workflow, each with what its steps came to then.

Everything is read in pieces, and what is too much is left out and told: an event, the rest of a
long journal, a large value.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson

from permaflow.plan import Json
from pipeline.core.dry_run import Mock, Place
from pipeline.core.entries import Failed, Succeeded, from_row
from pipeline.gateway.playing import Happening
from pipeline.gateway.shared_pool import SharedPool
from pipeline.store import payloads, runs
from pipeline.store.runs import Run, RunFilter

PAGE = 1_000
"""Rows of a journal that are read at once."""

MOST_ROWS = 100_000
"""Rows of journals that are read for one dry run; each event gets its part."""

MOST_JOURNAL_BYTES = 64_000_000
MOST_INPUT_BYTES = 32_000_000
"""How much the data of all events may be, as JSON."""

MOST_VALUE_BYTES = 1_000_000
MOST_VALUES_BYTES = 32_000_000
"""How much recorded values that are kept apart may be, one and all of them."""

Answer = Succeeded | Failed


@dataclass(frozen=True, slots=True)
class Recorded:
    """Newest first. `left_out` counts the events whose data are too much."""

    happenings: Sequence[Happening]
    left_out: int


async def last_events(
    pool: SharedPool, org: UUID, workflow_id: UUID, count: int, *, with_steps: bool
) -> Recorded:
    """The last `count` events. Children and reruns were started by none."""
    wanted = RunFilter(workflow_id=workflow_id, by_event=True)
    found = await pool.run_as(org, runs.find, org, wanted, limit=count)
    happenings: list[Happening] = []
    room = MOST_INPUT_BYTES
    for each in found:
        run = await pool.run_as(org, runs.get, org, each.id)
        text = await _input(pool, run)
        room -= len(text)
        if room < 0:
            break
        data = orjson.loads(text)
        steps: Mapping[Place, Mock] | None = None
        whole = True
        if with_steps:
            steps, whole = await _steps(pool, run, len(found))
        happenings.append(Happening(data, run.trigger_node, run.id, run.source, steps, whole))
    return Recorded(happenings, len(found) - len(happenings))


async def _input(pool: SharedPool, run: Run) -> bytes:
    if run.input_ref is None:
        return run.input or b"null"
    found = await pool.run_as(run.org_id, payloads.get, [run.input_ref])
    return found.get(run.input_ref, b"null")


async def _steps(pool: SharedPool, run: Run, shares: int) -> tuple[dict[Place, Mock], bool]:
    """What became of the steps that runners, people or others have answered for; and whether that
    is all of it."""
    answers, whole = await _answers(pool, run, shares)
    refs = [UUID(each.ref) for each in answers if isinstance(each, Succeeded) and each.ref]
    bodies: dict[UUID, bytes] = {}
    if refs:
        bodies = await pool.run_as(
            run.org_id,
            payloads.small,
            refs,
            most=MOST_VALUE_BYTES,
            together=MOST_VALUES_BYTES // shares,
        )
    found = await asyncio.to_thread(_mocks, answers, bodies)
    return found, whole and len(bodies) == len(set(refs))


async def _answers(pool: SharedPool, run: Run, shares: int) -> tuple[list[Answer], bool]:
    """The answers in a journal, read in pages until it ends or is too long."""
    rows_left, bytes_left = MOST_ROWS // shares, MOST_JOURNAL_BYTES // shares
    answers: list[Answer] = []
    after = 0
    while rows_left > 0 and bytes_left > 0:
        limit = min(PAGE, rows_left)
        page = await pool.run_as(
            run.org_id, runs.journal, run.org_id, run.id, after=after, limit=limit
        )
        answers += await asyncio.to_thread(_answers_in, [row.entries for row in page])
        if len(page) < limit:
            return answers, True
        after = page[-1].seq
        rows_left -= len(page)
        bytes_left -= sum(len(row.entries) for row in page)
    rest = await pool.run_as(run.org_id, runs.journal, run.org_id, run.id, after=after, limit=1)
    return answers, not rest


def _answers_in(rows: Sequence[bytes]) -> list[Answer]:
    return [
        entry
        for row in rows
        for entry in from_row(orjson.loads(row))
        if isinstance(entry, Succeeded | Failed) and entry.attempt
    ]


def _mocks(answers: Sequence[Answer], bodies: Mapping[UUID, bytes]) -> dict[Place, Mock]:
    found: dict[Place, Mock] = {}
    for entry in answers:
        if isinstance(entry, Failed):
            mock = Mock(code=entry.code, message=entry.message, timed_out=entry.timed_out)
        elif entry.ref is None:
            mock = Mock(entry.output, entry.port)
        elif (body := bodies.get(UUID(entry.ref))) is not None:
            value: Json = orjson.loads(body)
            mock = Mock(value, entry.port)
        else:
            found.pop((entry.scope, entry.node), None)
            continue
        found[entry.scope, entry.node] = mock
    return found
