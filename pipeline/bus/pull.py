"""Reading: overlapped pulls with credits, over any number of channels at once.

Every channel always has a pull outstanding at the server, so that a message leaves it the moment
it is stored; a new pull is sent when half of the channel's share has been delivered. An idle
channel costs one pull and six heartbeats in thirty seconds.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from datetime import timedelta
from typing import Protocol

from pipeline.bus.beats import Beats
from pipeline.bus.link import Link
from pipeline.bus.port import Channel, Message
from pipeline.bus.protocol import header, status_of

EXPIRES = 30_000_000_000
HEARTBEAT = 5_000_000_000
TICK = 3.7
SILENT_TICKS = 3
"""Silence for so many ticks is more than seven seconds: a heartbeat was missed, or two."""
TRY_AGAIN = 0.1


class Owner(Protocol):
    """What a reader needs of its bus."""

    link: Link
    beats: Beats

    def new_inbox(self) -> str: ...
    async def ensure(self, channel: Channel) -> int:
        """See that the channel exists; since when the server knows who has what of it."""
        ...

    def mend(self, pull: Pull) -> None:
        """The pull is `broken`: see that its channel exists, then start it."""
        ...

    def forget(self, reader: Reader) -> None:
        """The reader is closed."""
        ...


class Delivery:
    """One delivery of one message; see `port.Message`."""

    __slots__ = ("_kept", "_reply", "_subject", "data", "pull")

    def __init__(self, pull: Pull, subject: bytes, reply: bytes, data: bytes) -> None:
        self.pull = pull
        self._subject = subject
        self._reply = reply
        self._kept = False
        self.data = data

    @property
    def subject(self) -> str:
        return self._subject.decode()

    @property
    def deliveries(self) -> int:
        return int(self._words()[4])

    @property
    def again(self) -> bool:
        words = self._words()
        return words[4] != b"1" or int(words[7]) < self.pull.known_since

    def _words(self) -> list[bytes]:
        """$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence in the stream>.<sequence for the
        consumer>.<stored at>.<pending>; a server with a domain puts two words before the stream.
        """
        words = self._reply.split(b".")
        return words if len(words) < 11 else words[2:]

    def ack(self) -> None:
        self._answer(b"+ACK")

    def nak(self, delay: timedelta) -> None:
        nanoseconds = max(0, delay // timedelta(microseconds=1)) * 1000
        self._answer(b'-NAK {"delay": %d}' % nanoseconds)

    def term(self) -> None:
        self._answer(b"+TERM")

    def hold(self) -> None:
        self.pull.reader.beats.say(self._reply)

    def keep(self) -> None:
        self._kept = True
        every = self.pull.channel.ack_wait.total_seconds() / 3
        self.pull.reader.beats.add(self._reply, every)

    def _answer(self, word: bytes) -> None:
        reader = self.pull.reader
        if self._kept:
            self._kept = False
            reader.beats.discard(self._reply)
        reader.link.write(b"PUB %b %d\r\n%b\r\n" % (self._reply, len(word), word))


class Pull:
    """The pulls of one channel. Who had what was stored before `known_since` (in nanoseconds since
    1970, by its clock) the server does not know.
    """

    def __init__(self, reader: Reader, channel: Channel) -> None:
        self.reader = reader
        self.channel = channel
        self.outstanding = 0
        self.broken = False
        self.closed = False
        self.silent_ticks = 0
        self.started_at = 0.0
        self.known_since = 0
        self._request = f"$JS.API.CONSUMER.MSG.NEXT.{channel.stream}.{channel.name}".encode()
        self._inbox = b""
        self._sid = b""

    def start(self) -> None:
        """Pull from the beginning, on an inbox that nothing old is sent to."""
        self.stop()
        self.broken = False
        self.silent_ticks = 0
        self.started_at = self.reader.link.loop.time()
        inbox = self.reader.owner.new_inbox()
        self._inbox = inbox.encode()
        self._sid = self.reader.link.subscribe(inbox, self._arrived)
        self.reader.is_low(self)

    def stop(self) -> None:
        if self._sid:
            self.reader.link.unsubscribe(self._sid)
            self._sid = b""
        self._reset()

    def close(self) -> None:
        """Stop; what still arrives is given back to the other readers."""
        self.closed = True
        self.stop()

    def ask(self, count: int) -> None:
        if self.outstanding == 0:
            self.silent_ticks = 0
        self.outstanding += count
        self.reader.outstanding += count
        self.reader.link.publish(
            self._request,
            b'{"batch":%d,"expires":%d,"idle_heartbeat":%d}' % (count, EXPIRES, HEARTBEAT),
            self._inbox,
        )

    def _arrived(self, subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
        self.silent_ticks = 0
        if not reply:
            if not self.closed:
                self._status(headers)
            return
        delivery = Delivery(self, subject, reply, data)
        if self.closed:
            delivery.nak(timedelta())
            return
        reader = self.reader
        if self.outstanding > 0:
            self.outstanding -= 1
            reader.outstanding -= 1
        if self.outstanding <= reader.share // 2:
            reader.low[self] = None
        reader.take(delivery)

    def _status(self, headers: bytes) -> None:
        code, _ = status_of(headers)
        left = header(headers, "Nats-Pending-Messages")
        match code:
            case 100:
                return
            case 404 | 408 | 409 if left:
                self._expired(int(left))
            case 408 | 404:
                self._expired(self.outstanding)
            case 503:
                self.lost()
            case _ if self.channel.volatile:  # as below, and perhaps it was made anew already
                self.lost()
            case _:  # a change of leader, a deleted consumer, a limit: ask again, and be told 503
                self._reset()
                self.reader.link.loop.call_later(TRY_AGAIN, self.reader.is_low, self)

    def _expired(self, count: int) -> None:
        count = min(count, self.outstanding)
        self.outstanding -= count
        self.reader.outstanding -= count
        self.reader.is_low(self)

    def _reset(self) -> None:
        self.reader.outstanding -= self.outstanding
        self.outstanding = 0

    def lost(self) -> None:
        """The server knows this pull or its consumer no more."""
        self._reset()
        if not self.broken and not self.closed:
            self.broken = True
            self.reader.owner.mend(self)


class Reader:
    """A subscription to a changing set of channels; see `port.Subscription`.

    The credit is one pool, of which each channel may have an equal share outstanding: at least
    one, so with less credit than channels as many messages as channels may be out.
    """

    def __init__(self, owner: Owner, credit: int) -> None:
        self.owner = owner
        self.link = owner.link
        self.beats = owner.beats
        self.credit = credit
        self.share = credit
        self.outstanding = 0
        self.low: dict[Pull, None] = {}
        self.pulls: dict[Channel, Pull] = {}
        self._unfinished = 0
        self._buffer: list[Delivery] = []
        self._waiter: Future[None] | None = None
        self._refilling = False
        self._closed = False

    async def batch(self) -> list[Message]:
        while not self._buffer:
            if self._closed:
                return []
            if self._waiter is None or self._waiter.done():
                self._waiter = self.link.loop.create_future()
            await self._waiter
        batch: list[Message] = list(self._buffer)
        self._buffer.clear()
        if self.low:
            self._refill()
        return batch

    def release(self, count: int = 1) -> None:
        self._unfinished -= count
        if self.low:
            self._refill_soon()

    async def add(self, *channels: Channel) -> None:
        ensured = await asyncio.gather(*(self.owner.ensure(channel) for channel in channels))
        new = {c: since for c, since in zip(channels, ensured, strict=True) if c not in self.pulls}
        if self._closed or not new:
            return
        for channel, since in new.items():
            pull = self.pulls[channel] = Pull(self, channel)
            pull.known_since = since
        self._share_out()
        for channel, pull in self.pulls.items():
            if channel in new or pull.outstanding > self.share:
                pull.start()

    async def remove(self, channel: Channel) -> None:
        pull = self.pulls.pop(channel, None)
        if pull is None:
            return
        self.low.pop(pull, None)
        pull.close()
        theirs = [message for message in self._buffer if message.pull is pull]
        self._buffer = [message for message in self._buffer if message.pull is not pull]
        for message in theirs:
            message.nak(timedelta())
        self._unfinished -= len(theirs)
        self._share_out()
        for other in self.pulls.values():
            self.is_low(other)

    async def close(self) -> None:
        self._closed = True
        for channel in list(self.pulls):
            await self.remove(channel)
        self._notify()
        self.owner.forget(self)

    def take(self, message: Delivery) -> None:
        self._unfinished += 1
        self._buffer.append(message)
        if len(self._buffer) == 1:
            self._notify()

    def is_low(self, pull: Pull) -> None:
        """This channel has too little outstanding: pull more as soon as there is credit."""
        if not pull.closed:
            self.low[pull] = None
            self._refill_soon()

    def restart(self) -> None:
        """The link is up again: what was outstanding is void, and so may be a volatile channel."""
        for pull in self.pulls.values():
            if pull.channel.volatile:
                pull.lost()
            else:
                pull.start()

    def tick(self) -> None:
        """Every `TICK` seconds: find the pulls that the server has forgotten."""
        for pull in self.pulls.values():
            if pull.broken or not self.link.connected:
                continue
            if pull.outstanding == 0:
                self.is_low(pull)
                continue
            pull.silent_ticks += 1
            if pull.silent_ticks >= SILENT_TICKS:
                pull.lost()

    def _share_out(self) -> None:
        self.share = max(1, self.credit // max(1, len(self.pulls)))

    def _notify(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _refill_soon(self) -> None:
        # once per turn of the loop, so that many releases make one pull
        if not self._refilling:
            self._refilling = True
            self.link.loop.call_soon(self._refill)

    def _refill(self) -> None:
        self._refilling = False
        if not self.link.connected:
            return
        scarce = self.credit < len(self.pulls)
        for pull in list(self.low):
            free = self.credit - self._unfinished - self.outstanding
            want = min(self.share - pull.outstanding, free)
            if scarce and pull.outstanding == 0 and self._unfinished < self.credit:
                want = 1
            if pull.broken:
                del self.low[pull]
            elif want > 0 and (pull.outstanding == 0 or want * 4 >= self.share):
                del self.low[pull]
                pull.ask(want)
