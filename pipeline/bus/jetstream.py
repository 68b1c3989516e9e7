"""The bus over NATS JetStream.

Three connections: `link.py` for everything that flows, nats-py for making and mending streams
and consumers (`streams.py`), and one of the beat thread (`beats.py`), which is opened when needed.
A stream or consumer that vanishes is made anew by whoever misses it first.
"""

from __future__ import annotations

import asyncio
import inspect
import secrets
import ssl
from asyncio import Future
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from datetime import timedelta
from itertools import count

from permaflow.errors import BusError, BusUnavailableError
from pipeline import telemetry
from pipeline.bus import subjects
from pipeline.bus.beats import Beats
from pipeline.bus.link import Link
from pipeline.bus.port import Backlog, Channel
from pipeline.bus.publish import Publisher
from pipeline.bus.pull import TICK, Pull, Reader
from pipeline.bus.streams import ANCHOR_EVERY, Streams
from pipeline.telemetry import log

MEND_AGAIN = 0.25
CLOSE_TIMEOUT = 5.0


async def connect(
    url: str,
    *,
    name: str,
    streams: Mapping[str, str] = subjects.STREAMS,
    max_bytes: int = -1,
    replicas: int = 1,
    receipt_timeout: float = 5.0,
    tls: ssl.SSLContext | None = None,
) -> JetStreamBus:
    """Connect and make the streams. Several servers are given with commas; credentials are in the
    URL. Raises `BusUnavailableError` when no server takes us, `BusError` when JetStream refuses.
    """
    link = Link(url, name, tls)
    await link.open()
    made = Streams(url, name, streams, max_bytes=max_bytes, replicas=replicas, tls=tls)
    bus = JetStreamBus(link, made, Beats(url, name, tls), receipt_timeout)
    try:
        await bus.ensure_streams()
    except BusError:
        await bus.close()
        raise
    return bus


class JetStreamBus:
    """See `port.Bus`."""

    def __init__(self, link: Link, streams: Streams, beats: Beats, receipt_timeout: float) -> None:
        self.link = link
        self.streams = streams
        self.beats = beats
        self._prefix = f"_INBOX.{secrets.token_hex(8)}"
        self._inboxes = count()
        self._readers: set[Reader] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._mending = False
        self._publisher = Publisher(
            link, f"{self._prefix}.receipt", self._mend_streams, receipt_timeout
        )
        link.on_up.append(self._up)
        self._ticker = link.loop.call_later(TICK, self._tick)
        self._sent_before = 0
        self._anchors_at = link.loop.time()

    @property
    def connected(self) -> bool:
        return self.link.connected

    def send(self, subject: str, data: bytes, key: str | None = None) -> Future[None]:
        return self._publisher.send(subject, data, key)

    async def subscribe(self, channel: Channel, credit: int) -> Reader:
        return await self.subscribe_many((channel,), credit)

    async def subscribe_many(self, channels: Iterable[Channel], credit: int) -> Reader:
        reader = Reader(self, credit)
        self._readers.add(reader)
        try:
            await reader.add(*channels)
        except BusError:
            self._readers.discard(reader)
            raise
        return reader

    def ring(self, subject: str, data: bytes = b"") -> None:
        if len(data) <= self.link.max_payload:
            self.link.publish(self.link.encoded(subject), data)

    async def listen(
        self, subject: str, answer: Callable[[str, bytes], Awaitable[None] | None]
    ) -> Callable[[], Awaitable[None]]:
        def arrived(subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
            try:
                outcome = answer(subject.decode(), data)
            except Exception:
                log.exception(telemetry.BUS_LISTENER_FAILED, subject=subject.decode())
                return
            if inspect.iscoroutine(outcome):
                self._start(outcome)

        sid = self.link.subscribe(subject, arrived)
        try:
            await self.link.flushed()
        except BaseException:
            self.link.unsubscribe(sid)
            raise

        async def stop() -> None:
            self.link.unsubscribe(sid)
            try:
                await self.link.flushed()
            except BusUnavailableError:
                pass  # nobody rings any more

        return stop

    async def backlog(self, channel: Channel) -> Backlog:
        return await self.streams.backlog(channel)

    async def pause(self, channel: Channel, until: timedelta | None) -> None:
        await self.streams.pause(channel, until)

    async def channels(self, stream: str) -> list[str]:
        """The names of the channels that a stream has by now."""
        return await self.streams.channels(stream)

    async def ensure_streams(self) -> None:
        """Make the streams that are missing; set those that differ."""
        await self.streams.ensure()

    async def close(self) -> None:
        for reader in list(self._readers):
            await reader.close()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await self._publisher.drained()
        except TimeoutError:
            pass
        self._ticker.cancel()
        self._publisher.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.link.close()
        await self.streams.close()
        await asyncio.to_thread(self.beats.close)

    def new_inbox(self) -> str:
        return f"{self._prefix}.{next(self._inboxes)}"

    async def ensure(self, channel: Channel) -> int:
        return await self.streams.ensure_channel(channel)

    def forget(self, reader: Reader) -> None:
        self._readers.discard(reader)

    def mend(self, pull: Pull) -> None:
        self._start(self._mend(pull))

    async def _mend(self, pull: Pull) -> None:
        stream, channel = pull.channel.stream, pull.channel.name
        if self.link.loop.time() - pull.started_at < MEND_AGAIN:
            await asyncio.sleep(MEND_AGAIN)
        while pull.broken and not pull.closed:
            try:
                since = await self.streams.ensure_channel(pull.channel)
            except Exception as error:  # whatever it is, a reader must not go silent
                log.debug(telemetry.BUS_CHANNEL_MISSING, reason=str(error))
                await asyncio.sleep(MEND_AGAIN)
            else:
                if since != pull.known_since:
                    log.warning(telemetry.BUS_CHANNEL_MENDED, stream=stream, channel=channel)
                pull.known_since = since
                break
        if pull.broken and not pull.closed:
            pull.start()

    def _mend_streams(self) -> None:
        if not self._mending:
            self._mending = True
            self._start(self._mend_streams_now())

    async def _mend_streams_now(self) -> None:
        try:
            made = await self.streams.ensure()
        except Exception as error:  # whatever it is, it is tried again
            log.warning(telemetry.BUS_STREAMS_MISSING, reason=str(error))
        else:
            self._publisher.mended(made)
        # not at once: a subject that no stream owns would keep this going round
        await asyncio.sleep(MEND_AGAIN)
        self._mending = False
        if self._publisher.needs_mending():
            self._mend_streams()

    def _up(self) -> None:
        for reader in self._readers:
            reader.restart()

    def _tick(self) -> None:
        self._ticker = self.link.loop.call_later(TICK, self._tick)
        for reader in list(self._readers):
            reader.tick()
        now = self.link.loop.time()
        if (
            self._publisher.sent != self._sent_before
            and now >= self._anchors_at + ANCHOR_EVERY.total_seconds()
        ):
            self._sent_before = self._publisher.sent
            self._anchors_at = now
            self._start(self._renew_anchors())

    async def _renew_anchors(self) -> None:
        try:
            await self.streams.renew_anchors()
        except BusError:
            pass  # next time; whoever misses a stream makes it

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = self.link.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
