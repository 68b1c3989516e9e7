"""Vertex: what time brings. Timers that are due, runs that fell silent, history that is old.

Any number may run; none is elected. A timer stays in the store until the orchestrator has applied
it, in the same transaction; claiming it only puts it off for a few seconds, so that it is reported
again if the report was lost. Between two timers the clock sleeps: the doorbell `pf.timer` tells of
an earlier one, and every few seconds it looks for itself.

The reconciler makes liveness independent of the bus: a running run without a new row is woken, and
those of its outstanding dispatches that no runner holds are published again.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

import msgspec

from permaflow.errors import BusError, PermaflowError
from pipeline import telemetry
from pipeline.alarm import Alarm
from pipeline.answers import post_answers
from pipeline.bus.port import Backlog, Bus, Channel
from pipeline.bus.subjects import (
    HELD,
    PARTITIONS,
    STEPS,
    TIMER,
    done,
    done_channel,
    inbox_channel,
    notice,
    stage_of,
    step_channel,
)
from pipeline.settings import Settings
from pipeline.starter import post
from pipeline.store import answers, approvals, leases, retention, runs, stats, timers
from pipeline.store.database import Database
from pipeline.telemetry import log
from pipeline.wire import (
    Cancel,
    Event,
    Finished,
    Noticed,
    StepFailed,
    TimerDue,
    Wake,
    decode_held,
    encode,
)
from specs.durations import LONGEST_SECONDS

HELD_FOR = timedelta(seconds=15)
"""How long the word of a worker elsewhere counts; it says so again every five seconds."""

LOOK_EVERY = 10.0
"""Seconds between two looks at the timers when no doorbell rings."""

HOUSEKEEPING_EVERY = 3_600.0
QUEUED_PATIENCE = 60.0
"""Seconds of silence that are taken for waiting in a queue, while there is a backlog. After that a
run is nudged each time its silence has doubled, so that a long queue is not made longer for ever.
"""

FLOOD = 1_000
"""Messages that wait in one partition of the inbox when orchestrators are behind, or away; or in
that of ends, when completion is.
"""

_PAGE = 1_000
_APPROVALS = 100


class Clock:
    """One process of the vertex. `run` ends after `stop`."""

    def __init__(self, bus: Bus, database: Database, settings: Settings) -> None:
        self._bus = bus
        self._database = database
        self._settings = settings
        self._stopping = asyncio.Event()
        self._timers = Alarm(LOOK_EVERY)
        self._approvals = Alarm(LOOK_EVERY)
        self._looked_at = float("-inf")

    async def run(self) -> None:
        unlisten = await self._bus.listen(TIMER, self._hear)
        unhold = await self._bus.listen(HELD, self._hold)
        loops = [
            asyncio.create_task(self._repeat(self._fire_timers, self._timers.sleep)),
            asyncio.create_task(self._repeat(self._tend_approvals, self._approvals.sleep)),
            asyncio.create_task(self._repeat(self._reconcile)),
            asyncio.create_task(self._repeat(self._keep_house)),
        ]
        stopping = asyncio.create_task(self._stopping.wait())
        # None of the loops ends by itself: one that does has met a bug, and takes the process down
        # rather than leave it alive without its work.
        ended, _ = await asyncio.wait({stopping, *loops}, return_when=asyncio.FIRST_COMPLETED)
        pending = {stopping, *loops}
        while pending:
            # Said until it is heard: `wait_for` of Python 3.11 loses a cancellation that comes in
            # the same moment as what it waits for.
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=0.5)
        await unlisten()
        await unhold()
        for task in ended - {stopping}:
            task.result()

    async def stop(self) -> None:
        self._stopping.set()

    async def _repeat(
        self,
        work: Callable[[], Awaitable[float]],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Do it for ever; `work` says how long to wait, and errors are waited out.

        A library may have taken a cancellation for the end of what it waited for: so it is asked
        whether to go on.
        """
        while not self._stopping.is_set():
            try:
                wait = await work()
            except PermaflowError as error:
                log.warning(telemetry.BATCH_FAILED, vertex="clock", error=str(error))
                wait = 1.0
            if not self._stopping.is_set():
                await sleep(wait)

    # --- timers -----------------------------------------------------------------------------------

    def _hear(self, _subject: str, data: bytes) -> None:
        """Something was armed, due in so many seconds."""
        try:
            seconds = float(data)
        except ValueError:
            return
        self._timers.hear(seconds)
        self._approvals.hear(seconds)

    async def _fire_timers(self) -> float:
        self._timers.look()
        due = await self._database.run(timers.claim, limit=_PAGE)
        if due:
            post(self._bus, [(timer.org, TimerDue(timer.run_id, timer.key)) for timer in due])
            telemetry.TIMERS.inc(len(due))
            log.debug(telemetry.TIMERS_FIRED, count=len(due))
        if len(due) == _PAGE:
            # What is not handled is claimed again: an inbox that is not read must not fill with it.
            return LOOK_EVERY if await self._is_flooded() else 0.0
        return _until(await self._database.run(timers.wait))

    async def _tend_approvals(self) -> float:
        """Who is to be told of an approval, reminded of it, or asked as well."""
        self._approvals.look()
        tended = await self._database.run(approvals.tend, limit=_APPROVALS)
        if tended.count:
            log.debug(telemetry.APPROVALS_TENDED, count=tended.count)
        for org, users in tended.told.items():
            if users:
                self._bus.ring(notice(org.hex), encode(Noticed(sorted(users))))
        if tended.count == _APPROVALS:
            return 0.0
        return _until(await self._database.run(approvals.wait))

    # --- workers elsewhere ------------------------------------------------------------------------

    async def _hold(self, _subject: str, data: bytes) -> None:
        """A worker that cannot reach the store tells what it is at; here it gets its leases."""
        try:
            told = decode_held(data)
        except msgspec.MsgspecError:
            return
        held = []
        for run_id, scope, node, attempt, left in told.held:
            step = f"{scope}/{node}"
            if math.isfinite(left) and abs(left) <= LONGEST_SECONDS:
                remaining = timedelta(seconds=left)
                held.append(leases.HeldStep(run_id, step, attempt, told.org, remaining))
            else:
                reason = f"{left} s until its timeout; at most {LONGEST_SECONDS:g} can be meant"
                log.warning(
                    telemetry.HOLD_REFUSED,
                    holder=told.holder,
                    run_id=str(run_id),
                    step=step,
                    reason=reason,
                )
        released = [
            (run, f"{scope}/{node}", attempt) for run, scope, node, attempt in told.released
        ]
        try:
            if held:
                await self._database.run(leases.renew, told.holder, held, HELD_FOR)
            if released:
                await self._database.run(leases.drop, told.holder, released)
        except PermaflowError as error:
            log.warning(telemetry.BATCH_FAILED, vertex="clock", error=str(error))

    # --- the reconciler ---------------------------------------------------------------------------

    async def _reconcile(self) -> float:
        seen = await self._database.run(runs.glance)
        if seen.cancelled:
            await self._cancel_again()
        if seen.answered:
            await self._answer_again()
        if seen.leased:
            await self._end_overdue_steps()
        if seen.unsettled:
            await self._tell_ends_again()
        if seen.running:
            await self._nudge_silent_runs()
        return self._settings.reconcile_after

    async def _tell_ends_again(self) -> None:
        told = await self._backlog(done_channel())
        if told.pending + told.in_flight > FLOOD:
            return  # completion is away, or what it tells is
        ids = await self._database.run(stats.unsettled, _PAGE)
        if ids:
            receipt = self._bus.send(done("reconciler"), encode(Finished("", ids)))
            receipt.add_done_callback(lambda future: future.exception())

    async def _cancel_again(self) -> None:
        after = timedelta(seconds=2)
        wanted = await self._database.run(runs.cancelled, after, limit=_PAGE)
        post(self._bus, [(run.org, Cancel(run.id, run.by, "", run.reopened)) for run in wanted])

    async def _answer_again(self) -> None:
        after = timedelta(seconds=2)
        await self._database.run(answers.forget, after)
        post_answers(self._bus, await self._database.run(answers.overdue, after, limit=_PAGE))

    async def _end_overdue_steps(self) -> None:
        """A runner that hangs still beats; what outlives its timeout is ended from here."""
        ended: list[tuple[UUID, Event]] = []
        for lease in await self._database.run(leases.lapsed, limit=_PAGE):
            if not lease.is_lost:
                scope, _, node = lease.step.rpartition("/")
                message = "It took longer than its timeout, and its runner did not end it."
                event = StepFailed(
                    lease.run_id, scope, node, lease.attempt, "timeout", message, True, True
                )
                ended.append((lease.org, event))
        post(self._bus, ended)

    async def _nudge_silent_runs(self) -> None:
        after = timedelta(seconds=self._settings.reconcile_after)
        queued = await self._has_backlog() or await self._is_flooded()
        now = time.monotonic()
        since, self._looked_at = now - self._looked_at, now
        nudge = int(time.time())
        above = UUID(int=0)
        while True:
            silent = await self._database.run(runs.silent, after, above=above, limit=_PAGE)
            chosen = [run for run in silent if self._is_wanted(run, since, queued=queued)]
            if chosen:
                post(self._bus, [(run.org, Wake(run.id, nudge, run.seq)) for run in chosen])
                telemetry.NUDGES.inc(len(chosen))
                log.info(telemetry.RUNS_NUDGED, count=len(chosen))
            if len(silent) < _PAGE:
                return
            above = silent[-1].id

    def _is_wanted(self, run: runs.SilentRun, since: float, *, queued: bool) -> bool:
        """Whether to nudge it now. A long step is mostly all that its run waits for, but another
        one beside it may have got lost: so such a run is nudged seldom, but is.
        """
        if queued:
            return has_doubled(run.seconds, since)
        if run.leased:
            return has_doubled(run.seconds, since, first=self._settings.reconcile_after)
        return True

    async def _has_backlog(self) -> bool:
        """Whether dispatches wait for a runner: then a silent run is most likely one of these."""
        for stage in await self._stages():
            if (await self._backlog(step_channel(stage))).pending:
                return True
        return False

    async def _stages(self) -> set[str]:
        """The stages of the settings, and those that somebody else has served."""
        try:
            named = map(stage_of, await self._bus.channels(STEPS))
        except BusError:
            named = map(stage_of, ())
        return {*self._settings.stage_names, *(name for name in named if name is not None)}

    async def _is_flooded(self) -> bool:
        """Whether orchestrators have so much to read that more would only wait."""
        for partition in range(PARTITIONS):
            if (await self._backlog(inbox_channel(partition))).pending > FLOOD:
                return True
        return False

    async def _backlog(self, channel: Channel) -> Backlog:
        """What waits in a channel; nothing when nobody can tell."""
        try:
            return await self._bus.backlog(channel)
        except BusError:
            return Backlog(0, 0)

    # --- housekeeping -----------------------------------------------------------------------------

    async def _keep_house(self) -> float:
        settings = self._settings
        await retention.make_partitions(self._database)
        dropped = await retention.drop_old_months(self._database, settings.retention_days)
        await retention.prune_keys(self._database, settings.key_retention_days)
        await retention.prune_approvals(self._database, settings.retention_days)
        await retention.prune_claims(self._database, settings.retention_days)
        await retention.prune_families(self._database, settings.retention_days)
        await retention.prune_dead_letters(self._database, settings.retention_days)
        await retention.prune_left_by_actions(self._database, settings.retention_days)
        await self._database.run(leases.sweep, timedelta(hours=1))
        if dropped:
            log.info(telemetry.HISTORY_DROPPED, partitions=dropped)
        return HOUSEKEEPING_EVERY


def _until(due: timedelta | None) -> float:
    """How long to sleep until something is due."""
    return LOOK_EVERY if due is None else min(LOOK_EVERY, due.total_seconds() + 0.001)


def has_doubled(seconds: float, since: float, first: float = QUEUED_PATIENCE) -> bool:
    """Whether a silence of so many seconds has reached `first`, or a doubling of it, within the
    last `since` of them.
    """
    if seconds < first:
        return False
    step: float = first * 2 ** math.floor(math.log2(seconds / first))
    return seconds - since < step
