"""Starting runs: commit first, then wake the orchestrators.

Whatever starts runs (the gateway, ingest, the clock, a caller's own transaction) goes through here.
A wake that is lost costs a few seconds, never a run: the reconciler looks at silent runs.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from uuid import UUID

from permaflow.errors import BusError
from pipeline import telemetry
from pipeline.bus.port import Bus
from pipeline.bus.subjects import inbox, live, partition_of
from pipeline.store.starts import Duplicate, Started, StartRequest, StartResult
from pipeline.telemetry import log
from pipeline.wire import Cancel, Event, Inbox, Live, Wake, encode


def wake(bus: Bus, runs: Sequence[tuple[UUID, UUID]]) -> None:
    """Tell the orchestrators of `(run, org)`s. Does not wait, and does not fail."""
    post(bus, [(org, Wake(run_id)) for run_id, org in runs])


def cancel(bus: Bus, run_id: UUID, org: UUID, by: str, reason: str, reopened: int = 0) -> None:
    """Ask for the end of a run. The store remembers the wish, in case this is lost."""
    post(bus, [(org, Cancel(run_id, by, reason, reopened))])


def advanced(bus: Bus, run_id: UUID, org: UUID, seq: int) -> None:
    """Tell that somebody else than its orchestrator added this row to the journal of a run."""
    post(bus, [(org, Wake(run_id, 0, seq))])
    with contextlib.suppress(BusError):  # who watches looks by itself, too
        bus.ring(live(org.hex), encode(Live([(run_id, seq)])))


def post(bus: Bus, events: Sequence[tuple[UUID, Event]]) -> None:
    """Put events of runs into the inbox, those of one partition and organisation together."""
    groups: dict[tuple[int, UUID], list[Event]] = defaultdict(list)
    for org, event in events:
        groups[partition_of(event.run_id), org].append(event)
    for (partition, org), together in groups.items():
        try:
            receipt = bus.send(inbox(partition, org.hex), encode(Inbox(together)))
        except BusError as error:
            log.warning(telemetry.BATCH_FAILED, vertex="starter", error=str(error))
        else:
            receipt.add_done_callback(lambda future: future.exception())


def announce(bus: Bus, requests: Sequence[StartRequest], results: Sequence[StartResult]) -> None:
    """After the commit: wake what was started, count what was not."""
    fresh: list[tuple[UUID, UUID]] = []
    for request, result in zip(requests, results, strict=True):
        match result:
            case Started(run_id=run_id):
                fresh.append((run_id, request.org))
                telemetry.RUNS_STARTED.labels(request.source).inc()
                log.debug(
                    telemetry.RUN_STARTED,
                    run_id=str(run_id),
                    workflow_id=str(request.workflow_id),
                    source=request.source,
                )
            case Duplicate():
                telemetry.DUPLICATE_STARTS.labels(request.source).inc()
            case _:
                pass
    wake(bus, fresh)
