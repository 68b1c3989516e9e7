"""The bus when servers die, stores vanish and connections go silent."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import socket
import struct
from asyncio import Future
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta

import pytest

from permaflow.errors import BusError, BusUnavailableError
from pipeline.bus import jetstream, link, pull
from pipeline.bus.beats import Beats
from pipeline.bus.jetstream import JetStreamBus, connect
from pipeline.bus.port import Backlog, Channel, Subscription
from pipeline.embedded.stack import Stack
from tests.fix_bus import received
from tests.fix_servers import BACK_END

pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(BACK_END != "embedded", reason="PERMAFLOW_TEST_STACK is not embedded"),
]

STREAMS = {"T_ONE": "t.one.>"}
CHANNEL = Channel("T_ONE", "reader", "t.one.a", timedelta(seconds=1))
OTHER = Channel("T_ONE", "other", "t.one.b", timedelta(seconds=1))
SOON = 5.0
"""Progress again within five seconds of a fault is the promise."""


@pytest.fixture
async def stack(make_stack: Callable[..., Awaitable[Stack]]) -> Stack:
    return await make_stack("nats")


@asynccontextmanager
async def connected(stack: Stack, receipt_timeout: float = 5.0) -> AsyncIterator[JetStreamBus]:
    url = stack.nats_url
    assert url is not None
    bus = await connect(url, name="test", streams=STREAMS, receipt_timeout=receipt_timeout)
    try:
        yield bus
    finally:
        await bus.close()


@pytest.fixture
async def bus(stack: Stack) -> AsyncIterator[JetStreamBus]:
    async with connected(stack) as bus:
        yield bus


async def wipe(stack: Stack) -> None:
    """kill -9, and everything that JetStream had stored is gone."""
    server = stack.servers["nats"]
    await server.kill()
    shutil.rmtree(stack.data_dir / "nats" / "jetstream")
    await server.start()


async def manage(bus: JetStreamBus, what: str, *names: str) -> None:
    async with bus.streams._manager() as manager:
        await getattr(manager, what)(*names)


class Traffic:
    """Sends numbers all the time and notes which were confirmed; reads and notes which arrived."""

    def __init__(self, bus: JetStreamBus, reader: Subscription) -> None:
        self.bus = bus
        self.reader = reader
        self.sent = 0
        self.confirmed: set[int] = set()
        self.arrived: set[int] = set()
        self.failed = 0
        self.changed = asyncio.Event()
        self._stopping = False

    async def send(self) -> None:
        while not self._stopping:
            receipts = {self._send() for _ in range(20)}
            await asyncio.wait(receipts)

    def _send(self) -> Future[None]:
        number = self.sent
        self.sent += 1
        receipt = self.bus.send("t.one.a", b"%d" % number)

        def done(receipt: Future[None]) -> None:
            if receipt.exception() is None:
                self.confirmed.add(number)
            else:
                self.failed += 1

        receipt.add_done_callback(done)
        return receipt

    async def read(self) -> None:
        while messages := await self.reader.batch():
            for message in messages:
                self.arrived.add(int(message.data))
                message.ack()
                self.reader.release()
            self.changed.set()

    async def more(self, count: int = 200) -> None:
        """Wait until so many more have arrived."""
        goal = len(self.arrived) + count
        await self.until(lambda: len(self.arrived) >= goal)

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(SOON):
            while not reached():
                self.changed.clear()
                await self.changed.wait()

    def stop(self) -> None:
        self._stopping = True


@asynccontextmanager
async def traffic(bus: JetStreamBus) -> AsyncIterator[Traffic]:
    it = Traffic(bus, await bus.subscribe(CHANNEL, 100))
    tasks = [asyncio.create_task(it.send()), asyncio.create_task(it.read())]
    try:
        await it.more()
        yield it
    finally:
        it.stop()
        await it.reader.close()
        await asyncio.gather(*tasks)


async def test_a_server_killed_mid_traffic_loses_no_confirmed_message_and_no_send_fails(
    stack: Stack, bus: JetStreamBus
) -> None:
    async with traffic(bus) as it:
        for _ in range(3):
            await stack.servers["nats"].kill()
            await stack.servers["nats"].start()
            await it.more()
        it.stop()
        await it.until(lambda: it.confirmed <= it.arrived and len(it.confirmed) == it.sent)
        assert it.failed == 0


async def test_what_a_volatile_channel_had_out_comes_at_once_after_a_restart_and_says_so(
    stack: Stack, bus: JetStreamBus
) -> None:
    channel = Channel("T_ONE", "volatile", "t.one.v", timedelta(minutes=1), volatile=True)
    lasting = Channel("T_ONE", "lasting", "t.one.w")
    reader = await bus.subscribe_many((channel, lasting), 100)
    for number in range(3):
        await bus.send("t.one.v", b"%d" % number)
    first = await received(reader, 3, SOON)
    assert [message.again for message in first] == [False] * 3
    await stack.servers["nats"].kill()
    kept = {path.parent.name for path in stack.data_dir.rglob("obs/*/meta.inf")}
    assert kept == {"lasting"}
    await stack.servers["nats"].start()
    again = await received(reader, 3, SOON)
    assert sorted(message.data for message in again) == [b"0", b"1", b"2"]
    assert [(message.deliveries, message.again) for message in again] == [(1, True)] * 3
    for message in again:
        message.ack()
    await bus.send("t.one.v", b"new")
    (new,) = await received(reader, 1, SOON)
    assert (new.data, new.again) == (b"new", False)


async def test_a_volatile_channel_that_somebody_else_made_again_says_so(stack: Stack) -> None:
    channel = Channel("T_ONE", "volatile", "t.one.v", timedelta(minutes=1), volatile=True)
    async with connected(stack) as one, connected(stack) as two:
        reader = await one.subscribe(channel, 10)
        await one.send("t.one.v", b"out")
        (first,) = await received(reader, 1, SOON)
        assert not first.again
        await manage(two, "delete_consumer", "T_ONE", "volatile")
        await two.ensure(channel)
        (again,) = await received(reader, 1, SOON)
        assert (again.again, again.data) == (True, b"out")
        again.ack()


async def test_two_who_make_a_channel_volatile_at_once_do_not_mind(stack: Stack) -> None:
    volatile = replace(CHANNEL, volatile=True)
    async with connected(stack) as one, connected(stack) as two:
        for _ in range(10):
            await one.ensure(CHANNEL)
            await asyncio.gather(one.ensure(volatile), two.ensure(volatile))


async def test_a_channel_becomes_volatile_without_losing_what_waits(bus: JetStreamBus) -> None:
    await (await bus.subscribe(CHANNEL, 10)).close()
    await bus.send("t.one.a", b"waits")
    reader = await bus.subscribe(replace(CHANNEL, volatile=True), 10)
    (message,) = await received(reader, 1, SOON)
    assert message.data == b"waits"
    message.ack()
    async with bus.streams._manager() as manager:
        info = await manager.consumer_info("T_ONE", "reader")
    assert info.config.mem_storage


async def test_traffic_goes_on_after_the_store_was_removed(stack: Stack, bus: JetStreamBus) -> None:
    async with traffic(bus) as it:
        await wipe(stack)
        await it.more(500)
        assert it.failed == 0


async def test_traffic_goes_on_after_the_stream_was_deleted(bus: JetStreamBus) -> None:
    async with traffic(bus) as it:
        for _ in range(3):
            async with asyncio.timeout(5):
                await manage(bus, "delete_stream", "T_ONE")
                await it.more()
        assert it.failed == 0


async def test_traffic_goes_on_after_the_consumer_was_deleted(bus: JetStreamBus) -> None:
    async with traffic(bus) as it:
        async with asyncio.timeout(5):
            await manage(bus, "delete_consumer", "T_ONE", CHANNEL.name)
            await it.more()
        it.stop()
        await it.until(lambda: it.confirmed <= it.arrived and len(it.confirmed) == it.sent)


async def test_an_idle_reader_survives_the_removal_of_everything(
    stack: Stack, bus: JetStreamBus
) -> None:
    reader = await bus.subscribe_many((CHANNEL, OTHER), 10)
    await wipe(stack)
    async with connected(stack) as second:
        for subject in ("t.one.a", "t.one.b"):
            await second.send(subject, b"")
        seen: set[str] = set()
        async with asyncio.timeout(SOON):
            while len(seen) < 2:
                seen |= {message.subject for message in await reader.batch()}


async def test_what_is_sent_while_the_server_is_away_arrives_as_soon_as_it_is_back(
    stack: Stack, bus: JetStreamBus
) -> None:
    on_the_way = [bus.send("t.one.a", b"%d" % number) for number in range(100)]
    await stack.servers["nats"].kill()
    async with asyncio.timeout(SOON):
        while bus.connected:  # noqa: ASYNC110 - the bus notices by itself, in a turn of the loop
            await asyncio.sleep(0)
    meanwhile = [bus.send("t.one.a", b"%d" % number) for number in range(100)]
    await stack.servers["nats"].start()
    async with asyncio.timeout(2):  # less than the time after which a lost receipt is asked for
        await asyncio.gather(*on_the_way, *meanwhile)
    assert (await bus.backlog(CHANNEL)).pending >= 200


async def test_who_only_sends_makes_a_deleted_stream_again(bus: JetStreamBus) -> None:
    await bus.send("t.one.a", b"1")
    await manage(bus, "delete_stream", "T_ONE")
    async with asyncio.timeout(2):
        await asyncio.gather(*(bus.send("t.one.a", b"2") for _ in range(50)))
    assert (await bus.backlog(CHANNEL)).pending == 50


async def test_a_receipt_that_got_lost_is_asked_for_again(stack: Stack) -> None:
    async with connected(stack, receipt_timeout=1.0) as bus:
        deliver = bus.link.handlers.copy()
        [sid] = [sid for sid, subject in bus.link._subjects.items() if b"receipt" in subject]
        lost = asyncio.Event()

        def lose(subject: bytes, reply: bytes, headers: bytes, data: bytes) -> None:
            bus.link.handlers[sid] = deliver[sid]
            lost.set()

        bus.link.handlers[sid] = lose
        await bus.send("t.one.a", b"1", key="1")
        assert lost.is_set()
        assert (await bus.backlog(CHANNEL)).pending == 1


async def test_a_send_into_a_dead_server_fails_within_its_timeout(stack: Stack) -> None:
    async with connected(stack, receipt_timeout=0.5) as bus:
        await stack.servers["nats"].kill()
        async with asyncio.timeout(3):
            with pytest.raises(BusUnavailableError):
                await bus.send("t.one.a", b"")
            with pytest.raises(BusError):
                await bus.backlog(CHANNEL)
        assert not bus.connected


async def test_closing_while_the_server_is_away_does_not_hang(stack: Stack) -> None:
    async with connected(stack, receipt_timeout=0.5) as bus:
        await bus.subscribe(CHANNEL, 10)
        await stack.servers["nats"].kill()
        bus.send("t.one.a", b"").add_done_callback(lambda receipt: receipt.exception())
        async with asyncio.timeout(5):
            await bus.close()


async def test_a_pull_that_the_server_forgot_is_found_by_its_silence(
    bus: JetStreamBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "HEARTBEAT", 500_000_000)
    monkeypatch.setattr(jetstream, "TICK", 0.4)
    async with connected_again(bus) as second:
        reader = await second.subscribe(CHANNEL, 10)
        await bus.send("t.one.a", b"1")
        [message] = await asyncio.wait_for(reader.batch(), SOON)
        message.ack()
        # behind the reader's back, as a server that lost the request would
        for sid in [
            sid for sid, subject in second.link._subjects.items() if b"receipt" not in subject
        ]:
            second.link.write(b"UNSUB %b\r\n" % sid)
        await second.link.flushed()
        await bus.send("t.one.a", b"2")
        [message] = await asyncio.wait_for(reader.batch(), SOON)
        assert message.data == b"2"


@asynccontextmanager
async def connected_again(bus: JetStreamBus) -> AsyncIterator[JetStreamBus]:
    second = await connect(bus.link.servers[0], name="second", streams=STREAMS)
    try:
        yield second
    finally:
        await second.close()


async def test_a_heartbeat_of_an_idle_channel_keeps_its_pull(
    bus: JetStreamBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "HEARTBEAT", 500_000_000)
    monkeypatch.setattr(jetstream, "TICK", 0.4)
    mended: list[str] = []
    async with connected_again(bus) as second:
        monkeypatch.setattr(second, "mend", lambda pull: mended.append(pull.channel.name))
        reader = await second.subscribe(CHANNEL, 10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.batch(), 3)
    assert mended == []


async def test_a_server_that_hangs_is_noticed_and_left(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "PING_EVERY", 0.3)
    async with connected(stack, receipt_timeout=20) as bus:
        reader = await bus.subscribe(CHANNEL, 10)
        gone = asyncio.Event()
        up = asyncio.Event()
        bus.link.on_up.append(up.set)
        pid = stack.servers["nats"].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            assert bus.link._socket is not None
            bus.link._socket.lost.add_done_callback(lambda _: gone.set())
            await asyncio.wait_for(gone.wait(), 5)
        finally:
            os.kill(pid, signal.SIGCONT)
        await asyncio.wait_for(up.wait(), SOON)
        await bus.send("t.one.a", b"")
        assert len(await asyncio.wait_for(reader.batch(), SOON)) == 1


async def test_beats_go_on_after_the_server_was_restarted(stack: Stack, bus: JetStreamBus) -> None:
    channel = Channel("T_ONE", "patient", "t.one.c", timedelta(seconds=2))
    reader = await bus.subscribe(channel, 1)
    await bus.send("t.one.c", b"long work")
    [message] = await asyncio.wait_for(reader.batch(), SOON)
    message.keep()
    await asyncio.to_thread(bus.beats.say, b"warm")  # its connection is there before the fault
    await stack.servers["nats"].stop()
    await stack.servers["nats"].start()
    async with connected(stack) as second:
        other = await second.subscribe(channel, 10)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(other.batch(), 5)
        message.ack()
        async with asyncio.timeout(SOON):
            while await second.backlog(channel) != Backlog(0, 0):
                pass


async def test_beats_leave_a_server_that_hangs_up_for_one_that_does_not(stack: Stack) -> None:
    """What is left of the first connection would fail the test as a warning."""
    with socket.create_server(("127.0.0.1", 0)) as rude:
        calls = []

        def hang_up() -> None:
            caller, _ = rude.accept()
            calls.append(caller)
            reset = struct.pack("ii", 1, 0)
            caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
            caller.close()

        answering = asyncio.create_task(asyncio.to_thread(hang_up))
        port = rude.getsockname()[1]
        beats = Beats(f"nats://127.0.0.1:{port},{stack.nats_url}", "test")
        heard = asyncio.Event()
        try:
            async with connected(stack) as bus:
                stop = await bus.listen("t.beat", lambda *_: heard.set())
                beats.say(b"t.beat")
                await asyncio.wait_for(heard.wait(), SOON)
                await stop()
            await answering
        finally:
            await asyncio.to_thread(beats.close)
    gc.collect()
    assert len(calls) == 1


async def test_a_server_that_talks_nonsense_is_left_for_one_that_does_not(stack: Stack) -> None:
    async def nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(nonsense, "127.0.0.1", 0, family=socket.AF_INET)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(BusUnavailableError):
            await connect(f"nats://127.0.0.1:{port}", name="test")
        lasting = link.Link(f"nats://127.0.0.1:{port},{stack.nats_url}", "test")
        await lasting.open()
        assert lasting.connected
        await lasting.close()
