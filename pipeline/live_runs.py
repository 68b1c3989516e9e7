"""The runs that an orchestrator has in memory, and how they get there.

A kept state may be older than the store when another orchestrator advanced the run meanwhile. That
is found out by the journal's primary key, or by an event that speaks of something unknown; then
the run is forgotten and loaded again.

What is kept has a limit. A run that is worked on is not forgotten for the sake of another one that
is: both would be replayed with every message, row by row. So the runs of the last two seconds may
hold twice the limit, and one that is over it alone is kept until it rests. What has to be loaded is
loaded bit by bit (`prepare`).
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from uuid import UUID

import msgspec

from permaflow.errors import DocumentError, NotFoundError, StoreError
from permaflow.plan import Json
from pipeline.core.entries import (
    Entry,
    Kept,
    LoopOpened,
    Succeeded,
    UnknownEntryError,
    from_row,
)
from pipeline.core.replay import replay
from pipeline.core.state import Run
from pipeline.programs import Programs
from pipeline.store.journal import Journal, StoredRun
from pipeline.weights import weigh

_decode = msgspec.json.Decoder().decode


AT_WORK = 2.0
"""Seconds after which a run that nothing came for is not worked on."""

AT_WORK_LIMITS = 2
"""How many times the limit the runs that are worked on may hold."""

_WEIGHED_FROM = 1_000_000
"""What a run seems to hold when it is weighed for the first time; then each time that this has
doubled. Until then it is the size of its journal, which only grows.
"""

OPEN = frozenset({"pending", "running", "waiting", "compensating"})
"""The statuses of runs that can be advanced."""


class LiveRun:
    """A run with what the store knows beside its journal. `status` is what the store says.

    `weight` is the size of what it holds, in bytes of JSON; `counted` is what `LiveRuns` knows of,
    and above `weigh_at` it is found out anew. `used_at` is when something came for it.
    """

    __slots__ = (
        "counted",
        "fresh",
        "org",
        "org_hex",
        "run",
        "status",
        "used_at",
        "weigh_at",
        "weight",
        "workflow_id",
    )

    def __init__(self, run: Run, stored: StoredRun, weight: int) -> None:
        self.run = run
        self.org = stored.org
        self.org_hex = stored.org.hex
        self.workflow_id = stored.workflow_id
        self.status = stored.status
        self.fresh = True
        self.weight = weight
        self.counted = 0
        self.weigh_at = _WEIGHED_FROM
        self.used_at = 0.0

    def weigh(self) -> None:
        """See what it holds now, if it seems to be much more than it was."""
        if self.weight > self.weigh_at:
            self.weight = weigh(self.run)
            self.weigh_at = max(_WEIGHED_FROM, 2 * self.weight)


class Unrunnable:
    """A run that cannot be advanced: finished already, or there is a `problem` with it.

    `code` says which: its document does not compile here, or its journal cannot be replayed.
    """

    __slots__ = ("code", "problem", "stored")

    def __init__(
        self, stored: StoredRun, problem: str | None = None, code: str = "unrunnable"
    ) -> None:
        self.stored = stored
        self.problem = problem
        self.code = code


class Later:
    """A run that another process has to advance: a newer engine wrote to its journal."""

    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class LiveRuns:
    """Run id → state, the most recently used ones: at most `size`, which hold at most `weight`
    when they rest.
    """

    def __init__(
        self,
        journal: Journal,
        programs: Programs,
        size: int,
        weight: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._journal = journal
        self._programs = programs
        self._size = size
        self._most = weight
        self._clock = clock
        self.weight = 0
        self._kept: OrderedDict[UUID, LiveRun] = OrderedDict()
        self._loaded: dict[UUID, LiveRun | Unrunnable | Later] = {}

    def __len__(self) -> int:
        return len(self._kept)

    async def get(self, ids: Collection[UUID]) -> dict[UUID, LiveRun | Unrunnable | Later]:
        """The runs among `ids` that exist. Those loaded just now have `fresh` set.

        One that cannot be read does not keep the others from being so. Raises `StoreError`.
        """
        found, self._loaded = self._loaded, {}
        missing: list[UUID] = []
        for run_id in ids:
            live = self._kept.get(run_id)
            if live is None:
                if run_id not in found:
                    missing.append(run_id)
            else:
                live.fresh = False
                self._kept.move_to_end(run_id)
                found[run_id] = live
        if missing:
            for stored in await self._journal.load(missing):
                found[stored.id] = await self._revive(stored)
        return found

    async def prepare(self, ids: Iterable[UUID], room: int) -> list[UUID]:
        """Load those of `ids` that may be long and are not here, for the `get` that follows: until
        they hold `room` together, but one at least. Those that are left for later.

        Raises `StoreError`.
        """
        self._loaded = {}
        missing = [run_id for run_id in ids if run_id not in self._kept]
        if not missing:
            return []
        sizes = await self._journal.sizes(missing)
        chosen: list[UUID] = []
        rows = 0
        for run_id in missing:
            rows += sizes.get(run_id, 0)
            if chosen and rows > room:
                break
            chosen.append(run_id)
        held = 0
        for stored in await self._journal.load(chosen):
            found = self._loaded[stored.id] = await self._revive(stored)
            held += found.weight if isinstance(found, LiveRun) else 0
            if held > room:
                break
        else:
            return missing[len(chosen) :]
        return [run_id for run_id in missing if run_id not in self._loaded]

    def keep(self, live: LiveRun) -> None:
        """Remember a run whose state is what the store has."""
        live.weigh()
        live.used_at = self._clock()
        self._kept[live.run.id] = live
        self._kept.move_to_end(live.run.id)
        self.weight += live.weight - live.counted
        live.counted = live.weight
        while len(self._kept) > self._size or self.weight > self._most:
            resting = self._to_forget(live)
            if resting is None:
                return
            self.forget(resting.run.id)

    def _to_forget(self, last: LiveRun) -> LiveRun | None:
        """What makes room for the others, if something may: the one that rests for the longest."""
        large = last if last.counted > self._most else None
        for live in self._kept.values():
            if live is last:
                break
            if live.used_at < last.used_at - AT_WORK or len(self._kept) > self._size:
                return live
            if large is None and live.counted > self._most:
                large = live
            else:
                held = self.weight - (large.counted if large is not None else 0)
                return live if held > AT_WORK_LIMITS * self._most else None
        return None

    def forget(self, run_id: UUID) -> None:
        self._loaded.pop(run_id, None)
        live = self._kept.pop(run_id, None)
        if live is not None:
            self.weight -= live.counted
            live.counted = 0

    def forget_older(self, run_id: UUID, seq: int) -> None:
        """Forget a state that is known to be older than the store's, which has so many rows."""
        live = self._kept.get(run_id)
        if live is not None and live.run.seq < seq:
            self.forget(run_id)

    def forget_all(self, besides: Callable[[UUID], bool]) -> None:
        """Forget every run but those that `besides` speaks for."""
        for run_id in [run_id for run_id in self._kept if not besides(run_id)]:
            self.forget(run_id)

    async def _revive(self, stored: StoredRun) -> LiveRun | Unrunnable | Later:
        if stored.status not in OPEN:
            return Unrunnable(stored)
        try:
            return await self._replay(stored)
        except (DocumentError, NotFoundError) as error:
            return Unrunnable(stored, str(error))
        except (StoreError, MemoryError):
            raise
        except UnknownEntryError as error:
            return Later(str(error))
        except Exception as error:
            problem = f"It cannot be taken up: {type(error).__name__}: {error}"
            return Unrunnable(stored, problem, "quarantined")

    async def _replay(self, stored: StoredRun) -> LiveRun:
        program = await self._programs.get(stored.workflow_id, stored.version)
        rows = [(seq, from_row(_decode(entries))) for seq, entries in stored.rows]
        values, weight = await self._values(stored, rows)
        if stored.input_ref is not None:
            trigger_input: Json = values.get(str(stored.input_ref))
        else:
            trigger_input = _decode(stored.input) if stored.input is not None else None
        run = Run(stored.id, program, trigger_input, stored.trigger)
        replay(run, [(seq, [_hydrate(entry, values) for entry in row]) for seq, row in rows])
        weight += sum(len(entries) for _, entries in stored.rows) + len(stored.input or "")
        return LiveRun(run, stored, weight)

    async def _values(
        self, stored: StoredRun, rows: list[tuple[int, list[Entry]]]
    ) -> tuple[dict[str, Json], int]:
        """The large values of a run by their references, and how large they are together."""
        refs = {
            entry.ref
            for _, row in rows
            for entry in row
            if isinstance(entry, Succeeded | LoopOpened | Kept) and entry.ref
        }
        wanted = [UUID(ref) for ref in refs]
        if stored.input_ref is not None:
            wanted.append(stored.input_ref)
        if not wanted:
            return {}, 0
        bodies = await self._journal.payloads(wanted)
        values = {str(ref): _decode(body) for ref, body in bodies.items()}
        return values, sum(map(len, bodies.values()))


def _hydrate(entry: Entry, values: dict[str, Json]) -> Entry:
    """The entry with the value that its reference stands for."""
    match entry:
        case Succeeded(ref=str(ref)) | Kept(ref=str(ref)):
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
