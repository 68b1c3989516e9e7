"""Vertex: a change becomes the runs that it triggers.

::

    source ─► match ─► one transaction: runs, dead letters, offsets ─► wake ─► confirm to the source

A change starts a run of a workflow once, however often its source tells of it: the identity of the
event is a primary key. The position in a source is confirmed after the commit, or is part of it.
One bad record goes to the dead letters and never blocks what follows.

    error                          answer
    record cannot be read          dead letter, go on
    store away                     the same batch again, with growing pauses
    source away                    the source is opened again, with growing pauses
    batch lost to another reader   nothing of it is committed, go on
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

import orjson

from permaflow.changes import ChangeRecord, Rejected
from permaflow.errors import ConnectorError, StoreError
from pipeline import telemetry
from pipeline.bus.port import Bus
from pipeline.bus.subjects import WORKFLOWS
from pipeline.ids import new_id
from pipeline.matching import ActiveTrigger, TriggerIndex
from pipeline.starter import announce
from pipeline.store import dead_letters, triggers
from pipeline.store.database import Connection, Database
from pipeline.store.starts import StartRequest, StartResult, run_key, start_runs
from pipeline.telemetry import log

MAX_PAUSE = 5.0
LOOK_EVERY = 5.0
"""Seconds between two looks at the generation of the triggers."""


class LostError(ConnectorError):
    """What was read belongs to another reader by now, who reads it again."""

    code = "lost"


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

    async def watch(self, objects: Iterable[str]) -> None:
        """These are the objects that active triggers name."""
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

    def __init__(self, bus: Bus, database: Database, sources: Sequence[Source]) -> None:
        self._bus = bus
        self._database = database
        self._sources = tuple(sources)
        self._active = _Active(-1, TriggerIndex())
        self._stopping = asyncio.Event()

    async def run(self) -> None:
        await self._reload()
        unlisten = await self._bus.listen(WORKFLOWS, lambda _subject, _data: self._reload())
        tasks = [asyncio.create_task(self._read(source)) for source in self._sources]
        tasks.append(asyncio.create_task(self._watch_triggers()))
        await self._stopping.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for source in self._sources:
            await source.close()
        await unlisten()

    async def stop(self) -> None:
        self._stopping.set()

    async def _watch_triggers(self) -> None:
        """Find out that triggers changed even if the doorbell was not heard."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                if await self._database.run(triggers.generation) != self._active.generation:
                    await self._reload()
            except StoreError as error:
                log.warning(telemetry.BATCH_FAILED, vertex="ingest", error=str(error))

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
        for source in self._sources:
            await source.watch(self._active.index.objects())

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
                requests, results = await self._commit(source, batch)
                break
            except LostError as error:
                log.warning(telemetry.SOURCE_FAILED, source=source.kind, error=str(error))
                return
            except StoreError as error:
                log.warning(telemetry.BATCH_FAILED, vertex="ingest", error=str(error))
                await asyncio.sleep(pause)
                pause = min(MAX_PAUSE, pause * 2)
        announce(self._bus, requests, results)
        self._count(source, batch)
        await source.confirm(batch)

    async def _commit(
        self, source: Source, batch: Changes
    ) -> tuple[list[StartRequest], list[StartResult]]:
        while True:
            active = self._active
            requests = self._requests(source, batch, active.index)
            rejected = [record for record in batch.records if isinstance(record, Rejected)]
            async with self._database.transaction() as connection:
                if await triggers.generation(connection) == active.generation:
                    results = await start_runs(connection, requests)
                    if rejected:
                        await dead_letters.add(
                            connection, [_letter(source, each) for each in rejected]
                        )
                    await source.keep_position(connection, batch)
                    return requests, results
            await self._reload()

    def _requests(self, source: Source, batch: Changes, index: TriggerIndex) -> list[StartRequest]:
        requests: list[StartRequest] = []
        for change in batch.records:
            if isinstance(change, Rejected):
                continue
            matched = index.match(change)
            if matched:
                body = change_input(change)
                requests.extend(_request(source.kind, change, body, active) for active in matched)
        return requests

    def _count(self, source: Source, batch: Changes) -> None:
        rejected = [record for record in batch.records if isinstance(record, Rejected)]
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


def change_input(change: ChangeRecord) -> bytes:
    """What `{{trigger.…}}` is in a run that a change started, as JSON."""
    return orjson.dumps(
        {
            "event": change.event,
            "object": change.object,
            "namespace": change.namespace,
            "record": change.record,
            "before": change.before,
            "source": change.source,
            "at": change.at,
        }
    )


def _request(kind: str, change: ChangeRecord, body: bytes, active: ActiveTrigger) -> StartRequest:
    org, workflow_id = UUID(active.org), UUID(active.workflow_id)
    node = active.trigger.node
    return StartRequest(
        new_id(),
        org,
        workflow_id,
        kind,
        key=run_key(org, workflow_id, node, kind, change.event_id),
        input=body,
        trigger_node=node,
        resource_type=change.object,
        resource_id=change.key,
    )


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
