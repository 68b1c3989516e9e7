"""Vertex: a change becomes the runs that it triggers.

::

    source ─► match ─► one transaction: runs, dead letters, offsets ─► wake ─► confirm to the source

A change starts a run of a workflow once, however often its source tells of it: the identity of the
event is a primary key. The position in a source is confirmed after the commit, or is part of it.
One bad record goes to the dead letters and never blocks what follows.

    error                          answer
    record cannot be read          dead letter, go on
    record cannot be stored        dead letter, go on; the rest of its batch is stored
    store away                     the same batch again, with growing pauses
    source away                    the source is opened again, with growing pauses
    batch lost to another reader   nothing of it is committed, go on
    anything else                  the process ends, and whoever started it starts it again
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from permaflow.changes import ChangeRecord, Rejected
from permaflow.errors import ConnectorError, InputError, StoreError
from pipeline import telemetry
from pipeline.answers import post_answers
from pipeline.bus.port import Bus
from pipeline.bus.subjects import WAITS, WATCHING, WORKFLOWS
from pipeline.change_starts import Wanted, wanted
from pipeline.matching import ActiveTrigger, TriggerIndex
from pipeline.settings import Settings
from pipeline.starter import announce
from pipeline.store import dead_letters, triggers, waits
from pipeline.store.answers import StoredAnswer
from pipeline.store.database import Connection, Database
from pipeline.store.starts import StartResult, at_depth, start_runs
from pipeline.store.waits import Begun
from pipeline.telemetry import log
from pipeline.waits import answer, look, objects_of

_Committed = tuple[Wanted, list[StartResult], list[StoredAnswer]]

MAX_PAUSE = 5.0
LOOK_EVERY = 5.0
"""Seconds between two looks at the generation of the triggers."""


class LostError(ConnectorError):
    """What was read belongs to another reader by now, who reads it again."""

    code = "lost"


class _Undone(Exception):
    """What was tried in this transaction is not to stay."""


class Changes(Protocol):
    """What a source read together, in its order."""

    @property
    def records(self) -> Sequence[ChangeRecord | Rejected]: ...


class Source(Protocol):
    """Where changes come from. Raises `ConnectorError`s."""

    @property
    def kind(self) -> str:
        """Part of the identity of its events: `postgres`, `kafka`."""
        ...

    @property
    def can_look(self) -> bool:
        """Whether `look` finds records."""
        ...

    async def look(self, wanted: Sequence[Begun]) -> Mapping[UUID, ChangeRecord]:
        """See `pipeline.waits.Rows`."""
        ...

    async def watch(self, objects: Iterable[str]) -> bool:
        """These are the objects that active triggers name. Whether their changes count from now on:
        not yet, if the source did not answer soon.
        """
        ...

    def batches(self) -> AsyncGenerator[Changes, None]:
        """Without end, and begun again after an error. Lets go of the source when closed."""
        ...

    async def keep_position(self, connection: Connection, batch: Changes) -> None:
        """Remember, in the transaction that starts the runs, how far this batch goes.

        Raises `LostError` if another reader has taken over: nothing of the batch is committed.
        """
        ...

    async def confirm(self, batch: Changes) -> None:
        """The batch is committed."""
        ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Active:
    """The active triggers, as of a generation."""

    generation: int
    index: TriggerIndex


class Ingest:
    """One process of the vertex. `run` ends after `stop`."""

    def __init__(
        self, bus: Bus, database: Database, sources: Sequence[Source], settings: Settings
    ) -> None:
        self._bus = bus
        self._settings = settings
        self._database = database
        self._sources = tuple(sources)
        self._active = _Active(-1, TriggerIndex())
        self._begun = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        await self._reload()
        unlisten = await self._bus.listen(WORKFLOWS, lambda _subject, _data: self._reload())
        unwait = await self._bus.listen(WAITS, lambda _subject, _data: self._begun.set())
        tasks = [asyncio.create_task(self._read(source)) for source in self._sources]
        tasks.append(asyncio.create_task(self._watch_triggers()))
        tasks.append(asyncio.create_task(self._look()))
        for task in tasks:
            task.add_done_callback(self._task_ended)
        await self._stopping.wait()
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        for source in self._sources:
            await source.close()
        await unlisten()
        await unwait()
        for end in ends:
            if isinstance(end, Exception):
                raise end

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """A bug must not end a source in silence while the process looks well."""
        if not task.cancelled() and task.exception() is not None:
            self._stopping.set()

    async def stop(self) -> None:
        self._stopping.set()

    async def _watch_triggers(self) -> None:
        """Find out that triggers changed, or waits began, even if the doorbell was not heard."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                seen = await self._database.run(waits.glance)
                if seen.begun:
                    self._begun.set()
                if seen.generation != self._active.generation:
                    await self._reload()
            except StoreError as error:
                log.warning(telemetry.BATCH_FAILED, vertex="ingest", error=str(error))

    async def _look(self) -> None:
        """Look at the records that runs began to wait for."""
        inline = self._settings.inline_bytes
        self._begun.set()
        while True:
            await self._begun.wait()
            self._begun.clear()
            try:
                given, more = await look(self._database, self._sources, inline)
            except (StoreError, ConnectorError) as error:
                log.warning(telemetry.BATCH_FAILED, vertex="ingest", error=str(error))
                await asyncio.sleep(1.0)
                more = True
            else:
                post_answers(self._bus, given)
            if more:
                self._begun.set()

    async def _reload(self) -> None:
        """Read the active triggers, on a doorbell or because `_commit` found that they changed."""
        generation, found = await self._database.run(_read_triggers)
        index = self._active.index
        index.replace(
            ActiveTrigger(
                trigger.org.hex,
                str(trigger.workflow_id),
                str(trigger.version),
                trigger.spec,
                int(trigger.activated_at.timestamp() * 1000),
            )
            for trigger in found
        )
        self._active = _Active(generation, index)
        log.info(telemetry.TRIGGERS_LOADED, count=len(found))
        watching = [await source.watch(index.objects()) for source in self._sources]
        if all(watching):
            self._bus.ring(WATCHING, b"%d" % generation)

    # --- a source ---------------------------------------------------------------------------------

    async def _read(self, source: Source) -> None:
        pause = 0.1
        while not self._stopping.is_set():
            try:
                async with aclosing(source.batches()) as batches:
                    async for batch in batches:
                        await self.take(source, batch)
                        pause = 0.1
            except ConnectorError as error:
                log.warning(telemetry.SOURCE_FAILED, source=source.kind, error=str(error))
                await asyncio.sleep(pause)
                pause = min(MAX_PAUSE, pause * 2)
            else:
                return

    async def take(self, source: Source, batch: Changes) -> None:
        """Commit what a batch triggers, whatever it takes, and confirm it."""
        pause = 0.05
        while True:
            try:
                found, results, given = await self._commit(source, batch)
                break
            except LostError as error:
                log.warning(telemetry.SOURCE_FAILED, source=source.kind, error=str(error))
                return
            except StoreError as error:
                log.warning(telemetry.BATCH_FAILED, vertex="ingest", error=str(error))
                await asyncio.sleep(pause)
                pause = min(MAX_PAUSE, pause * 2)
        announce(self._bus, found.requests, results)
        post_answers(self._bus, given)
        self._count(source, batch, found.rejected)
        await source.confirm(batch)

    async def _commit(self, source: Source, batch: Changes) -> _Committed:
        try:
            return await self._commit_all(source, batch, {})
        except InputError as error:
            # A value that the store refuses, and nothing was stored: find it, and do without.
            log.warning(telemetry.BATCH_FAILED, vertex="ingest", error=str(error))
            return await self._commit_all(source, batch, await self._find_faults(source, batch))

    async def _commit_all(
        self, source: Source, batch: Changes, faults: Mapping[str, str]
    ) -> _Committed:
        endless = await self._endless(batch.records)
        objects = objects_of(batch.records)
        while True:
            active = self._active
            found = self._wanted(source, batch.records, active, faults, endless)
            async with self._database.transaction() as connection:
                seen = await waits.glance(connection, objects)
                if seen.generation == active.generation:
                    results = await self._start(connection, found)
                    if found.rejected:
                        letters = [_letter(source, each) for each in found.rejected]
                        await dead_letters.add(connection, letters)
                    given = await self._answer(connection, source, batch, seen.objects)
                    await source.keep_position(connection, batch)
                    return found, results, given
            await self._reload()

    async def _find_faults(self, source: Source, batch: Changes) -> dict[str, str]:
        """The events whose runs the store refuses, and why. Nothing of what is tried here stays."""
        faults: dict[str, str] = {}
        for record in batch.records:
            if isinstance(record, Rejected):
                continue
            found = self._wanted(source, [record], self._active, {}, frozenset())
            try:
                async with self._database.transaction() as connection:
                    await self._start(connection, found)
                    raise _Undone
            except _Undone:
                continue
            except InputError as error:
                faults[record.event_id] = str(error)
        return faults

    def _wanted(
        self,
        source: Source,
        records: Iterable[ChangeRecord | Rejected],
        active: _Active,
        faults: Mapping[str, str],
        endless: frozenset[str],
    ) -> Wanted:
        most = self._settings.max_input_bytes
        return wanted(source.kind, records, active.index, most, faults, endless)

    async def _endless(self, records: Iterable[ChangeRecord | Rejected]) -> frozenset[str]:
        """The runs whose changes start no further runs, of those that made these changes."""
        causes = {each.cause for each in records if isinstance(each, ChangeRecord) and each.cause}
        if not causes:
            return frozenset()
        most = self._settings.max_change_depth
        found = await self._database.run(at_depth, [UUID(cause) for cause in causes], most)
        return frozenset(str(run_id) for run_id in found)

    async def _start(self, connection: Connection, found: Wanted) -> list[StartResult]:
        inline = self._settings.inline_bytes
        return await start_runs(connection, found.requests, inline_bytes=inline)

    async def _answer(
        self, connection: Connection, source: Source, batch: Changes, objects: Sequence[str]
    ) -> list[StoredAnswer]:
        """Ends the waits that are met; `objects` are those that somebody waits for."""
        if not objects:
            return []
        inline = self._settings.inline_bytes
        return await answer(
            connection, batch.records, objects, can_look=source.can_look, inline=inline
        )

    def _count(self, source: Source, batch: Changes, rejected: Sequence[Rejected]) -> None:
        for record in rejected:
            telemetry.DEAD_LETTERS.labels(source.kind).inc()
            log.warning(
                telemetry.CHANGE_REJECTED,
                source=source.kind,
                position=record.position,
                reason=record.reason,
            )
        read = len(batch.records) - len(rejected)
        telemetry.INGEST_EVENTS.labels(source.kind, "read").inc(read)
        telemetry.INGEST_EVENTS.labels(source.kind, "rejected").inc(len(rejected))
        newest = max((r.at for r in batch.records if isinstance(r, ChangeRecord)), default=0)
        if newest:
            telemetry.INGEST_LAG.labels(source.kind).set(max(0.0, time.time() - newest / 1000))
        log.debug(telemetry.CHANGES_READ, source=source.kind, count=len(batch.records))


def _letter(source: Source, rejected: Rejected) -> dead_letters.Unreadable:
    return dead_letters.Unreadable(
        source.kind, rejected.position, rejected.reason, rejected.raw, None
    )


async def _read_triggers(
    connection: Connection,
) -> tuple[int, Sequence[triggers.ActiveTrigger]]:
    """The generation first: triggers that come meanwhile belong to a later one."""
    generation = await triggers.generation(connection)
    return generation, await triggers.active(connection, "record")
