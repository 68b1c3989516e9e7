"""What the demo shows, from where it happens: database, JetStream, the vertices' metrics."""

from __future__ import annotations

import asyncio
import re
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import httpx

from permaflow.errors import BusError
from pipeline.bus.jetstream import JetStreamBus
from pipeline.bus.subjects import PARTITIONS, done_channel, inbox_channel, step_channel
from pipeline.demo.shop import Connection, statement
from pipeline.processes import Process

EVERY = 0.5
"""Seconds between two looks."""

CHANGES = "permaflow_ingest_events_total"
STARTED = "permaflow_runs_started_total"
FINISHED = "permaflow_runs_finished_total"
ENTRIES = "permaflow_entries_appended_total"
_COUNTED = (CHANGES, STARTED, FINISHED, ENTRIES)
_SAMPLE = re.compile(r"^(\w+)(?:\{([^}]*)\})? (\S+)$", re.MULTILINE)

OPEN = ("pending", "running", "compensating")
GOOD = "completed"


@dataclass(slots=True)
class Seen:
    """What one look found. `runs` is workflow id → status → count; `rates` are per second."""

    runs: dict[str, dict[str, int]] = field(default_factory=dict)
    lags: dict[str, int] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    log_bytes: int = 0

    def count(self, *statuses: str) -> int:
        """Runs of all workflows that have one of these statuses."""
        return sum(counts.get(status, 0) for counts in self.runs.values() for status in statuses)

    @property
    def total(self) -> int:
        return sum(sum(counts.values()) for counts in self.runs.values())


class Watch:
    """Looks every half second. `seen` is the latest look."""

    def __init__(
        self,
        connection: Connection,
        bus: JetStreamBus,
        processes: Mapping[int, Process],
        slot: str,
        stages: tuple[str, ...],
    ) -> None:
        self.seen = Seen()
        self._connection = connection
        self._bus = bus
        self._processes = processes
        self._slot = slot
        self._stages = stages
        self._http = httpx.AsyncClient(timeout=1.0, trust_env=False)
        self._before: dict[str, float] = {}
        self._before_at = 0.0

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                self.seen = await self.look()
                await asyncio.sleep(EVERY)
        finally:
            await self._http.aclose()

    async def look(self) -> Seen:
        seen = Seen()
        seen.runs = await self.runs()
        cursor = await self._connection.execute(statement("lag"), {"slot": self._slot})
        row = await cursor.fetchone()
        seen.log_bytes = row[0] if row else 0
        try:
            seen.lags = await self._lags()
        except BusError:
            pass  # NATS is being started again; the next look tells
        seen.rates = self._rates(await self._totals())
        return seen

    async def runs(self) -> dict[str, dict[str, int]]:
        """Workflow id → status → count."""
        found: dict[str, dict[str, int]] = defaultdict(dict)
        cursor = await self._connection.execute(statement("runs"))
        for workflow_id, status, count in await cursor.fetchall():
            found[workflow_id][status] = count
        return found

    async def _lags(self) -> dict[str, int]:
        """What waits or is in work, by stage."""
        channels = {"done": [done_channel()]}
        channels |= {name: [step_channel(name)] for name in self._stages}
        channels["inbox"] = [inbox_channel(number) for number in range(PARTITIONS)]
        lags: dict[str, int] = {}
        for name, group in channels.items():
            found = [await self._bus.backlog(channel) for channel in group]
            lags[name] = sum(each.pending + each.in_flight for each in found)
        return lags

    async def _totals(self) -> dict[str, float]:
        """Counters, summed over the processes."""
        totals: dict[str, float] = defaultdict(float)
        ports = [process.port for process in self._processes.values() if process.port]
        for answer in await asyncio.gather(*map(self._metrics, ports)):
            for name, labels, value in _SAMPLE.findall(answer):
                if name in _COUNTED and not (name == CHANGES and 'result="read"' not in labels):
                    totals[name] += float(value)
        return totals

    async def _metrics(self, port: int) -> str:
        try:
            return (await self._http.get(f"http://127.0.0.1:{port}/metrics")).text
        except httpx.HTTPError:
            return ""  # the process is being replaced

    def _rates(self, totals: dict[str, float]) -> dict[str, float]:
        now = time.monotonic()
        passed = now - self._before_at
        rates = {
            name: max(0.0, totals.get(name, 0.0) - self._before.get(name, 0.0)) / passed
            for name in _COUNTED
            if self._before
        }
        self._before, self._before_at = totals, now
        return rates
