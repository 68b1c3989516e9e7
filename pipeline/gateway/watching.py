"""Whether ingest watches what triggers of records name, so that a change from now on is seen.

Ingest rings once it has read the triggers and its sources watch what they name. Whoever activates a
workflow waits for that ring, but not for long: the activation holds in any case. A table that
is not there holds up no ring; whether a trigger names one is looked up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from uuid import UUID

from permaflow.errors import BusError
from permaflow.plan import TriggerSpec
from pipeline.bus.port import Bus
from pipeline.bus.subjects import WATCHING
from pipeline.gateway.ports import Ports
from pipeline.store import triggers

LONGEST_WAIT = 1.5


class Rings:
    """What was rung since somebody listens."""

    def __init__(self) -> None:
        self._newest = -1
        self._rung = asyncio.Event()

    def hear(self, _subject: str, data: bytes) -> None:
        if data.isdigit() and len(data) < 20:
            self._newest = max(self._newest, int(data))
            self._rung.set()

    async def reach(self, generation: int) -> bool:
        """Whether triggers of this generation are watched within the time there is."""
        try:
            async with asyncio.timeout(LONGEST_WAIT):
                while self._newest < generation:
                    self._rung.clear()
                    await self._rung.wait()
        except TimeoutError:
            return False
        return True


@asynccontextmanager
async def listening(bus: Bus) -> AsyncIterator[Rings]:
    """Begin before the triggers change, or the ring may be missed. Hears nothing without a bus."""
    rings = Rings()
    try:
        stop = await bus.listen(WATCHING, rings.hear)
    except BusError:
        yield rings
        return
    try:
        yield rings
    finally:
        await stop()


async def watched(
    rings: Rings, generation: int, ports: Ports, org: UUID, specs: Iterable[TriggerSpec]
) -> bool | None:
    """Whether changes from now on count for these triggers of a generation; None if none waits for
    changes.
    """
    objects = {spec.object for spec in specs if spec.kind == "record"}
    if not objects:
        return None
    if not await rings.reach(generation):
        return False
    settings = ports.settings
    if settings.kafka_topics:
        return True  # their tables are in databases that we do not see
    look = triggers.unpublished
    return not await ports.pool.run_as(org, look, org, objects, settings.cdc_slot)
