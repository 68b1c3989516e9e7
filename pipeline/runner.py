"""Vertex: a dispatch becomes a verdict.

::

    steps.<stage> ─► a task for each step ─► verdict ─► results, by partition ─► inbox ─► ack

A message is acked when the results of all its steps have their receipts. While it is in work it is
kept from redelivery by a thread that user code cannot block; a step that takes longer than a few
seconds also holds a lease in the store, so that the reconciler knows it lives.

    error                        answer
    message cannot be read       dead letter, term
    task type is not here        passed on to another runner; after a minute the step fails
    task raises                  a retryable failure
    runner does not survive it   after ten of them a retryable failure; if it may happen once,
                                 after the second one a final one
    store away                   the step waits with its config or its output until it is back
    result has no receipt        not acked; the message comes again, and its steps run again
    stop is asked for            8 s to finish; then cancelled, and given back

What is passed on or given back is published anew and then acked, with the count of the runners that
were lost: for the bus, a message that is handed back and one whose runner died are the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache, partial
from typing import Any, TypeVar
from uuid import UUID

import msgspec

from permaflow.errors import (
    BusError,
    ContractError,
    NotFoundError,
    PermaflowError,
    StoreUnavailableError,
)
from permaflow.task import failure
from permaflow.task_types import TaskTypeRegistry
from pipeline import step_log, telemetry
from pipeline.attempt import Result, Services, attempt, crashed, failed, judged
from pipeline.bus.port import Bus, DeadLetter, Message, Subscription
from pipeline.bus.subjects import CANCEL, inbox, partition_of, step_channel
from pipeline.holding import May, RunnerStore, claimed
from pipeline.ids import new_id
from pipeline.in_work import LEASE_EVERY, Parcel, Step, Work
from pipeline.result_limits import fault_of
from pipeline.settings import Settings
from pipeline.telemetry import log
from pipeline.wire import (
    Dispatch,
    Dispatches,
    Inbox,
    StepDone,
    StepFailed,
    decode_dispatches,
    decode_stopped,
    encode,
    plain,
)

GRACE = 8.0
"""Seconds that a stopping runner gives to what is in work; two more are for saying goodbye."""

LEASE_AFTER = 3.0
_BATCH_CREDIT = 64
_TOGETHER = 512
"""Steps that begin in one turn of the loop."""
_AGAIN = timedelta(seconds=1)
_ELSEWHERE = timedelta(seconds=6)
_PASSING = 500
"""Messages that are passed on at once without taking the place of steps."""
_RUNNERS = 10
"""After so many, a step is not waited for any longer: nobody knows its task, or survives it."""

_LOST = "No runner that had this step came back."
_UNKNOWN = "A runner had begun this attempt and did not come back; nobody knows what it did."
_MAX_MESSAGE = 512 * 1024
_MAX_PAUSE = 2.0
_encode_json = msgspec.json.Encoder(enc_hook=plain).encode
_decode_json = msgspec.json.Decoder().decode

_seconds_of = lru_cache(maxsize=1_000)(telemetry.STEP_SECONDS.labels)
_attempts_of = lru_cache(maxsize=4_000)(telemetry.STEP_ATTEMPTS.labels)

T = TypeVar("T")
StepId = tuple[UUID, str, str, int]
"""(run, scope, node, attempt)."""


class Runner:
    """One process of the vertex, serving some stages. `run` ends after `stop`."""

    def __init__(
        self,
        bus: Bus,
        types: TaskTypeRegistry,
        services: Services,
        store: RunnerStore,
        settings: Settings,
        stages: Sequence[str],
        dead_letter: DeadLetter,
    ) -> None:
        self.holder = new_id().hex
        self._loop = asyncio.get_running_loop()
        self._bus = bus
        self._types = types
        self._services = services
        self._store = store
        self._settings = settings
        self._passing = 0
        self._tells = settings.log_level == "DEBUG"
        self._stages = tuple(stages)
        self._dead_letter = dead_letter
        self._steps: dict[StepId, Step] = {}
        self._results: list[tuple[Work, Result | None, tuple[Work, ...]]] = []
        self._flushing = False
        self._stopping = asyncio.Event()
        self._subscriptions: list[Subscription] = []
        self._tasks: set[asyncio.Task[None]] = set()

    # --- life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        unlisten = await self._bus.listen(CANCEL, self._cancel)
        leases = asyncio.create_task(self._keep_leases())
        readers = []
        for stage in self._stages:
            subscription = await self._bus.subscribe(step_channel(stage), self._credit(stage))
            self._subscriptions.append(subscription)
            in_work = telemetry.STAGE_IN_WORK.labels(stage)
            in_work.set_function(partial(self._in_work, subscription))
            readers.append(asyncio.create_task(self._read(stage, subscription)))
        if self._stopping.is_set():
            await self.stop()
        await asyncio.gather(*readers)
        await self._drain()
        leases.cancel()
        await unlisten()

    async def stop(self) -> None:
        self._stopping.set()
        for subscription in self._subscriptions:
            await subscription.close()

    def _in_work(self, subscription: Subscription) -> int:
        """Counted when somebody asks for the metrics."""
        return sum(step.work.subscription is subscription for step in self._steps.values())

    def _credit(self, stage: str) -> int:
        """Messages at a time: as many as steps, unless steps of the stage travel in groups."""
        grouped = any(
            self._types.get(name).batch > 1
            for name in self._types.names()
            if self._sound(name) and self._types.stage(name) == stage
        )
        return (
            min(_BATCH_CREDIT, self._settings.concurrency)
            if grouped
            else (self._settings.concurrency)
        )

    def _sound(self, name: str) -> bool:
        try:
            self._types.get(name)
        except (ContractError, NotFoundError):
            return False
        return True

    async def _drain(self) -> None:
        running = [step.task for step in self._steps.values() if step.task is not None]
        if running:
            await asyncio.wait(running, timeout=GRACE)
        left: dict[int, tuple[Work, list[Dispatch]]] = {}
        for step in list(self._steps.values()):
            if step.task is not None:
                step.task.cancel()
                left.setdefault(id(step.work), (step.work, []))[1].append(step.dispatch)
                for work in step.also:
                    work.message.nak(_AGAIN)  # after the ack of the first it is gone with that
        for work, dispatches in left.values():
            again = Dispatches(work.org, dispatches, lost=work.lost)
            self._later(self._give_back(work.message, again, work.receipts))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)

    # --- in ---------------------------------------------------------------------------------------

    async def _read(self, stage: str, subscription: Subscription) -> None:
        begun = 0
        while messages := await subscription.batch():
            for message in messages:
                if begun >= _TOGETHER:
                    # What is quick is through by then, and its results are on their way.
                    begun = 0
                    await asyncio.sleep(0)
                deliveries = message.deliveries
                if deliveries > 1:
                    telemetry.REDELIVERIES.labels("runner").inc()
                try:
                    dispatches = decode_dispatches(message.data)
                except msgspec.MsgspecError as error:
                    log.error(
                        telemetry.MESSAGE_UNREADABLE, subject=message.subject, reason=str(error)
                    )
                    self._dead_letter("steps", message)
                    subscription.release()
                    continue
                message.keep()
                known = self._knows(dispatches.steps)
                if not known and dispatches.passed < _RUNNERS:
                    self._later(self._pass_on(message, dispatches, subscription))
                    continue
                lost = dispatches.lost + deliveries - 1
                work = Work(message, dispatches.org, len(dispatches.steps), subscription, lost)
                begun += work.open
                if known and lost + 1 >= _RUNNERS:
                    self._give_up(work, dispatches)
                    continue
                for dispatch in dispatches.steps:
                    self._begin(dispatch, work)

    async def _pass_on(
        self, message: Message, dispatches: Dispatches, subscription: Subscription
    ) -> None:
        """Nothing of this is known here: after a while, let somebody else look at it."""
        takes_place = self._passing >= _PASSING
        if not takes_place:
            subscription.release()
        self._passing += 1
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(_ELSEWHERE.total_seconds()):
                    await self._stopping.wait()
            lost = dispatches.lost + message.deliveries - 1
            passed = dispatches.passed + 1
            again = Dispatches(dispatches.org, dispatches.steps, lost=lost, passed=passed)
            await self._give_back(message, again, [])
        finally:
            self._passing -= 1
            if takes_place:
                subscription.release()

    async def _give_back(
        self, message: Message, again: Dispatches, receipts: Iterable[asyncio.Future[None]]
    ) -> None:
        """Publish what is left of a message, then ack it; `receipts` are of what was done."""
        try:
            await self._bus.send(message.subject, encode(again))
            for receipt in receipts:
                await receipt
        except BusError as error:
            log.warning(telemetry.BATCH_FAILED, vertex="runner", error=str(error))
            message.nak(_AGAIN)
        else:
            message.ack()

    def _give_up(self, work: Work, dispatches: Dispatches) -> None:
        """No runner that had this message came back. One of its steps may be what ended them: each
        gets a message of its own, and a step that was alone has failed.
        """
        alone = len(dispatches.steps) == 1
        for dispatch in dispatches.steps:
            if (dispatch.run_id, dispatch.scope, dispatch.node, dispatch.attempt) in self._steps:
                self._begin(dispatch, work)  # it is not lost at all
                continue
            log.warning(telemetry.STEP_LOST, run_id=str(dispatch.run_id), node=dispatch.node)
            if alone and dispatch.once:
                self._begin(dispatch, work)
            elif alone:
                self._finish(work, failed(dispatch, "runner_lost", _LOST, retryable=True))
            else:
                message = encode(Dispatches(dispatches.org, [dispatch]))
                self._publish(work.message.subject, message, [work])
                self._finish(work, None)

    def _knows(self, steps: Sequence[Dispatch]) -> bool:
        """Another runner may have what is not installed here, or not yet."""
        names = {step.type for step in steps}
        return all(self._sound(name) and not self._types.get(name).remote for name in names)

    def _begin(self, dispatch: Dispatch, work: Work) -> None:
        key = (dispatch.run_id, dispatch.scope, dispatch.node, dispatch.attempt)
        if key in self._steps:
            self._steps[key].also += (work,)
            return
        step = self._steps[key] = Step(dispatch, work, self._loop.time())
        step.task = self._loop.create_task(self._step(key, step))

    async def _step(self, key: StepId, step: Step) -> None:
        dispatch = step.dispatch
        step.begun = True
        result: Result | None = None
        if self._tells:
            step_log.begun(dispatch)
        try:
            if not step.stopped:
                result = await self._attempt(dispatch, step.work.org)
        except asyncio.CancelledError:
            if not step.stopped:
                raise
            log.debug(telemetry.STEP_STOPPED, run_id=str(dispatch.run_id), node=dispatch.node)
        finally:
            del self._steps[key]
        if self._tells:
            step_log.ended(dispatch, result)
        _seconds_of(dispatch.type).observe(self._loop.time() - step.started)
        _attempts_of(dispatch.type, type(result).__name__).inc()
        self._finish(step.work, result, step.also)
        if step.leased_at:
            self._later(self._release_lease(step))

    async def _attempt(self, dispatch: Dispatch, org: str) -> Result | None:
        """None: another runner is at it."""
        try:
            if dispatch.once and (may := await self._claim(dispatch, org)) is not May.BEGIN:
                lost = failed(dispatch, "outcome_unknown", _UNKNOWN, retryable=False)
                return lost if may is May.TELL else None
            task_type = self._types.get(dispatch.type)
            config: Any = dispatch.config
            if dispatch.config_ref is not None:
                ref = dispatch.config_ref
                body = await self._insist(lambda: self._store.get_payload(ref))
                if body is None:
                    message = "The config of this step is no longer in the store."
                    return failed(dispatch, "config_missing", message, retryable=False)
                config = _decode_json(body)
            result = await attempt(dispatch, config, org, task_type, self._services)
            return await self._shrink(result, org)
        except PermaflowError as error:
            return judged(dispatch, failure(error))
        except Exception as error:  # a step whose end nobody tells would be held for ever
            return crashed(dispatch, error)

    async def _claim(self, dispatch: Dispatch, org: str) -> May:
        claim, token = self._store.claim, new_id()
        return await claimed(
            lambda: self._insist(lambda: claim(self.holder, token, UUID(org), dispatch))
        )

    async def _shrink(self, result: Result, org: str) -> Result:
        """The result with a large output put into the store, or refused."""
        if not isinstance(result, StepDone) or result.output is None:
            return result
        fault = fault_of(result.output)
        if fault is not None:
            return _refused(result, "bad_output", f"The output cannot be carried: {fault}")
        limit = self._settings.max_output_bytes
        raw = encode(result.output)
        if len(raw) <= min(self._settings.inline_bytes, limit):
            return msgspec.structs.replace(result, output=msgspec.Raw(raw))
        body = _encode_json(result.output)
        if len(body) > limit:
            text = f"The output has {len(body):,} bytes; at most {limit:,} are allowed."
            return _refused(result, "limit_exceeded", text)
        ref = new_id()
        run_id = result.run_id
        await self._insist(lambda: self._store.put_payload(ref, UUID(org), run_id, body))
        return msgspec.structs.replace(result, output=None, output_ref=ref)

    async def _insist(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What the store answers, once it is there: no step fails because a server restarts."""
        pause = 0.1
        while True:
            try:
                return await ask()
            except StoreUnavailableError as error:
                log.warning(telemetry.BATCH_FAILED, vertex="runner", error=str(error))
                await asyncio.sleep(pause)
                pause = min(_MAX_PAUSE, pause * 2)

    # --- out --------------------------------------------------------------------------------------

    def _finish(self, work: Work, result: Result | None, also: tuple[Work, ...] = ()) -> None:
        """A step of this message is through; results that are ready together travel together."""
        work.open -= 1
        if also:
            for other in also:
                other.open -= 1
        self._results.append((work, result, also))
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        results, self._results = self._results, []
        groups: dict[tuple[int, str], Parcel] = {}
        works: dict[int, Work] = {}
        for work, result, also in results:
            works[id(work)] = work
            if also:
                works.update((id(other), other) for other in also)
            if result is None:
                continue
            event = msgspec.Raw(encode(result))
            key = partition_of(result.run_id), work.org
            parcel = groups.get(key)
            if parcel is None or parcel.size + len(event) > _MAX_MESSAGE:
                if parcel is not None:
                    self._send(*key, parcel)
                parcel = groups[key] = Parcel()
            parcel.add(event, work)
            if also:
                parcel.works.update((id(other), other) for other in also)
        for (partition, org), parcel in groups.items():
            self._send(partition, org, parcel)
        through = [work for work in works.values() if work.open == 0]
        if through:
            self._later(self._ack(through))

    def _send(self, partition: int, org: str, parcel: Parcel) -> None:
        data = encode(Inbox(parcel.events))
        self._publish(inbox(partition, org), data, parcel.works.values())

    def _publish(self, subject: str, data: bytes, works: Iterable[Work]) -> None:
        try:
            receipt = self._bus.send(subject, data)
        except BusError as error:
            receipt = self._loop.create_future()
            receipt.set_exception(error)
        for work in works:
            work.receipts.append(receipt)

    def _later(self, work: Coroutine[None, None, None]) -> None:
        """In the background; a runner that stops waits for it."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ack(self, works: Sequence[Work]) -> None:
        for work in works:
            try:
                for receipt in work.receipts:
                    await receipt
            except BusError as error:
                log.warning(telemetry.BATCH_FAILED, vertex="runner", error=str(error))
                work.message.nak(_AGAIN)
            else:
                work.message.ack()
            work.subscription.release()

    # --- leases and cancellation ------------------------------------------------------------------

    async def _keep_leases(self) -> None:
        while True:
            await asyncio.sleep(LEASE_AFTER if not self._steps else 1.0)
            now = self._loop.time()
            due = [
                step
                for step in self._steps.values()
                if now - step.started >= LEASE_AFTER and now - step.leased_at >= LEASE_EVERY
            ]
            if not due:
                continue
            for step in due:
                step.leased_at = now
            try:
                await self._store.renew(self.holder, [step.lease(now) for step in due])
            except PermaflowError as error:
                log.warning(telemetry.BATCH_FAILED, vertex="runner", error=str(error))

    async def _release_lease(self, step: Step) -> None:
        try:
            await self._store.release(self.holder, [step.lease(self._loop.time())])
        except PermaflowError as error:
            log.warning(telemetry.BATCH_FAILED, vertex="runner", error=str(error))

    def _cancel(self, _subject: str, data: bytes) -> None:
        """Stop what is no longer wanted. Steps that are not here are somebody else's."""
        try:
            stopped = decode_stopped(data).steps
        except msgspec.MsgspecError:
            return
        for key in stopped:
            step = self._steps.get(key)
            if step is not None and step.task is not None:
                step.stopped = True
                if step.begun:  # else it would never learn of it
                    step.task.cancel()


def _refused(result: StepDone, code: str, message: str) -> Result:
    return StepFailed(
        result.run_id, result.scope, result.node, result.attempt, code, message, retryable=False
    )
