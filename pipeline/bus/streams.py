"""Streams and consumers: making, mending and asking about them, through nats-py.

This is the slow side of the bus. It has a connection of its own, opened when it is needed and
opened anew after any failure, so that nothing stale survives a restart of the server.

Every stream holds one message that nobody reads, its anchor. Without it the server throws away the
stream's file and makes a new one whenever the last message is acked, which in an idle system is
after every message: 0.4 to 1.1 ms of server CPU for one that takes 0.24 ms otherwise, and a third
of the latency of a hop (nats-server 2.15). The anchor is renewed while there is traffic, because
the server remembers what was removed since the oldest message.

What the server knows of the readers of a channel it writes into a new file ten times a second, and
renames that: for sixteen busy channels half of its work. Of a volatile channel it writes nothing.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta

import nats
import nats.errors
from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import APIError, NotFoundError, ServiceUnavailableError

from permaflow.errors import BusError, BusUnavailableError
from pipeline.bus.link import credentials
from pipeline.bus.port import Backlog, Channel

REQUEST_TIMEOUT = 2.0
DUPLICATE_WINDOW = timedelta(minutes=2)
ANCHOR = "anchor.nobody.reads"
"""The end of an anchor's subject: longer than what any channel matches."""
ANCHOR_EVERY = timedelta(seconds=10)
NAME_IN_USE = 10058
"""JetStream's code for "a stream of this name exists with another configuration"."""


class Streams:
    """The streams of one installation: `owned` maps a stream to the subjects it owns.

    `max_bytes` is how large one stream may grow before it refuses messages; -1 for no limit of its
    own. `replicas` is 1 on a single server and 3 on a cluster.
    """

    def __init__(
        self,
        servers: str,
        name: str,
        owned: Mapping[str, str],
        *,
        max_bytes: int = -1,
        replicas: int = 1,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.servers = [url.strip() for url in servers.split(",") if url.strip()]
        self.name = name
        self.owned = owned
        self.max_bytes = max_bytes
        self.replicas = replicas
        self.tls = tls
        self._client: Client | None = None
        self._lock = asyncio.Lock()

    async def ensure(self) -> bool:
        """Make the streams or set them as they should be; whether one had to be made."""
        async with self._manager() as manager:
            return any([await self._ensure(manager, stream) for stream in self.owned])

    async def renew_anchors(self) -> None:
        """Put a new anchor into every stream and take out the old one."""
        async with self._manager() as manager:
            for stream in self.owned:
                await self._anchor(manager, stream)

    async def ensure_channel(self, channel: Channel) -> int:
        """Make the channel's stream and consumer if they are not there. A pause is kept.

        Gives since when the server knows who has what, in nanoseconds since 1970.
        """
        async with self._manager() as manager:
            info = await self._ensure_consumer(manager, channel)
        return int(info.created.timestamp() * 1_000_000) * 1_000

    async def backlog(self, channel: Channel) -> Backlog:
        """What waits; a channel that does not exist yet is made, so that the answer is true."""
        async with self._manager() as manager:
            try:
                info = await manager.consumer_info(channel.stream, channel.name)
            except NotFoundError:
                await self._ensure_consumer(manager, channel)
                info = await manager.consumer_info(channel.stream, channel.name)
        return Backlog(info.num_pending or 0, info.num_ack_pending or 0, bool(info.paused))

    async def pause(self, channel: Channel, until: timedelta | None) -> None:
        async with self._manager() as manager:
            await self._ensure_consumer(manager, channel)
            if until is None:
                await manager.resume_consumer(channel.stream, channel.name)
                return
            moment = (datetime.now(UTC) + until).isoformat().replace("+00:00", "Z")
            await manager.pause_consumer(channel.stream, channel.name, moment)

    async def channels(self, stream: str) -> list[str]:
        """The names of the channels that a stream has by now."""
        async with self._manager() as manager:
            found = await manager.consumers_info(stream)
        return [info.name for info in found if info.name]

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _ensure(self, manager: JetStreamContext, stream: str) -> bool:
        if stream not in self.owned:
            raise BusError(f"The stream {stream} is not one of {', '.join(self.owned)}.")
        config = StreamConfig(
            name=stream,
            subjects=[self.owned[stream]],
            retention=RetentionPolicy.WORK_QUEUE,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=self.max_bytes,
            duplicate_window=DUPLICATE_WINDOW.total_seconds(),
            allow_direct=False,
            num_replicas=self.replicas,
        )
        try:
            info = await manager.add_stream(config)
        except APIError as error:
            if error.err_code != NAME_IN_USE:
                raise
            info = await manager.update_stream(config)
        await self._anchor(manager, stream)
        return bool(info.did_create)

    async def _anchor(self, manager: JetStreamContext, stream: str) -> None:
        owned = self.owned[stream]
        if not owned.endswith(".>"):
            return
        subject = owned.removesuffix(">") + ANCHOR
        # all processes renew in the same slot, and the first one does it for all
        slot = int(time.time() // ANCHOR_EVERY.total_seconds())
        await manager.publish(subject, headers={"Nats-Msg-Id": f"{stream} anchor {slot}"})
        await manager.purge_stream(stream, subject=subject, keep=1)

    async def _ensure_consumer(self, manager: JetStreamContext, channel: Channel) -> ConsumerInfo:
        try:
            info: ConsumerInfo = await manager.consumer_info(channel.stream, channel.name)
        except NotFoundError:
            await self._ensure(manager, channel.stream)
        else:
            if bool(info.config.mem_storage) != channel.volatile:  # the one option that stays
                with suppress(NotFoundError):  # somebody else was faster
                    await manager.delete_consumer(channel.stream, channel.name)
            elif _is_as_wanted(info, channel):
                return info
        made: ConsumerInfo = await manager.add_consumer(channel.stream, _consumer(channel))
        return made

    @asynccontextmanager
    async def _manager(self) -> AsyncIterator[JetStreamContext]:
        async with self._lock:
            try:
                yield JetStreamContext(await self._connected(), timeout=REQUEST_TIMEOUT)
            except APIError as error:
                if isinstance(error, ServiceUnavailableError):
                    await self.close()
                    raise BusUnavailableError(
                        f"JetStream is not available: {error.description or 'no answer'}."
                    ) from error
                raise BusError(f"JetStream refused: {error.description}.") from error
            except (nats.errors.Error, OSError, TimeoutError) as error:
                await self.close()
                reason = str(error) or type(error).__name__
                raise BusUnavailableError(f"NATS cannot be reached: {reason}.") from error

    async def _connected(self) -> Client:
        if self._client is not None and self._client.is_connected:
            return self._client
        await self.close()
        login = credentials(self.servers[0]) if self.servers else {}
        self._client = await nats.connect(
            self.servers,
            name=f"{self.name} streams",
            allow_reconnect=False,
            max_reconnect_attempts=1,
            reconnect_time_wait=0,
            connect_timeout=2,
            error_cb=_ignore,
            tls=self.tls,
            user=login.get("user"),
            password=login.get("pass"),
            token=login.get("auth_token"),
        )
        return self._client


def _consumer(channel: Channel) -> ConsumerConfig:
    return ConsumerConfig(
        durable_name=channel.name,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=channel.ack_wait.total_seconds(),
        max_deliver=-1,
        max_ack_pending=channel.max_ack_pending,
        filter_subject=channel.subject,
        mem_storage=channel.volatile,
    )


def _is_as_wanted(info: ConsumerInfo, channel: Channel) -> bool:
    config = info.config
    return (
        config.ack_wait == channel.ack_wait.total_seconds()
        and config.max_ack_pending == channel.max_ack_pending
        and config.filter_subject == channel.subject
    )


async def _ignore(error: Exception) -> None:
    """The request that failed raises; nats-py would log the same a second time."""
