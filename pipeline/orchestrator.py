"""Vertex: an event becomes what runs next.

::

    inbox ─► group by run ─► load or extend states ─► decide ─► one transaction ─► publish ─► ack

Commit, then publish, then ack. The publishes are not awaited on the path: the inputs are acked in
the background, when the receipts of everything that followed from them have come. A message that is
delivered again makes no new entry; whatever is still outstanding in its runs is published again.

    error                          answer
    message cannot be read         dead letter, term
    another appended first         forget the runs, load, decide again, each run by itself
    `decide` raises three times    that run is quarantined, alone
    store or bus away              nothing is acked; the messages come again
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

import msgspec

from permaflow.errors import BusError, ConflictError, PermaflowError
from permaflow.task import TaskType
from pipeline import telemetry
from pipeline.batch import Batch
from pipeline.bus.port import Bus, Message, Subscription
from pipeline.bus.subjects import CANCEL, TIMER, done, inbox_channel, live
from pipeline.core.decide import decide, outstanding
from pipeline.core.effects import Decision, Effect
from pipeline.core.entries import Finished as RunFinished
from pipeline.core.entries import to_row
from pipeline.inbox import Mail, read, to_core
from pipeline.live_runs import LiveRun, LiveRuns, Unrunnable
from pipeline.members import Members
from pipeline.programs import Programs
from pipeline.settings import Settings
from pipeline.store.journal import Append, Journal
from pipeline.telemetry import log
from pipeline.wire import Finished, Live, Stopped, encode

_decode = msgspec.json.Decoder().decode
_PATIENCE = 3
_AGAIN = timedelta(seconds=1)


class Orchestrator:
    """One process of the vertex. `run` ends after `stop`, with nothing half done."""

    def __init__(
        self,
        bus: Bus,
        journal: Journal,
        programs: Programs,
        type_of: Callable[[str], TaskType],
        settings: Settings,
        dead_letter: Callable[[str, str, bytes], object],
    ) -> None:
        self._bus = bus
        self._journal = journal
        self._type_of = type_of
        self._settings = settings
        self._dead_letter = dead_letter
        self._runs = LiveRuns(journal, programs, settings.cache_runs)
        self._members = Members(bus, "orchestrator", self._members_changed)
        self._held: frozenset[int] = frozenset()
        self._changed = asyncio.Event()
        self._receipts: set[asyncio.Task[None]] = set()
        self._subscription: Subscription | None = None
        self._stopped = False

    # --- life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        await self._members.start()
        self._subscription = await self._bus.subscribe_many([], credit=1_024)
        await self._take_partitions()
        if self._stopped:
            await self.stop()
        while messages := await self._subscription.batch():
            if self._changed.is_set():
                await self._take_partitions()
            await self.handle(messages)
        if self._receipts:
            await asyncio.wait(self._receipts, timeout=5)
        await self._journal.close()

    async def stop(self) -> None:
        """Hand the partitions over and finish what is in work."""
        self._stopped = True
        await self._members.stop()
        if self._subscription is not None:
            await self._subscription.close()

    def _members_changed(self) -> None:
        self._changed.set()
        task = asyncio.ensure_future(self._take_partitions())
        self._receipts.add(task)
        task.add_done_callback(self._receipts.discard)

    async def _take_partitions(self) -> None:
        self._changed.clear()
        mine = self._members.partitions()
        if self._subscription is None or mine == self._held:
            return
        lost, won = self._held - mine, mine - self._held
        self._held = mine
        for partition in lost:
            await self._subscription.remove(inbox_channel(partition))
        for partition in won:
            await self._subscription.add(inbox_channel(partition))
        log.info(telemetry.PARTITIONS_CHANGED, partitions=len(mine))

    # --- one batch --------------------------------------------------------------------------------

    async def handle(self, messages: Sequence[Message]) -> None:
        """Handle messages as one transaction. They are acked, or left to come again."""
        mails, unreadable = read(messages)
        for message in unreadable:
            self._dead_letter("inbox", message.subject, message.data)
            log.error(telemetry.MESSAGE_UNREADABLE, subject=message.subject, reason="encoding")
            message.term()
        again = sum(message.deliveries > 1 for message in messages)
        if again:
            telemetry.REDELIVERIES.labels("orchestrator").inc(again)
        good = [m for m in messages if m not in unreadable] if unreadable else messages
        try:
            receipts = await self._advance(mails)
        except PermaflowError as error:
            log.warning(telemetry.BATCH_FAILED, vertex="orchestrator", error=str(error))
            for run_id in mails:
                self._runs.forget(run_id)
            for message in good:
                message.nak(_AGAIN)
            self._release(messages)
            return
        if receipts:
            task = asyncio.ensure_future(self._ack(receipts, good, messages))
            self._receipts.add(task)
            task.add_done_callback(self._receipts.discard)
        else:
            for message in good:
                message.ack()
            self._release(messages)

    async def _ack(
        self,
        receipts: list[asyncio.Future[None]],
        good: Sequence[Message],
        messages: Sequence[Message],
    ) -> None:
        try:
            await asyncio.gather(*receipts)
        except BusError as error:
            log.warning(telemetry.BATCH_FAILED, vertex="orchestrator", error=str(error))
            for message in good:
                message.nak(_AGAIN)
        else:
            for message in good:
                message.ack()
        self._release(messages)

    def _release(self, messages: Sequence[Message]) -> None:
        if self._subscription is not None:
            self._subscription.release(len(messages))

    async def _advance(self, mails: Mapping[UUID, Mail]) -> list[asyncio.Future[None]]:
        """Decide and commit for all runs at once; what cannot go together goes alone."""
        found = await self._runs.get(mails)
        values = await self._values(mails)
        leased = await self._leased(mails)
        batch = self._new_batch()
        alone: list[UUID] = []
        for run_id, mail in mails.items():
            live_run = found.get(run_id)
            if live_run is None:
                telemetry.STALE_RESULTS.inc(len(mail.events))
            elif isinstance(live_run, Unrunnable):
                await self._unrunnable(live_run, mail)
            elif not self._decide(batch, live_run, mail, values, leased):
                alone.append(run_id)
        receipts: list[asyncio.Future[None]] = []
        try:
            await self._commit(batch, receipts)
        except ConflictError:
            telemetry.CONFLICTS.inc()
            log.debug(telemetry.APPEND_CONFLICTED, runs=len(batch.runs))
            alone.extend(live_run.run.id for live_run in batch.runs)
            for live_run in batch.runs:
                self._runs.forget(live_run.run.id)
        for run_id in dict.fromkeys(alone):
            receipts.extend(await self._advance_alone(run_id, mails[run_id], values, leased))
        return receipts

    async def _advance_alone(
        self,
        run_id: UUID,
        mail: Mail,
        values: dict[UUID, object],
        leased: set[tuple[UUID, str]],
    ) -> list[asyncio.Future[None]]:
        """One run by itself, from the store. Conflicts are tried again; errors are counted."""
        receipts: list[asyncio.Future[None]] = []
        crashes = 0
        for _ in range(10 * _PATIENCE):
            self._runs.forget(run_id)
            live_run = (await self._runs.get([run_id])).get(run_id)
            if not isinstance(live_run, LiveRun):
                return receipts
            batch = self._new_batch()
            try:
                if not self._decide(batch, live_run, mail, values, leased):
                    crashes += 1
                    if crashes >= _PATIENCE:
                        await self._quarantine(live_run)
                        return receipts
                    continue
                await self._commit(batch, receipts)
            except ConflictError:
                telemetry.CONFLICTS.inc()
                continue
            return receipts
        raise ConflictError(f"Run {run_id} is being advanced elsewhere all the time.")

    def _decide(
        self,
        batch: Batch,
        live_run: LiveRun,
        mail: Mail,
        values: dict[UUID, object],
        leased: set[tuple[UUID, str]],
    ) -> bool:
        """Decide for one run. False: it has to be loaded and looked at by itself."""
        run = live_run.run
        try:
            held = set(run.outstanding.items()) if mail.again or mail.nudge else set()
            decision = decide(run, to_core(mail.events, values), random.random())
            if decision.unknown and not live_run.fresh:
                return False
            telemetry_stale(decision)
            batch.add(live_run, decision)
            if held:
                batch.send(live_run, self._still_out(live_run, held, leased), mail.nudge)
        except PermaflowError:
            raise
        except Exception as error:
            log.exception(telemetry.BATCH_FAILED, vertex="orchestrator", error=repr(error))
            return False
        if run.finished:
            self._runs.forget(run.id)
        else:
            self._runs.keep(live_run)
            live_run.status = run.status
        return True

    def _still_out(
        self,
        live_run: LiveRun,
        held: set[tuple[tuple[str, str], int]],
        leased: set[tuple[UUID, str]],
    ) -> list[Effect]:
        """The dispatches that were out before this batch and still are, held by no runner."""
        run = live_run.run
        return [
            effect
            for effect in outstanding(run)
            if ((effect.scope, effect.node), effect.attempt) in held
            and (run.id, f"{effect.scope}/{effect.node}") not in leased
        ]

    async def _commit(self, batch: Batch, receipts: list[asyncio.Future[None]]) -> None:
        if batch.append:
            await self._journal.commit(batch.append)
        send, ring = self._bus.send, self._bus.ring
        for subject, data, key in batch.outbox.messages():
            receipts.append(send(subject, data, key))
        for org, run_ids in batch.finished.items():
            receipts.append(send(done(org), encode(Finished(org, run_ids))))
        for org, runs in batch.advanced.items():
            ring(live(org), encode(Live(runs)))
        if batch.stopped:
            ring(CANCEL, encode(Stopped(batch.stopped)))
        if batch.soonest is not None:
            ring(TIMER, str(batch.soonest).encode())
        telemetry.ENTRIES_APPENDED.inc(batch.entries)
        telemetry.STEPS_DISPATCHED.inc(batch.dispatched)
        for live_run in batch.runs:
            if live_run.run.finished:
                telemetry.RUNS_FINISHED.labels(live_run.run.status).inc()
                log.info(
                    telemetry.RUN_FINISHED,
                    run_id=str(live_run.run.id),
                    workflow_id=str(live_run.workflow_id),
                    status=live_run.run.status,
                )

    # --- what a batch needs -----------------------------------------------------------------------

    def _new_batch(self) -> Batch:
        return Batch(
            self._type_of,
            inline=self._settings.inline_bytes,
            max_dispatch=self._settings.max_dispatch_bytes,
        )

    async def _values(self, mails: Mapping[UUID, Mail]) -> dict[UUID, object]:
        refs = [ref for mail in mails.values() for ref in mail.refs]
        if not refs:
            return {}
        return {ref: _decode(body) for ref, body in (await self._journal.payloads(refs)).items()}

    async def _leased(self, mails: Mapping[UUID, Mail]) -> set[tuple[UUID, str]]:
        ids = [run_id for run_id, mail in mails.items() if mail.nudge or mail.again]
        return await self._journal.leased(ids) if ids else set()

    # --- runs that cannot go on -------------------------------------------------------------------

    async def _unrunnable(self, run: Unrunnable, mail: Mail) -> None:
        if run.problem is None:
            telemetry.STALE_RESULTS.inc(len(mail.events))
            return
        log.error(telemetry.RUN_UNRUNNABLE, run_id=str(run.stored.id), problem=run.problem)
        seq = max((seq for seq, _ in run.stored.rows), default=0) + 1
        await self._end(run.stored.id, run.stored.org, seq, "unrunnable", run.problem)

    async def _quarantine(self, live_run: LiveRun) -> None:
        run = live_run.run
        stored = await self._journal.load([run.id])
        seq = max((seq for seq, _ in stored[0].rows), default=0) + 1
        message = "The engine failed three times on this run and put it aside. This is a bug."
        log.error(telemetry.RUN_QUARANTINED, run_id=str(run.id), error=message)
        await self._end(run.id, live_run.org, seq, "quarantined", message)
        self._runs.forget(run.id)

    async def _end(self, run_id: UUID, org: UUID, seq: int, code: str, message: str) -> None:
        """End a run from outside the core: it is too broken, or too new, to be decided about."""
        error = msgspec.json.encode({"code": code, "message": message, "node": ""}).decode()
        row = to_row([RunFinished("failed", code, message)])
        append = Append(
            runs=[run_id],
            seqs=[seq],
            orgs=[org],
            entries=[msgspec.json.encode(row).decode()],
            finished=[(run_id, "failed", error)],
        )
        await self._journal.commit(append)
        await self._bus.send(done(org.hex), encode(Finished(org.hex, [run_id])))


def telemetry_stale(decision: Decision) -> None:
    if decision.stale or decision.unknown:
        telemetry.STALE_RESULTS.inc(decision.stale + decision.unknown)
