"""The pool of cells: warm ones in store, one organisation to each, none that grows old."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar

from permaflow.errors import JailBreachError, JailError, PermaflowError, SettingsError, SnippetError
from stages.jail import confine
from stages.jail.cell import Cell, Job
from stages.jail.engines import QUICKJS, Engine
from stages.jail.turns import Turns

T = TypeVar("T")

_MEGABYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """`processes` jobs at a time, and up to as many again of organisations that have none at work
    while others have them all; a cell does `jobs` jobs, or works for `seconds`, then it goes.

    `idle` is how many seconds a cell waits for the next job of its organisation; `memory` is the
    most that a job may ask for, in bytes. `require` names layers that every cell must have.
    """

    processes: int = 4
    jobs: int = 200
    seconds: float = 120.0
    idle: float = 30.0
    memory: int = 256 * _MEGABYTE
    require: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told. `ready`: which layers there are and why others are not, when that is first known
    and when it changes; `failed`: a cell could not be made in store; `breached`: code of an
    organisation made a cell do what no cell does.
    """

    ready: Callable[[Sequence[str], Mapping[str, str]], None] = lambda layers, missing: None
    failed: Callable[[PermaflowError], None] = lambda error: None
    breached: Callable[[str, PermaflowError], None] = lambda org, error: None


class Pool:
    """Runs jobs in cells. A cell that had a job of one organisation never gets one of another.

    Tests leave layers out, by `without`, to see what they are good for.
    """

    def __init__(
        self,
        limits: PoolLimits,
        watch: Watch | None = None,
        *,
        without: Sequence[str] = (),
    ) -> None:
        self._limits = limits
        self._watch = watch or Watch()
        self._without = without
        self._turns = Turns(limits.processes)
        self._threads = ThreadPoolExecutor(4, "permaflow-jail")
        self._spare: dict[str, list[Cell]] = defaultdict(list)
        self._idle: dict[tuple[str, str], list[Cell]] = defaultdict(list)
        self._timers: dict[Cell, asyncio.TimerHandle] = {}
        self._busy: set[Cell] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._filling: set[str] = set()
        self._told: tuple[str, ...] | None = None
        self._closed = False
        unknown = set(limits.require) - set(confine.LAYERS)
        if unknown:
            raise SettingsError(
                f"PERMAFLOW_JAIL_REQUIRE: there is no layer {', '.join(sorted(unknown))}; there "
                f"are {', '.join(confine.LAYERS)}."
            )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def pids(self) -> set[int]:
        """The processes of all cells."""
        return {cell.pid for cell in self._cells()}

    @property
    def busy(self) -> set[int]:
        """The processes that are at work."""
        return {cell.pid for cell in self._busy}

    async def warm(self, engine: Engine = QUICKJS) -> Cell:
        """Have a cell ready. Raises `JailError`, also for a missing layer that must be there."""
        if not self._spare[engine.name]:
            self._spare[engine.name].append(await self._start(engine))
        return self._spare[engine.name][-1]

    async def run(self, org: str, engine: Engine, job: Job) -> bytes:
        """The output of a job. Raises `SnippetError`, `JailError` and `NotFoundError`."""
        await self._turns.take(org)
        try:
            try:
                return await self._run(org, engine, job)
            except JailError:
                # Somebody else ended the cell. Code in a jail has no effect, so it can run again.
                return await self._run(org, engine, job)
        finally:
            self._turns.give_back(org)

    async def _run(self, org: str, engine: Engine, job: Job) -> bytes:
        cell = await self._cell(org, engine)
        self._busy.add(cell)
        whole = False
        try:
            output = await cell.run(job)
            whole = True
            return output
        except PermaflowError as error:
            whole = error.code == SnippetError.code  # the code failed, the cell did not
            if isinstance(error, JailBreachError):
                self._watch.breached(org, error)
            raise
        finally:
            self._busy.discard(cell)
            self._keep_or_end(org, cell, whole)

    async def close(self) -> None:
        """End all cells and wait until they are gone."""
        self._closed = True
        while self._tasks:  # cells that are just being made, too
            await asyncio.wait(self._tasks)
        await asyncio.gather(*(cell.end() for cell in self._cells()), return_exceptions=True)
        for timer in self._timers.values():
            timer.cancel()
        self._threads.shutdown()

    def _cells(self) -> list[Cell]:
        waiting = (*self._spare.values(), *self._idle.values())
        return [*self._busy, *(cell for cells in waiting for cell in cells)]

    async def _cell(self, org: str, engine: Engine) -> Cell:
        mine = self._idle.get((org, engine.name))
        while mine:
            cell = mine.pop()
            self._timers.pop(cell).cancel()
            if not cell.ended:
                return cell
        spares = self._spare[engine.name]
        while spares:
            cell = spares.pop()
            if not cell.ended:
                self.fill(engine)
                return cell
        cell = await self._start(engine)
        self.fill(engine)
        return cell

    async def _start(self, engine: Engine) -> Cell:
        limits = self._limits
        making = Cell.start(engine, limits.memory, self._threads, without=self._without)
        task = self._begin(making)
        try:
            cell = await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._adopt)
            raise
        lacking = [layer for layer in self._limits.require if layer not in cell.layers]
        if lacking:
            await cell.end()
            raise JailError(
                f"The jail lacks {', '.join(lacking)}, which PERMAFLOW_JAIL_REQUIRE demands: "
                + "; ".join(f"{layer}: {cell.missing.get(layer, '')}" for layer in lacking)
            )
        if cell.layers != self._told:
            self._told = cell.layers
            self._watch.ready(cell.layers, cell.missing)
        return cell

    def fill(self, engine: Engine) -> None:
        """Make the next spare cell in the background."""
        if self._closed or engine.name in self._filling or self._spare[engine.name]:
            return
        self._filling.add(engine.name)
        self._begin(self._add_spare(engine))

    async def _add_spare(self, engine: Engine) -> None:
        try:
            self._spare[engine.name].append(await self._start(engine))
        except PermaflowError as error:
            self._watch.failed(error)  # who needs one tries again, and fails by itself
        finally:
            self._filling.discard(engine.name)

    def _keep_or_end(self, org: str, cell: Cell, whole: bool) -> None:
        worn = cell.jobs >= self._limits.jobs or cell.seconds >= self._limits.seconds
        if not whole or worn or cell.ended or self._closed:
            self._end(cell)
            self.fill(cell.engine)
            return
        key = (org, cell.engine.name)
        self._idle[key].append(cell)
        loop = asyncio.get_running_loop()
        self._timers[cell] = loop.call_later(self._limits.idle, self._expire, key, cell)
        if len(self._timers) > 2 * self._limits.processes:
            oldest = next(iter(self._timers))
            key = next(key for key, cells in self._idle.items() if oldest in cells)
            self._expire(key, oldest)

    def _expire(self, key: tuple[str, str], cell: Cell) -> None:
        self._timers.pop(cell).cancel()
        self._idle[key].remove(cell)
        if not self._idle[key]:
            del self._idle[key]
        self._end(cell)

    def _end(self, cell: Cell) -> None:
        self._begin(cell.end())

    def _begin(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _adopt(self, made: asyncio.Task[Cell]) -> None:
        """Who started this cell no longer waits for it."""
        if made.cancelled() or made.exception() is not None:
            return
        cell = made.result()
        if self._limits.require or self._closed:
            self._end(cell)
        else:
            self._spare[cell.engine.name].append(cell)
