"""What travels between the vertices, overheard, and delivered once more when a test wants it."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from uuid import UUID

from pipeline.bus.jetstream import JetStreamBus, connect
from pipeline.bus.subjects import done, done_channel, step
from pipeline.wire import (
    Dispatch,
    Dispatches,
    Event,
    Finished,
    Inbox,
    StepDone,
    StepFailed,
    StepParked,
    decode_dispatches,
    decode_finished,
    decode_inbox,
    encode,
)

Result = StepDone | StepFailed | StepParked


class Wire:
    """`deliveries` counts how often a step's dispatch was put on its way, whoever did. `ends` are
    the runs that have ended.
    """

    def __init__(self, bus: JetStreamBus) -> None:
        self.bus = bus
        self.deliveries: Counter[tuple[UUID, str]] = Counter()
        self._steps: dict[tuple[UUID, str], tuple[str, str, Dispatch]] = {}
        self._events: defaultdict[UUID, list[tuple[str, Event]]] = defaultdict(list)
        self.ends: dict[UUID, tuple[str, str]] = {}
        self._mine: Counter[bytes] = Counter()
        self._waiting: dict[asyncio.Future[None], Callable[[], object]] = {}

    async def listen(self) -> None:
        await self.bus.listen(step("*", "*"), self._on_steps)
        await self.bus.listen("pf.inbox.*.*", self._on_events)
        await self.bus.listen(done("*"), self._on_ends)

    def _on_steps(self, subject: str, data: bytes) -> None:
        message = decode_dispatches(data)
        for each in message.steps:
            key = each.run_id, each.node
            self.deliveries[key] += 1
            self._steps[key] = subject, message.org, each
        self._ring()

    def _on_events(self, subject: str, data: bytes) -> None:
        if self._mine[data]:
            self._mine[data] -= 1
            return
        for event in decode_inbox(data).events:
            self._events[event.run_id].append((subject, event))
        self._ring()

    def _on_ends(self, subject: str, data: bytes) -> None:
        message = decode_finished(data)
        self.ends.update(dict.fromkeys(message.run_ids, (subject, message.org)))
        self._ring()

    def _ring(self) -> None:
        for future in [future for future, true in self._waiting.items() if true()]:
            del self._waiting[future]
            if not future.done():
                future.set_result(None)

    async def until(self, true: Callable[[], object], within: float) -> None:
        """Until something that was overheard makes it true."""
        if not true():
            future = asyncio.get_running_loop().create_future()
            self._waiting[future] = true
            async with asyncio.timeout(within):
                await future

    def results(self, run_id: UUID, node: str) -> list[Result]:
        """What runners said of a step, each time."""
        events = (event for _, event in self._events[run_id])
        return [each for each in events if isinstance(each, Result) and each.node == node]

    # --- once more --------------------------------------------------------------------------------

    async def deliver_step(self, run_id: UUID, node: str) -> None:
        """The same dispatch, as a message of its own."""
        subject, org, dispatch = self._steps[run_id, node]
        await self.bus.send(subject, encode(Dispatches(org, [dispatch])))

    async def deliver_events(self, run_id: UUID) -> int:
        """All that came for a run so far, results and all; how many it were."""
        events = list(self._events[run_id])
        receipts = []
        for subject, event in events:
            data = encode(Inbox([event]))
            self._mine[data] += 1
            receipts.append(self.bus.send(subject, data))
        await asyncio.gather(*receipts)
        return len(events)

    async def deliver_end(self, run_id: UUID, within: float) -> None:
        """The end of a run, until it was dealt with."""
        subject, org = self.ends[run_id]
        await self.bus.send(subject, encode(Finished(org, [run_id])))
        async with asyncio.timeout(within):
            while True:
                left = await self.bus.backlog(done_channel())
                if not left.pending and not left.in_flight:
                    return
                await asyncio.sleep(0.1)


@asynccontextmanager
async def wire(url: str) -> AsyncIterator[Wire]:
    bus = await connect(url, name="matrix")
    try:
        one = Wire(bus)
        await one.listen()
        yield one
    finally:
        await bus.close()
