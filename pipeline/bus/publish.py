"""Sending into streams without waiting: every message is kept until the stream's receipt came.

A message is written at once, again after every reconnect and after its stream was made anew, and
once more when half of `timeout` has passed since; when no receipt comes within `timeout` its
future fails. So a send never hangs, and a message may be stored twice, which the port allows.
"""

from __future__ import annotations

import asyncio
import json
from asyncio import Future, TimerHandle
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from permaflow.errors import BusError, BusUnavailableError, MessageTooLargeError
from pipeline.bus.link import Link
from pipeline.bus.protocol import header_block, pub, status_of

WINDOW = 4_096
"""Messages under way at once; JetStream refuses more than 10,000 per stream."""
LIMIT = 100_000
"""Messages kept for a receipt, under way or waiting; a send beyond that fails at once."""
SWEEP_EVERY = 0.25
TRY_AGAIN = 0.05
TOO_MANY_REQUESTS = 429
NOT_NOW = frozenset({10008, 10009})
"""JetStream's error codes for "no leader" and "no quorum", which pass."""


@dataclass(slots=True)
class _Sent:
    receipt: Future[None]
    deadline: float
    chunk: bytes
    written: bool = False
    written_at: float = 0.0
    homeless: bool = False
    repeated: bool = False
    reason: str = ""


class Publisher:
    """Sends, and matches receipts to what was sent.

    `mend` is called when a subject turns out to have no stream; call `mended` once it has one.
    """

    def __init__(
        self, link: Link, inbox: str, mend: Callable[[], None], timeout: float = 5.0
    ) -> None:
        self.link = link
        self.timeout = timeout
        self.sent = 0
        self._mend = mend
        self._prefix = f"{inbox}.".encode()
        self._numbers = count(1)
        self._unacked: dict[int, _Sent] = {}
        self._waiting: deque[int] = deque()
        self._under_way = 0
        self._sweeper: TimerHandle | None = None
        self._closed = False
        link.subscribe(f"{inbox}.*", self._receipt)
        link.on_up.append(self.again)

    def send(self, subject: str, data: bytes, key: str | None = None) -> Future[None]:
        headers = header_block(Nats_Msg_Id=key) if key is not None else b""
        if len(headers) + len(data) > self.link.max_payload:
            raise MessageTooLargeError(
                f"A message of {len(data)} bytes for {subject} is larger than "
                f"the {self.link.max_payload} bytes that NATS carries."
            )
        loop = self.link.loop
        receipt: Future[None] = loop.create_future()
        if self._closed or len(self._unacked) >= LIMIT:
            why = "The bus is closed." if self._closed else f"{LIMIT} messages await receipts."
            receipt.set_exception(BusUnavailableError(why))
            return receipt
        self.sent = number = next(self._numbers)
        chunk = pub(self.link.encoded(subject), data, self._prefix + b"%d" % number, headers)
        now = loop.time()
        sent = _Sent(receipt, now + self.timeout, chunk)
        self._unacked[number] = sent
        if self._under_way < WINDOW and self.link.connected:
            self._write(sent, now)
        else:
            self._waiting.append(number)
        if self._sweeper is None:
            self._sweeper = loop.call_later(SWEEP_EVERY, self._sweep)
        return receipt

    def again(self) -> None:
        """The link is up again: write everything that has no receipt yet."""
        for sent in self._unacked.values():
            sent.written = sent.homeless = False
        self._under_way = 0
        self._waiting = deque(self._unacked)
        self._pump()

    def mended(self, made: bool) -> None:
        """The streams are there. Write what had none, and if one was made just now, everything:
        JetStream drops what it has taken but not stored when a stream is deleted.
        """
        if made:
            self.again()
            return
        for sent in self._unacked.values():
            if sent.homeless:
                sent.homeless = False
                self.link.write(sent.chunk)

    def needs_mending(self) -> bool:
        """Whether some message has no stream to go to."""
        return any(sent.homeless for sent in self._unacked.values())

    async def drained(self) -> None:
        """Wait until every receipt came or was given up."""
        while self._unacked:
            receipts = [sent.receipt for sent in self._unacked.values()]
            await asyncio.wait(receipts)

    def close(self) -> None:
        """Give up what has no receipt."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for number in list(self._unacked):
            self._fail(number, BusUnavailableError("The bus was closed before a receipt came."))

    def _receipt(self, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
        number = int(subject[len(self._prefix) :])
        sent = self._unacked.get(number)
        if sent is None:
            return
        if headers and status_of(headers)[0] == 503:
            sent.homeless = True
            sent.reason = "no stream owns the subject"
            self._mend()
        elif b'"error"' in data:
            self._refused(number, sent, data)
        else:
            self._forget(number, sent)
            if not sent.receipt.done():
                sent.receipt.set_result(None)
            if self._waiting:
                self._pump()

    def _refused(self, number: int, sent: _Sent, data: bytes) -> None:
        error = json.loads(data)["error"]
        sent.reason = str(error.get("description", "refused"))
        if error.get("code") == TOO_MANY_REQUESTS or error.get("err_code") in NOT_NOW:
            self.link.loop.call_later(TRY_AGAIN, self._write_again, number)
        else:
            self._fail(number, BusError(f"JetStream refused a message: {sent.reason}."))

    def _write_again(self, number: int) -> None:
        sent = self._unacked.get(number)
        if sent is not None and sent.written:
            self.link.write(sent.chunk)

    def _pump(self) -> None:
        now = self.link.loop.time()
        while self._waiting and self._under_way < WINDOW and self.link.connected:
            sent = self._unacked.get(self._waiting.popleft())
            if sent is not None and not sent.written:
                self._write(sent, now)

    def _write(self, sent: _Sent, now: float) -> None:
        sent.written = True
        sent.written_at = now
        self._under_way += 1
        self.link.write(sent.chunk)

    def _forget(self, number: int, sent: _Sent) -> None:
        del self._unacked[number]
        if sent.written:
            self._under_way -= 1

    def _fail(self, number: int, error: BusError) -> None:
        sent = self._unacked[number]
        self._forget(number, sent)
        if not sent.receipt.done():
            sent.receipt.set_exception(error)

    def _sweep(self) -> None:
        now = self.link.loop.time()
        late = []
        for number, sent in self._unacked.items():
            if sent.deadline <= now:
                late.append(number)
            elif sent.written and not sent.repeated and now >= sent.written_at + self.timeout / 2:
                # the receipt is lost, or the message with a stream that somebody else made anew
                sent.repeated = True
                self.link.write(sent.chunk)
        for number in late:
            reason = self._unacked[number].reason or "no receipt"
            self._fail(
                number, BusUnavailableError(f"No receipt within {self.timeout:g} s: {reason}.")
            )
        if late:
            self._waiting = deque(number for number in self._waiting if number in self._unacked)
            self._pump()
        self._sweeper = None
        if self._unacked:
            self._sweeper = self.link.loop.call_later(SWEEP_EVERY, self._sweep)
