"""One process of a vertex: built from the settings, run until it is told to stop.

`permaflow serve <vertex>` and the children of `permaflow up` come through here.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol
from uuid import UUID

import orjson

from permaflow.errors import SettingsError, StoreError, StoreUnavailableError
from permaflow.plan import Json
from permaflow.task_types import TaskTypeRegistry
from pipeline import builtins, telemetry
from pipeline.bus.jetstream import JetStreamBus, connect
from pipeline.bus.port import Message
from pipeline.ops import Ops, OpsServer, open_socket
from pipeline.settings import Settings
from pipeline.store import dead_letters, migrate, stats, versions
from pipeline.store.database import Database
from pipeline.store.session import Connection, Session
from pipeline.store.session import connect as connect_database
from pipeline.telemetry import log

VERTICES = ("gateway", "ingest", "orchestrator", "runner", "completion", "clock")

DRAIN = 10.0
"""Seconds that a process has to finish what it is at."""

GOODBYE = 4.0
"""Seconds for the rest: what was published gets its receipts, connections are closed. After that
the process ends as it is, which is as safe as being killed.
"""

_MUCH_LATER = timedelta(minutes=1)


class Vertex(Protocol):
    """What a process runs. `run` returns after `stop`."""

    async def run(self) -> None: ...
    async def stop(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What vertices are built from."""

    settings: Settings
    bus: JetStreamBus
    database: Database
    types: TaskTypeRegistry
    ops: Ops
    exit: AsyncExitStack

    async def document(self, workflow_id: UUID, version: int) -> Json:
        found = await self.database.run(versions.document, workflow_id, version)
        return orjson.loads(found.document)

    def dead_letter(self, source: str, message: Message) -> None:
        """See `port.DeadLetter`. Goes on while the store is away."""
        telemetry.DEAD_LETTERS.labels(source).inc()
        message.keep()
        task = asyncio.ensure_future(put_aside(self.database, source, message))
        _background.add(task)
        task.add_done_callback(_done)


async def put_aside(database: Database, source: str, message: Message) -> None:
    """Store a message, then term it. Whoever dies between the two gets it again."""
    raw = message.data
    letter = dead_letters.Unreadable(source, message.subject, "It cannot be decoded.", raw, None)
    while True:
        try:
            await database.run(dead_letters.add, [letter])
        except StoreUnavailableError as error:
            log.warning(telemetry.BATCH_FAILED, vertex="dead letters", error=str(error))
            await asyncio.sleep(1.0)
        except StoreError:
            message.nak(_MUCH_LATER)
            raise
        else:
            message.term()
            return


_background: set[asyncio.Future[None]] = set()


def _done(task: asyncio.Future[None]) -> None:
    _background.discard(task)
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning(telemetry.BATCH_FAILED, vertex="dead letters", error=str(error))


async def serve(
    vertex: str,
    settings: Settings,
    *,
    stages: Sequence[str] = (),
    ready: Callable[[int], Awaitable[None] | None] | None = None,
) -> None:
    """Run a vertex until SIGTERM or SIGINT. `ready` is called with the ops port once it serves.

    Raises `SettingsError` when a server that it needs is not set.
    """
    _calm_garbage_collector()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    async with _parts(vertex, settings) as parts:
        work = await _build(vertex, parts, stages)
        running = asyncio.create_task(work.run())
        listener = open_socket(settings.ops_host, settings.ops_port, "PERMAFLOW_OPS_PORT")
        server = OpsServer(parts.ops, listener)
        server.start()
        log.info(telemetry.VERTEX_STARTED, vertex=vertex)
        if ready is not None and (called := ready(server.port)) is not None:
            await called
        waiting = asyncio.create_task(stopped.wait())
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        parts.ops.draining = True
        _end_in(DRAIN + GOODBYE)
        if not running.done():
            await work.stop()
            await asyncio.wait({running}, timeout=DRAIN)
            running.cancel()
        waiting.cancel()
        if _background:
            await asyncio.wait(_background, timeout=1.0)
        await server.close()
        if running.done() and not running.cancelled() and (error := running.exception()):
            raise error
        log.info(telemetry.VERTEX_STOPPED, vertex=vertex)


def _end_in(seconds: float) -> None:
    """Whatever holds it up: a thread can end a process whose event loop is blocked."""
    timer = threading.Timer(seconds, os._exit, (1,))
    timer.daemon = True
    timer.start()


def _calm_garbage_collector() -> None:
    """What is imported stays, and the states of runs are many and mostly without cycles: looking
    through all of them every few thousand objects takes a fifth of the throughput.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@asynccontextmanager
async def _parts(vertex: str, settings: Settings) -> AsyncIterator[Parts]:
    for name, value in (("DATABASE", settings.database_url), ("NATS", settings.nats_url)):
        if not value:
            raise SettingsError(
                f"PERMAFLOW_{name}_URL is not set; {vertex} needs it. `permaflow up` starts "
                "embedded servers for everything that is not set."
            )
    async with AsyncExitStack() as stack:
        database = Database(
            settings.database_url,
            application_name=f"permaflow {vertex}",
            size=settings.database_pool,
            # A step that waits for a connection has its own timeout; running out of them is no
            # reason to fail it.
            acquire_timeout=timedelta(seconds=settings.step_timeout if vertex == "runner" else 2),
            role="permaflow_gateway" if vertex == "gateway" else None,
        )
        bus, _ = await asyncio.gather(
            connect(settings.nats_url, name=f"permaflow {vertex}"), database.open()
        )
        stack.push_async_callback(database.close)
        stack.push_async_callback(bus.close)
        with contextlib.suppress(StoreUnavailableError):  # it was there a moment ago
            await migrate.check(settings.database_url)

        async def check_bus() -> str | None:
            return None if bus.connected else "not connected to NATS"

        async def check_database() -> str | None:
            try:
                async with database.transaction():
                    return None
            except StoreError as error:
                return str(error)

        ops = Ops({"nats": check_bus, "postgres": check_database})
        types = builtins.task_types(settings)
        yield Parts(settings, bus, database, types, ops, stack)


async def _build(vertex: str, parts: Parts, stages: Sequence[str]) -> Vertex:
    """Import and build one vertex; what another needs is not even imported."""
    settings = parts.settings
    match vertex:
        case "orchestrator":
            from pipeline.orchestrator import Orchestrator
            from pipeline.programs import Programs
            from pipeline.store.journal import Journal

            journal = Journal(lambda: _connection(settings))
            programs = Programs(parts.document, parts.types, settings.limits)
            return Orchestrator(
                parts.bus, journal, programs, parts.types.get, settings, parts.dead_letter
            )
        case "runner":
            from pipeline.runner import Runner
            from pipeline.runner_services import open_services, runner_store

            served = stages or settings.stage_names
            ring = parts.bus.ring
            services = await open_services(settings, parts.database, parts.exit, served, ring)
            return Runner(
                parts.bus,
                parts.types,
                services,
                runner_store(parts.database),
                settings,
                served,
                parts.dead_letter,
            )
        case "completion":
            from pipeline.children import Children
            from pipeline.completion import Completion
            from pipeline.programs import Programs

            database = parts.database
            programs = Programs(parts.document, parts.types, settings.limits)
            tell = [Children(parts.bus, database, programs, settings).tell]
            if settings.kafka_run_topic:
                from pipeline.run_events import RunEvents

                events = RunEvents(settings, database)
                parts.exit.push_async_callback(events.close)
                tell.append(events.tell)
            return Completion(
                parts.bus, lambda ids: database.run(stats.settle, ids), parts.dead_letter, tell
            )
        case "clock":
            from pipeline.clock import Clock

            return Clock(parts.bus, parts.database, settings)
        case "ingest":
            from pipeline.ingest import Ingest
            from pipeline.sources import open_sources

            sources = await open_sources(settings, parts.database)
            return Ingest(parts.bus, parts.database, sources, settings)
        case _:
            from pipeline.gateway.server import Gateway

            return Gateway(parts.bus, parts.database, parts.types, settings, parts.ops)


async def _connection(settings: Settings) -> Connection:
    session = Session("permaflow orchestrator journal", plans="force_generic_plan")
    return await connect_database(settings.database_url, session)
