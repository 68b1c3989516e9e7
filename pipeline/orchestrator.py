"""Vertex: an event becomes what runs next.

::

    inbox ─► group by run ─► load or extend states ─► decide ─► one transaction ─► publish ─► ack

Commit, then publish, then ack. The publishes are not awaited on the path: the inputs are acked in
the background, when the receipts of everything that followed from them have come. A message that is
delivered again makes no new entry; whatever is still outstanding in its runs is published again.

    error                          answer
    message cannot be read         dead letter, term
    another appended first         forget the runs, load, decide again; then each run by itself
    others always do, of one run   its messages come again
    `decide` raises three times    that run is quarantined, alone; so is one that cannot be stored
    a newer engine wrote its row   its messages come again, for a process that knows more
    store or bus away              nothing is acked; the messages come again
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import timedelta
from uuid import UUID

import msgspec

from permaflow.errors import BusError, ConflictError, InputError, NotFoundError, PermaflowError
from permaflow.task import TaskType
from pipeline import telemetry
from pipeline.answers import as_event
from pipeline.asking import follow
from pipeline.batch import Batch
from pipeline.bus.port import Bus, DeadLetter, Message, Subscription
from pipeline.bus.subjects import CANCEL, TIMER, done, inbox_channel, live, partition_of
from pipeline.core.decide import decide
from pipeline.core.dispatching import outstanding
from pipeline.core.effects import Decision, Dispatch
from pipeline.core.entries import Finished as RunFinished
from pipeline.core.entries import to_row
from pipeline.inbox import Mail, divide, read, to_core
from pipeline.live_runs import OPEN, Later, LiveRun, LiveRuns, Unrunnable
from pipeline.members import Members
from pipeline.programs import Programs
from pipeline.settings import Settings
from pipeline.store.journal import Append, Journal
from pipeline.telemetry import log
from pipeline.wire import Finished, Live, Stopped, TimerDue, encode

_decode = msgspec.json.Decoder().decode
_PATIENCE = 3
_ROUNDS = 2
"""Attempts to advance runs together, the second one from the store."""

MOST_VALUE_BYTES = 64_000_000
"""Large values that are decided about in one transaction; memory takes several times that."""

_AGAIN = timedelta(seconds=1)
_MUCH_LATER = timedelta(seconds=5)
_STOPPED_AT_ONCE = 2_000
_UNSTORABLE = (InputError, NotFoundError)
"""What the store will not take from some run of a batch, however often it is offered."""


class Orchestrator:
    """One process of the vertex. `run` ends after `stop`, with nothing half done."""

    def __init__(
        self,
        bus: Bus,
        journal: Journal,
        programs: Programs,
        type_of: Callable[[str], TaskType],
        settings: Settings,
        dead_letter: DeadLetter,
    ) -> None:
        self._bus = bus
        self._journal = journal
        self._type_of = type_of
        self._settings = settings
        self._dead_letter = dead_letter
        self._runs = LiveRuns(journal, programs, settings.cache_runs, settings.cache_bytes)
        self._changed = asyncio.Event()
        self._members = Members(bus, "orchestrator", self._changed.set)
        self._held: set[int] = set()
        self._receipts: set[asyncio.Task[None]] = set()
        self._subscription: Subscription | None = None
        self._stopped = False

    # --- life -------------------------------------------------------------------------------------

    @property
    def held(self) -> frozenset[int]:
        """The partitions that are read now."""
        return frozenset(self._held)

    async def run(self) -> None:
        await self._members.start()
        subscription = self._subscription = await self._bus.subscribe_many([], credit=1_024)
        await self._take_partitions(subscription)
        keeping = asyncio.create_task(self._keep_partitions(subscription))
        if self._stopped:
            await self.stop()
        while messages := await subscription.batch():
            for portion in divide(messages):
                await self.handle(portion)
        keeping.cancel()
        if self._receipts:
            await asyncio.wait(self._receipts, timeout=5)
        await self._journal.close()

    async def stop(self) -> None:
        """Hand the partitions over and finish what is in work."""
        self._stopped = True
        await self._members.stop()
        if self._subscription is not None:
            await self._subscription.close()

    async def _keep_partitions(self, subscription: Subscription) -> None:
        """Follow the members. What cannot be taken now is taken later: nobody else will."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                await self._take_partitions(subscription)
            except Exception as error:  # whatever it is, runs must not wait for nobody
                log.warning(telemetry.BATCH_FAILED, vertex="orchestrator", error=repr(error))
                self._changed.set()
                await asyncio.sleep(_AGAIN.total_seconds())

    async def _take_partitions(self, subscription: Subscription) -> None:
        mine = self._members.partitions()
        if mine == self._held:
            return
        for partition in self._held - mine:
            await subscription.remove(inbox_channel(partition))
            self._held.discard(partition)
        # What others advance from now on would only grow stale here.
        self._runs.forget_all(besides=lambda run_id: partition_of(run_id) in mine)
        for partition in mine - self._held:
            await subscription.add(inbox_channel(partition))
            self._held.add(partition)
        log.info(telemetry.PARTITIONS_CHANGED, partitions=len(mine))

    # --- one batch --------------------------------------------------------------------------------

    async def handle(self, messages: Sequence[Message]) -> None:
        """Handle messages as one transaction. They are acked, or left to come again."""
        mails, unreadable = read(messages)
        for message in unreadable:
            log.error(telemetry.MESSAGE_UNREADABLE, subject=message.subject, reason="encoding")
            self._dead_letter("inbox", message)
        again = sum(message.deliveries > 1 for message in messages)
        if again:
            telemetry.REDELIVERIES.labels("orchestrator").inc(again)
        good = [m for m in messages if m not in unreadable] if unreadable else messages
        try:
            receipts, later = await self._advance(mails)
        except PermaflowError as error:
            log.warning(telemetry.BATCH_FAILED, vertex="orchestrator", error=str(error))
            for run_id in mails:
                self._runs.forget(run_id)
            for message in good:
                message.nak(_AGAIN)
            self._release(messages)
            return
        if later:
            for message in good:
                if message in later:
                    message.nak(_MUCH_LATER)
            good = [message for message in good if message not in later]
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

    async def _advance(
        self, mails: Mapping[UUID, Mail]
    ) -> tuple[list[asyncio.Future[None]], list[Message]]:
        """Decide and commit for all runs at once; what cannot go together goes alone.

        Gives the receipts of what was published, and the messages that another process must have.
        """
        receipts: list[asyncio.Future[None]] = []
        later: list[Message] = []
        async for left in self._portions(mails):
            values = await self._values(left)
            leased = await self._leased(left)
            for _ in range(_ROUNDS):
                left = await self._advance_together(left, values, leased, receipts, later)
                if not left:
                    break
            for run_id, mail in left.items():
                if not await self._advance_alone(run_id, mail, values, leased, receipts):
                    later.extend(mail.messages)
        return receipts, later

    async def _advance_together(
        self,
        mails: Mapping[UUID, Mail],
        values: dict[UUID, object],
        leased: set[tuple[UUID, str, int]],
        receipts: list[asyncio.Future[None]],
        later: list[Message],
    ) -> dict[UUID, Mail]:
        """One transaction for many runs. Gives those that it came to nothing for."""
        for run_id, mail in mails.items():
            if mail.known > 0:
                self._runs.forget_older(run_id, mail.known)
        found = await self._runs.get(mails)
        batch = self._new_batch()
        decided: list[UUID] = []
        again: list[UUID] = []
        for run_id, mail in mails.items():
            live_run = found.get(run_id)
            if isinstance(live_run, LiveRun):
                sound = self._decide(batch, live_run, mail, values, leased)
                (decided if sound else again).append(run_id)
            elif isinstance(live_run, Later):
                log.warning(telemetry.BATCH_FAILED, vertex="orchestrator", error=live_run.reason)
                later.extend(mail.messages)
            elif live_run is not None and live_run.problem is not None:
                await self._end_unrunnable(live_run)
            else:
                _drop(batch, run_id, mail)
        try:
            await self._commit(batch, receipts)
        except ConflictError:
            telemetry.CONFLICTS.inc()
            log.debug(telemetry.APPEND_CONFLICTED, runs=len(batch.runs))
            again.extend(decided)
        except _UNSTORABLE as error:
            log.warning(telemetry.BATCH_FAILED, vertex="orchestrator", error=str(error))
            again.extend(decided)
        for run_id in again:
            self._runs.forget(run_id)
        return {run_id: mails[run_id] for run_id in again}

    async def _advance_alone(
        self,
        run_id: UUID,
        mail: Mail,
        values: dict[UUID, object],
        leased: set[tuple[UUID, str, int]],
        receipts: list[asyncio.Future[None]],
    ) -> bool:
        """One run by itself, from the store. Conflicts are tried again; errors are counted.

        False: others advance it all the time, or a newer engine has to; its messages come again.
        """
        crashes = 0
        for _ in range(10 * _PATIENCE):
            self._runs.forget(run_id)
            live_run = (await self._runs.get([run_id])).get(run_id)
            if isinstance(live_run, Later):
                log.warning(telemetry.BATCH_FAILED, vertex="orchestrator", error=live_run.reason)
                return False
            if not isinstance(live_run, LiveRun):
                return True
            batch = self._new_batch()
            try:
                if self._decide(batch, live_run, mail, values, leased):
                    await self._commit(batch, receipts)
                    return True
            except ConflictError:
                telemetry.CONFLICTS.inc()
                await self._answers_first(run_id, mail, values)
                continue
            except _UNSTORABLE as error:
                log.warning(telemetry.BATCH_FAILED, vertex="orchestrator", error=str(error))
            crashes += 1
            if crashes >= _PATIENCE:
                await self._quarantine(run_id)
                return True
        self._runs.forget(run_id)
        reason = f"Run {run_id} is being advanced elsewhere all the time."
        log.warning(telemetry.BATCH_FAILED, vertex="orchestrator", error=reason)
        return False

    async def _answers_first(self, run_id: UUID, mail: Mail, values: dict[UUID, object]) -> None:
        """Somebody may have answered a question that this decision withdraws: the answer counts."""
        answers = await self._journal.answers([run_id])
        if answers:
            mail.events[:0] = [as_event(answer) for answer in answers]
            mail.refs.extend(a.output_ref for a in answers if a.output_ref is not None)
            values.update(await self._values({run_id: mail}))

    def _decide(
        self,
        batch: Batch,
        live_run: LiveRun,
        mail: Mail,
        values: dict[UUID, object],
        leased: set[tuple[UUID, str, int]],
    ) -> bool:
        """Decide for one run. False: it has to be loaded and looked at by itself."""
        run = live_run.run
        try:
            nudged = mail.nudge and mail.seq in (-1, run.seq)
            held = set(run.outstanding.items()) if mail.again or nudged else set()
            repeated = mail.woken and run.started
            decision = decide(run, to_core(mail.events, values), random.random())
            if decision.unknown and not live_run.fresh:
                return False
            telemetry_stale(decision)
            batch.add(live_run, decision)
            # What was delivered before and came to nothing then has its consequences just now.
            repeated = repeated or bool(decision.stale or decision.unknown)
            if held and (nudged or repeated):
                out = self._still_out(live_run, held, leased)
                batch.send_again(live_run, out, mail.nudge if nudged else 0)
        except Exception as error:
            log.exception(telemetry.BATCH_FAILED, vertex="orchestrator", error=repr(error))
            return False
        if run.finished:
            self._runs.forget(run.id)
        else:
            live_run.weight += mail.weight
            self._runs.keep(live_run)
            live_run.status = run.status
        return True

    def _still_out(
        self,
        live_run: LiveRun,
        held: set[tuple[tuple[str, str], int]],
        leased: set[tuple[UUID, str, int]],
    ) -> list[Dispatch]:
        """The dispatches that were out before this batch and still are, held by no runner."""
        run = live_run.run
        return [
            effect
            for effect in outstanding(run)
            if ((effect.scope, effect.node), effect.attempt) in held
            and (run.id, f"{effect.scope}/{effect.node}", effect.attempt) not in leased
        ]

    async def _commit(self, batch: Batch, receipts: list[asyncio.Future[None]]) -> None:
        if batch.append:
            told = await self._journal.commit(batch.append)
            if batch.append.asked or batch.append.withdrawn:
                follow(self._bus, batch.append.asked, told)
        send, ring = self._bus.send, self._bus.ring
        for subject, data, key in batch.outbox.messages():
            try:
                receipts.append(send(subject, data, key))
            except BusError as error:  # this one never goes; what goes with it must not stay
                log.warning(telemetry.BATCH_FAILED, vertex="orchestrator", error=str(error))
        for org, run_ids in batch.finished.items():
            receipts.append(send(done(org), encode(Finished(org, run_ids))))
        for org, runs in batch.advanced.items():
            ring(live(org), encode(Live(runs)))
        for first in range(0, len(batch.stopped), _STOPPED_AT_ONCE):
            ring(CANCEL, encode(Stopped(batch.stopped[first : first + _STOPPED_AT_ONCE])))
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

    async def _portions(self, mails: Mapping[UUID, Mail]) -> AsyncIterator[Mapping[UUID, Mail]]:
        """The mails by portions of which all may be in memory together: the large values that
        came, and the runs that have to be loaded.
        """
        room = min(MOST_VALUE_BYTES, self._settings.cache_bytes)
        for portion in await self._by_values(mails, room):
            rest = portion
            while True:
                old = [run_id for run_id, mail in rest.items() if not mail.is_new]
                later = set(await self._runs.prepare(old, room)) if old else set()
                if not later:
                    break
                yield {run_id: mail for run_id, mail in rest.items() if run_id not in later}
                rest = {run_id: mail for run_id, mail in rest.items() if run_id in later}
            yield rest

    async def _by_values(
        self, mails: Mapping[UUID, Mail], room: int
    ) -> Sequence[Mapping[UUID, Mail]]:
        refs = [ref for mail in mails.values() for ref in mail.refs]
        if not refs:
            return [mails]
        sizes = await self._journal.payload_sizes(refs)
        portions: list[dict[UUID, Mail]] = [{}]
        held = 0
        for run_id, mail in mails.items():
            mail.weight = sum(sizes.get(ref, 0) for ref in mail.refs)
            if portions[-1] and held + mail.weight > room:
                portions.append({})
                held = 0
            portions[-1][run_id] = mail
            held += mail.weight
        return portions

    async def _values(self, mails: Mapping[UUID, Mail]) -> dict[UUID, object]:
        refs = [ref for mail in mails.values() for ref in mail.refs]
        if not refs:
            return {}
        bodies = await self._journal.payloads(refs)
        return {ref: _decode(body) for ref, body in bodies.items()}

    async def _leased(self, mails: Mapping[UUID, Mail]) -> set[tuple[UUID, str, int]]:
        ids = [run_id for run_id, mail in mails.items() if mail.nudge or mail.again]
        return await self._journal.leased(ids) if ids else set()

    # --- runs that cannot go on -------------------------------------------------------------------

    async def _end_unrunnable(self, run: Unrunnable) -> None:
        stored = run.stored
        log.error(telemetry.RUN_UNRUNNABLE, run_id=str(stored.id), problem=run.problem)
        seq = max((seq for seq, _ in stored.rows), default=0) + 1
        await self._end(stored.id, stored.org, seq, run.code, run.problem or "")

    async def _quarantine(self, run_id: UUID) -> None:
        message = "The engine failed three times on this run and put it aside. This is a bug."
        log.error(telemetry.RUN_QUARANTINED, run_id=str(run_id), error=message)
        for stored in await self._journal.load([run_id]):
            if stored.status not in OPEN:
                continue
            seq = max((seq for seq, _ in stored.rows), default=0) + 1
            await self._end(run_id, stored.org, seq, "quarantined", message)
        self._runs.forget(run_id)

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
            abandoned=[run_id],
        )
        follow(self._bus, [], await self._journal.commit(append))
        await self._bus.send(done(org.hex), encode(Finished(org.hex, [run_id])))


def _drop(batch: Batch, run_id: UUID, mail: Mail) -> None:
    """Events of a run that has ended, or is gone with its history: its timers end with it."""
    telemetry.STALE_RESULTS.inc(len(mail.events))
    batch.append.cleared.extend(
        (run_id, event.key) for event in mail.events if isinstance(event, TimerDue)
    )


def telemetry_stale(decision: Decision) -> None:
    if decision.stale or decision.unknown:
        telemetry.STALE_RESULTS.inc(decision.stale + decision.unknown)
