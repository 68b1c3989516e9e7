"""What a finished run gave back, read from its journal.

Values that are kept apart stay so: in their places stand `Ref`s, and only those that are left in
the output need to be looked up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import ParamSpec, TypeVar
from uuid import UUID

import orjson

from permaflow.plan import Json
from pipeline.core.entries import Entry, Kept, LoopOpened, Succeeded, from_row
from pipeline.core.fold import fold
from pipeline.core.program import Program
from pipeline.core.state import Run

P = ParamSpec("P")
T = TypeVar("T")

LONG = 200
"""Rows from which on a journal is folded in a thread, so that nobody waits for it."""


@dataclass(frozen=True, slots=True)
class Ref:
    """Stands for a value that is kept apart."""

    id: UUID


def loop_refs(rows: Iterable[bytes]) -> list[UUID]:
    """The large lists that loops ran over: without them a loop cannot be folded."""
    return [
        UUID(entry.ref)
        for row in rows
        if b'"loop_opened"' in row
        for entry in from_row(orjson.loads(row))
        if isinstance(entry, LoopOpened) and entry.ref
    ]


def output_of(
    program: Program,
    run_id: UUID,
    trigger_input: Json,
    trigger: str,
    rows: Iterable[bytes],
    items: Mapping[str, Json],
) -> Json:
    """The output of a run, with `Ref`s in it, as in `folded`."""
    return folded(program, run_id, trigger_input, trigger, rows, items).output()


def folded(
    program: Program,
    run_id: UUID,
    trigger_input: Json,
    trigger: str,
    rows: Iterable[bytes],
    items: Mapping[str, Json],
) -> Run:
    """A run with `Ref`s for its large values. `rows` are the entries of its journal as JSON text,
    `items` the lists that `loop_refs` names.
    """

    def known(entry: Entry) -> Entry:
        match entry:
            case Succeeded(ref=str(ref)) | Kept(ref=str(ref)):
                return entry._replace(output=Ref(UUID(ref)))
            case LoopOpened(ref=str(ref)):
                return entry._replace(items=items.get(ref) or [])
        return entry

    replayed = Run(run_id, program, trigger_input, trigger)
    for row in rows:
        fold(replayed, [known(entry) for entry in from_row(orjson.loads(row))])
    return replayed


def with_values(value: Json, give: Callable[[UUID], Json]) -> Json:
    """The value with what its `Ref`s stand for."""
    if isinstance(value, Ref):
        return give(value.id)
    if type(value) is dict:
        return {key: with_values(part, give) for key, part in value.items()}
    if type(value) is list:
        return [with_values(part, give) for part in value]
    return value


def refs_in(value: Json) -> list[UUID]:
    """What has to be looked up for `with_values`."""
    found: list[UUID] = []
    with_values(value, found.append)
    return found


async def apart(rows: int, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Work on so many rows of a journal, in a thread if they are many."""
    if rows < LONG:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
