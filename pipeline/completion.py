"""Vertex: a finished run becomes what others need to know of it.

Each run is settled once: counted into its workflow, in one statement. Its end is told to the
outside before that: at least once, with the same event id. A message that comes again finds its
runs settled and does nothing; the reconciler reports those whose message was lost.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from uuid import UUID

import msgspec

from permaflow.errors import PermaflowError
from pipeline import telemetry
from pipeline.bus.port import Bus, DeadLetter, Message, Subscription
from pipeline.bus.subjects import done_channel
from pipeline.telemetry import log
from pipeline.wire import decode_finished

_CREDIT = 256
_AGAIN = timedelta(seconds=1)


class Completion:
    """One process of the vertex. `run` ends after `stop`.

    `settle` counts runs and answers those that were not counted before; each of `tell` is called
    with the runs before that, and may be called again with the same.
    """

    def __init__(
        self,
        bus: Bus,
        settle: Callable[[Sequence[UUID]], Awaitable[Sequence[UUID]]],
        dead_letter: DeadLetter,
        tell: Sequence[Callable[[Sequence[UUID]], Awaitable[None]]] = (),
    ) -> None:
        self._bus = bus
        self._settle = settle
        self._tell = tuple(tell)
        self._dead_letter = dead_letter
        self._subscription: Subscription | None = None
        self._stopped = False

    async def run(self) -> None:
        self._subscription = await self._bus.subscribe(done_channel(), _CREDIT)
        if self._stopped:
            await self.stop()
        while messages := await self._subscription.batch():
            await self.handle(messages)
            self._subscription.release(len(messages))

    async def stop(self) -> None:
        self._stopped = True
        if self._subscription is not None:
            await self._subscription.close()

    async def handle(self, messages: Sequence[Message]) -> None:
        ids: list[UUID] = []
        readable: list[Message] = []
        for message in messages:
            if message.deliveries > 1:
                telemetry.REDELIVERIES.labels("completion").inc()
            try:
                ids.extend(decode_finished(message.data).run_ids)
            except msgspec.MsgspecError as error:
                log.error(telemetry.MESSAGE_UNREADABLE, subject=message.subject, reason=str(error))
                self._dead_letter("done", message)
            else:
                readable.append(message)
        try:
            wanted = list(dict.fromkeys(ids))
            for tell in self._tell:
                await tell(wanted)
            await self._settle(wanted)
        except PermaflowError as error:
            log.warning(telemetry.BATCH_FAILED, vertex="completion", error=str(error))
            for message in readable:
                message.nak(_AGAIN)
        else:
            for message in readable:
                message.ack()
