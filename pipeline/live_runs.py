"""The runs that an orchestrator has in memory, and how they get there.

A kept state may be older than the store when another orchestrator advanced the run meanwhile. That
is found out by the journal's primary key, or by an event that speaks of something unknown; then
the run is forgotten and loaded again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable
from uuid import UUID

import msgspec

from permaflow.errors import DocumentError, NotFoundError
from permaflow.plan import Json
from pipeline.core.entries import Entry, LoopOpened, Succeeded, from_row
from pipeline.core.replay import replay
from pipeline.core.state import Run
from pipeline.programs import Programs
from pipeline.store.journal import Journal, StoredRun

_decode = msgspec.json.Decoder().decode


class LiveRun:
    """A run with what the store knows beside its journal. `status` is what the store says."""

    __slots__ = ("fresh", "org", "run", "status", "workflow_id")

    def __init__(self, run: Run, stored: StoredRun) -> None:
        self.run = run
        self.org = stored.org
        self.workflow_id = stored.workflow_id
        self.status = stored.status
        self.fresh = True


class Unrunnable:
    """A run that cannot be advanced: finished already, or its document does not compile here."""

    __slots__ = ("problem", "stored")

    def __init__(self, stored: StoredRun, problem: str | None) -> None:
        self.stored = stored
        self.problem = problem


class LiveRuns:
    """Run id → state, the most recently used ones."""

    def __init__(self, journal: Journal, programs: Programs, size: int) -> None:
        self._journal = journal
        self._programs = programs
        self._size = size
        self._kept: OrderedDict[UUID, LiveRun] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, ids: Collection[UUID]) -> dict[UUID, LiveRun | Unrunnable]:
        """The runs among `ids` that exist. Those loaded just now have `fresh` set."""
        found: dict[UUID, LiveRun | Unrunnable] = {}
        missing: list[UUID] = []
        for run_id in ids:
            live = self._kept.get(run_id)
            if live is None:
                missing.append(run_id)
            else:
                live.fresh = False
                self._kept.move_to_end(run_id)
                found[run_id] = live
        if missing:
            for stored in await self._journal.load(missing):
                found[stored.id] = await self._revive(stored)
        return found

    def keep(self, live: LiveRun) -> None:
        """Remember a run whose state is what the store has."""
        self._kept[live.run.id] = live
        if len(self._kept) > self._size:
            self._kept.popitem(last=False)

    def forget(self, run_id: UUID) -> None:
        self._kept.pop(run_id, None)

    def forget_all(self, keep: Iterable[UUID] = ()) -> None:
        """Forget every run but these."""
        kept = {run_id: self._kept[run_id] for run_id in keep if run_id in self._kept}
        self._kept = OrderedDict(kept)

    def ids(self) -> list[UUID]:
        return list(self._kept)

    async def _revive(self, stored: StoredRun) -> LiveRun | Unrunnable:
        if stored.status not in ("running", "waiting", "pending"):
            return Unrunnable(stored, None)
        try:
            program = await self._programs.get(stored.workflow_id, stored.version)
        except (DocumentError, NotFoundError) as error:
            return Unrunnable(stored, str(error))
        rows = [(seq, from_row(_decode(entries))) for seq, entries in stored.rows]
        values = await self._values(stored, rows)
        if stored.input_ref is not None:
            trigger_input: Json = values.get(str(stored.input_ref))
        else:
            trigger_input = _decode(stored.input) if stored.input is not None else None
        run = Run(stored.id, program, trigger_input, stored.trigger)
        replay(run, [(seq, [_hydrate(entry, values) for entry in row]) for seq, row in rows])
        return LiveRun(run, stored)

    async def _values(
        self, stored: StoredRun, rows: list[tuple[int, list[Entry]]]
    ) -> dict[str, Json]:
        refs = {
            entry.ref
            for _, row in rows
            for entry in row
            if isinstance(entry, Succeeded | LoopOpened) and entry.ref
        }
        wanted = [UUID(ref) for ref in refs]
        if stored.input_ref is not None:
            wanted.append(stored.input_ref)
        if not wanted:
            return {}
        bodies = await self._journal.payloads(wanted)
        return {str(ref): _decode(body) for ref, body in bodies.items()}


def _hydrate(entry: Entry, values: dict[str, Json]) -> Entry:
    """The entry with the value that its reference stands for."""
    match entry:
        case Succeeded(ref=str(ref)):
            return entry._replace(output=values.get(ref))
        case LoopOpened(ref=str(ref)):
            return entry._replace(items=values.get(ref))
        case _:
            return entry


def dehydrate(entry: Entry) -> Entry:
    """The entry as it is written: without the value that a reference stands for."""
    if isinstance(entry, Succeeded):
        return entry if entry.ref is None else entry._replace(output=None)
    if isinstance(entry, LoopOpened):
        return entry if entry.ref is None else entry._replace(items=None)
    return entry
