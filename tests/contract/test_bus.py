"""What every bus promises, over JetStream on a real server. Faults: tests/faults/test_bus.py."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta

import pytest

from permaflow.errors import BusError, BusUnavailableError, MessageTooLargeError
from pipeline.bus.jetstream import JetStreamBus, connect
from pipeline.bus.port import Backlog, Bus, Channel
from pipeline.bus.subjects import done_channel, inbox_channel, step_channel
from tests.fix_bus import received

pytestmark = pytest.mark.service

STREAMS = {"T_ONE": "t.one.>", "T_TWO": "t.two.>"}
CHANNEL = Channel("T_ONE", "reader", "t.one.a.*", timedelta(minutes=1))
OTHER = Channel("T_ONE", "other", "t.one.b.*")
THIRD = Channel("T_TWO", "third", "t.two.*")
IMPATIENT = Channel("T_ONE", "impatient", "t.one.c.*", timedelta(seconds=0.5))
SOON = 10.0

Connect = Callable[[], Awaitable[JetStreamBus]]


@pytest.fixture
async def connected(nats_url: str) -> AsyncIterator[Connect]:
    """Connects as often as it is called, with short receipts; closes all after the test."""
    made: list[JetStreamBus] = []

    async def make() -> JetStreamBus:
        made.append(await connect(nats_url, name="test", streams=STREAMS, receipt_timeout=2.0))
        return made[-1]

    yield make
    for bus in made:
        await bus.close()


@pytest.fixture
async def bus(connected: Connect) -> JetStreamBus:
    return await connected()


async def becomes(bus: Bus, channel: Channel, wanted: Backlog) -> None:
    """Acks are not awaited, so the server may be asked a moment too early."""
    seen = None
    try:
        async with asyncio.timeout(SOON):
            while (seen := await bus.backlog(channel)) != wanted:
                pass
    except TimeoutError:
        pytest.fail(f"the backlog stays {seen}, not {wanted}")


async def test_a_sent_message_arrives_and_its_ack_removes_it(bus: Bus) -> None:
    reader = await bus.subscribe(CHANNEL, 10)
    await bus.send("t.one.a.x", b"hello")
    [message] = await received(reader, 1)
    assert (message.subject, message.data, message.deliveries) == ("t.one.a.x", b"hello", 1)
    await becomes(bus, CHANNEL, Backlog(0, 1))
    message.ack()
    await becomes(bus, CHANNEL, Backlog(0, 0))


async def test_what_was_sent_before_anybody_read_is_delivered(bus: Bus) -> None:
    for number in range(5):
        await bus.send("t.one.a.x", b"%d" % number)
    reader = await bus.subscribe(CHANNEL, 10)
    assert {message.data for message in await received(reader, 5)} == {b"0", b"1", b"2", b"3", b"4"}


async def test_two_readers_of_a_channel_share_its_messages(connected: Connect) -> None:
    first, second = await connected(), await connected()
    readers = [await bus.subscribe(CHANNEL, 20) for bus in (first, second)]
    await asyncio.gather(*(first.send("t.one.a.x", b"%d" % number) for number in range(200)))
    seen: list[list[bytes]] = [[], []]

    async def read(index: int) -> None:
        while sum(map(len, seen)) < 200:
            for message in await readers[index].batch():
                seen[index].append(message.data)
                message.ack()
                readers[index].release()
        for reader in readers:
            await reader.close()

    async with asyncio.timeout(SOON):
        await asyncio.gather(read(0), read(1))
    assert sorted(seen[0] + seen[1]) == sorted(b"%d" % number for number in range(200))
    assert seen[0]
    assert seen[1]


async def test_a_key_is_stored_once_and_both_senders_get_a_receipt(bus: Bus) -> None:
    await asyncio.gather(*(bus.send("t.one.a.x", b"same", key="k1") for _ in range(3)))
    await bus.send("t.one.a.x", b"another", key="k2")
    assert await bus.backlog(CHANNEL) == Backlog(2, 0)


async def test_a_message_with_a_key_arrives_whole(bus: Bus) -> None:
    reader = await bus.subscribe(CHANNEL, 10)
    await bus.send("t.one.a.x", b"body", key="k")
    [message] = await received(reader, 1)
    assert (message.data, message.deliveries) == (b"body", 1)


async def test_without_a_key_every_send_is_stored(bus: Bus) -> None:
    await asyncio.gather(*(bus.send("t.one.a.x", b"same") for _ in range(3)))
    assert await bus.backlog(CHANNEL) == Backlog(3, 0)


async def test_a_nak_delivers_again_but_not_before_its_delay(bus: Bus) -> None:
    reader = await bus.subscribe(CHANNEL, 10)
    await bus.send("t.one.a.x", b"again")
    [message] = await received(reader, 1)
    began = time.monotonic()
    message.nak(timedelta(seconds=0.4))
    reader.release()
    [message] = await received(reader, 1)
    assert message.deliveries == 2
    assert 0.35 <= time.monotonic() - began < 2.0


async def test_a_terminated_message_is_gone(bus: Bus) -> None:
    reader = await bus.subscribe(CHANNEL, 10)
    await bus.send("t.one.a.x", b"\xff")
    [message] = await received(reader, 1)
    message.term()
    await becomes(bus, CHANNEL, Backlog(0, 0))


async def test_a_message_that_is_never_acked_is_delivered_to_somebody_else(
    connected: Connect,
) -> None:
    first, second = await connected(), await connected()
    reader = await first.subscribe(IMPATIENT, 1)
    await first.send("t.one.c.x", b"left lying")
    await received(reader, 1)
    [message] = await received(await second.subscribe(IMPATIENT, 1), 1)
    assert message.deliveries == 2


async def test_a_kept_message_is_not_delivered_again_while_the_loop_is_blocked(
    connected: Connect,
) -> None:
    first, second = await connected(), await connected()
    reader = await first.subscribe(IMPATIENT, 1)
    await first.send("t.one.c.x", b"long work")
    [message] = await received(reader, 1)
    message.keep()
    other = await second.subscribe(IMPATIENT, 10)
    time.sleep(2.0)  # noqa: ASYNC251 - user code that forgot that it runs in an event loop
    await first.send("t.one.c.x", b"next")
    [seen] = await received(other, 1)
    assert seen.data == b"next"
    seen.ack()
    message.ack()
    await becomes(first, IMPATIENT, Backlog(0, 0))


async def test_beats_start_again_after_a_long_time_without_work(connected: Connect) -> None:
    first, second = await connected(), await connected()
    reader = await first.subscribe(IMPATIENT, 1)
    for data in (b"1", b"2"):
        await first.send("t.one.c.x", data)
        [message] = await received(reader, 1)
        message.keep()
        if data == b"1":
            message.ack()
            reader.release()
            async with asyncio.timeout(SOON):
                while not first.beats._asleep:
                    await first.link.flushed()
    other = await second.subscribe(IMPATIENT, 1)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(other.batch(), 1.5)


async def test_beats_do_not_mind_how_many_files_are_open(connected: Connect) -> None:
    first, second = await connected(), await connected()
    reader = await first.subscribe(IMPATIENT, 1)
    await first.send("t.one.c.x", b"work")
    [message] = await received(reader, 1)
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1_100)]
    try:
        message.keep()
        other = await second.subscribe(IMPATIENT, 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(other.batch(), 1.5)
    finally:
        for descriptor in taken:
            os.close(descriptor)


async def test_a_kept_message_is_delivered_again_once_it_is_given_back(bus: Bus) -> None:
    reader = await bus.subscribe(IMPATIENT, 1)
    await bus.send("t.one.c.x", b"work")
    [message] = await received(reader, 1)
    message.keep()
    message.nak(timedelta())
    reader.release()
    [message] = await received(reader, 1)
    assert message.deliveries == 2


async def test_hold_from_another_thread_starts_the_ack_wait_anew(connected: Connect) -> None:
    first, second = await connected(), await connected()
    reader = await first.subscribe(IMPATIENT, 1)
    await first.send("t.one.c.x", b"work")
    [message] = await received(reader, 1)
    other = await second.subscribe(IMPATIENT, 10)
    stop = threading.Event()

    def hold() -> None:
        while not stop.wait(0.1):
            message.hold()

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(other.batch(), 1.5)
    finally:
        stop.set()
        holder.join()
    [again] = await received(other, 1)
    assert again.deliveries == 2


async def test_no_more_messages_are_out_than_there_is_credit(bus: Bus) -> None:
    reader = await bus.subscribe(CHANNEL, 3)
    await asyncio.gather(*(bus.send("t.one.a.x", b"") for _ in range(10)))
    messages = await received(reader, 3)
    assert await bus.backlog(CHANNEL) == Backlog(7, 3)
    for message in messages[:2]:
        message.ack()
    reader.release(2)
    assert len(await received(reader, 2)) == 2
    await becomes(bus, CHANNEL, Backlog(5, 3))


async def test_one_credit_reads_one_message_after_the_other(bus: Bus) -> None:
    reader = await bus.subscribe(CHANNEL, 1)
    await asyncio.gather(*(bus.send("t.one.a.x", b"%d" % number) for number in range(20)))
    for _ in range(20):
        [message] = await received(reader, 1)
        message.ack()
        reader.release()
    await becomes(bus, CHANNEL, Backlog(0, 0))


async def test_a_large_backlog_flows_through_a_small_credit(bus: Bus) -> None:
    await asyncio.gather(*(bus.send("t.one.a.x", b"%d" % number) for number in range(5000)))
    reader = await bus.subscribe(CHANNEL, 64)
    seen = set()
    async with asyncio.timeout(SOON):
        while len(seen) < 5000:
            for message in await reader.batch():
                seen.add(message.data)
                message.ack()
                reader.release()
    await becomes(bus, CHANNEL, Backlog(0, 0))


async def test_several_channels_are_read_into_one_batch(bus: Bus) -> None:
    reader = await bus.subscribe_many((CHANNEL, OTHER, THIRD), 9)
    subjects = {"t.one.a.x", "t.one.b.x", "t.two.x"}
    for subject in subjects:
        await bus.send(subject, b"")
    assert {message.subject for message in await received(reader, 3)} == subjects


async def test_a_channel_added_to_a_reader_that_waits_is_read(bus: Bus) -> None:
    reader = await bus.subscribe(CHANNEL, 4)
    waiting = asyncio.create_task(received(reader, 1))
    await reader.add(OTHER)
    await bus.send("t.one.b.x", b"")
    assert [message.subject for message in await waiting] == ["t.one.b.x"]


async def test_a_reader_of_no_channel_waits_until_one_is_added(bus: Bus) -> None:
    reader = await bus.subscribe_many((), 4)
    await bus.send("t.one.a.x", b"")
    waiting = asyncio.create_task(received(reader, 1))
    await reader.add(CHANNEL)
    assert [message.subject for message in await waiting] == ["t.one.a.x"]


async def test_a_removed_channel_leaves_its_messages_to_others(connected: Connect) -> None:
    first, second = await connected(), await connected()
    reader = await first.subscribe_many((CHANNEL, OTHER), 20)
    await asyncio.gather(*(first.send("t.one.a.x", b"") for _ in range(5)))
    await becomes(first, CHANNEL, Backlog(0, 5))  # prefetched, and handed to nobody
    await reader.remove(CHANNEL)
    messages = await received(await second.subscribe(CHANNEL, 20), 5)
    assert len(messages) == 5
    await first.send("t.one.b.x", b"")
    assert [message.subject for message in await received(reader, 1)] == ["t.one.b.x"]


async def test_messages_on_the_way_to_a_removed_channel_go_to_others(connected: Connect) -> None:
    first, second = await connected(), await connected()
    reader = await first.subscribe(CHANNEL, 20)
    await first.link.flushed()
    receipts = [first.send("t.one.a.x", b"") for _ in range(5)]
    await asyncio.sleep(0)  # they leave
    time.sleep(0.3)  # noqa: ASYNC251 - and come back into a socket that nobody reads yet
    await reader.remove(CHANNEL)
    await asyncio.gather(*receipts)
    messages = await received(await second.subscribe(CHANNEL, 20), 5)
    assert [message.deliveries for message in messages] == [2] * 5


async def test_with_less_credit_than_channels_every_channel_is_still_read(bus: Bus) -> None:
    channels = [Channel("T_ONE", f"p{number}", f"t.one.p.{number}") for number in range(6)]
    reader = await bus.subscribe_many(channels, 2)
    for _ in range(3):
        for channel in channels:
            await bus.send(channel.subject, b"")
    seen: list[str] = []
    async with asyncio.timeout(SOON):
        while len(seen) < 18:
            for message in await reader.batch():
                seen.append(message.subject)
                message.ack()
                reader.release()
    assert sorted(seen) == sorted(channel.subject for channel in channels for _ in range(3))


async def test_closing_a_reader_ends_its_batch_and_gives_back_what_it_had_prefetched(
    connected: Connect,
) -> None:
    first, second = await connected(), await connected()
    reader = await first.subscribe(CHANNEL, 10)
    idle = await first.subscribe(OTHER, 10)
    waiting = asyncio.create_task(idle.batch())
    await first.send("t.one.a.x", b"")
    await becomes(first, CHANNEL, Backlog(0, 1))
    await idle.close()
    await reader.close()
    assert await asyncio.wait_for(waiting, SOON) == []
    assert await reader.batch() == []
    assert len(await received(await second.subscribe(CHANNEL, 1), 1)) == 1


async def test_a_message_handed_out_may_be_acked_after_its_reader_was_closed(bus: Bus) -> None:
    reader = await bus.subscribe(CHANNEL, 10)
    await bus.send("t.one.a.x", b"")
    [message] = await received(reader, 1)
    await reader.close()
    message.ack()
    await becomes(bus, CHANNEL, Backlog(0, 0))


async def test_a_ring_reaches_every_listener_until_it_stops(connected: Connect) -> None:
    first, second = await connected(), await connected()
    heard: asyncio.Queue[tuple[str, str, bytes]] = asyncio.Queue()

    async def slowly(subject: str, data: bytes) -> None:
        await heard.put(("second", subject, data))

    stop = await first.listen(
        "bell.*", lambda subject, data: heard.put_nowait(("first", subject, data))
    )
    await second.listen("bell.>", slowly)
    first.ring("bell.x", b"1")
    async with asyncio.timeout(SOON):
        assert {await heard.get(), await heard.get()} == {
            ("first", "bell.x", b"1"),
            ("second", "bell.x", b"1"),
        }
        await stop()
        second.ring("bell.x", b"2")
        first.ring("bell.x", b"3")
        assert {await heard.get(), await heard.get()} == {
            ("second", "bell.x", b"2"),
            ("second", "bell.x", b"3"),
        }


async def test_a_listener_that_raises_hears_the_next_ring(bus: Bus) -> None:
    heard: asyncio.Queue[bytes] = asyncio.Queue()

    def answer(subject: str, data: bytes) -> None:
        if data == b"bad":
            raise ValueError("cannot read this")
        heard.put_nowait(data)

    await bus.listen("bell", answer)
    bus.ring("bell", b"bad")
    bus.ring("bell", b"good")
    assert await asyncio.wait_for(heard.get(), SOON) == b"good"


async def test_who_cannot_listen_now_is_not_listened_for_later(connected: Connect) -> None:
    bus = await connected()
    await bus.close()
    kept = set(bus.link.handlers)
    with pytest.raises(BusUnavailableError):
        await bus.listen("bell", lambda _subject, _data: None)
    assert set(bus.link.handlers) == kept


async def test_a_paused_channel_delivers_nothing_until_it_is_resumed(bus: Bus) -> None:
    reader = await bus.subscribe(CHANNEL, 10)
    await bus.pause(CHANNEL, timedelta(minutes=5))
    await bus.send("t.one.a.x", b"")
    assert await bus.backlog(CHANNEL) == Backlog(1, 0, paused=True)
    await bus.pause(CHANNEL, None)
    assert len(await received(reader, 1)) == 1
    assert not (await bus.backlog(CHANNEL)).paused


async def test_a_new_reader_does_not_resume_a_paused_channel(connected: Connect) -> None:
    first, second = await connected(), await connected()
    await first.pause(CHANNEL, timedelta(minutes=5))
    changed = Channel(CHANNEL.stream, CHANNEL.name, CHANNEL.subject, timedelta(seconds=7))
    await second.subscribe(changed, 10)
    await first.send("t.one.a.x", b"")
    assert await first.backlog(CHANNEL) == Backlog(1, 0, paused=True)


async def test_a_message_too_large_is_refused_at_once_and_the_bus_lives_on(
    connected: Connect,
) -> None:
    bus = await connected()
    with pytest.raises(MessageTooLargeError):
        bus.send("t.one.a.x", b"x" * (bus.link.max_payload + 1))
    await bus.send("t.one.a.x", b"x" * bus.link.max_payload)
    [message] = await received(await bus.subscribe(CHANNEL, 1), 1)
    assert len(message.data) == bus.link.max_payload


async def test_a_subject_that_no_stream_owns_fails_within_the_timeout(bus: Bus) -> None:
    began = time.monotonic()
    with pytest.raises(BusUnavailableError, match="no stream owns the subject"):
        await bus.send("nowhere.x", b"")
    assert time.monotonic() - began < 4.0


async def test_more_sends_than_fit_under_way_all_get_their_receipts(bus: Bus) -> None:
    receipts = [bus.send("t.one.a.x", b"") for _ in range(12_000)]
    async with asyncio.timeout(30):
        await asyncio.gather(*receipts)
    assert await bus.backlog(CHANNEL) == Backlog(12_000, 0)


async def test_a_full_stream_refuses_with_a_reason(nats_url: str) -> None:
    bus = await connect(nats_url, name="test", streams=STREAMS, max_bytes=10_000)
    try:
        receipts = [bus.send("t.one.a.x", b"x" * 1000) for _ in range(20)]
        outcomes = await asyncio.gather(*receipts, return_exceptions=True)
        refused = [outcome for outcome in outcomes if outcome is not None]
        assert 0 < len(refused) < 20
        assert isinstance(refused[0], BusError)
        assert "maximum bytes exceeded" in str(refused[0])
    finally:
        await bus.close()


async def test_closing_the_bus_waits_for_what_was_sent(connected: Connect) -> None:
    first, second = await connected(), await connected()
    receipts = [first.send("t.one.a.x", b"") for _ in range(500)]
    await first.close()
    assert all(receipt.done() and receipt.exception() is None for receipt in receipts)
    assert await second.backlog(CHANNEL) == Backlog(500, 0)


async def test_a_closed_bus_refuses_to_send(bus: Bus) -> None:
    await bus.close()
    assert not bus.connected
    with pytest.raises(BusUnavailableError):
        await bus.send("t.one.a.x", b"")


async def test_settings_of_an_existing_stream_are_brought_up_to_date(nats_url: str) -> None:
    for limit in (1_000_000, 2_000_000):
        bus = await connect(nats_url, name="test", streams=STREAMS, max_bytes=limit)
        async with bus.streams._manager() as manager:
            info = await manager.stream_info("T_ONE")
        await bus.close()
        assert info.config.max_bytes == limit


async def test_every_stream_keeps_exactly_one_anchor_however_often_it_is_renewed(
    bus: JetStreamBus, monkeypatch: pytest.MonkeyPatch
) -> None:
    anchors = []
    for slot in (1000.0, 2000.0, 2001.0, 3000.0):
        monkeypatch.setattr("pipeline.bus.streams.time.time", lambda slot=slot: slot)
        await bus.streams.renew_anchors()
        async with bus.streams._manager() as manager:
            info = await manager.stream_info("T_ONE", subjects_filter=">")
        assert info.state.subjects == {"t.one.anchor.nobody.reads": 1}
        anchors.append(info.state.first_seq)
    assert anchors[0] < anchors[1] == anchors[2] < anchors[3]


async def test_no_channel_of_the_pipeline_reads_an_anchor(nats_url: str) -> None:
    bus = await connect(nats_url, name="test")
    try:
        for channel in (inbox_channel(0), step_channel("http"), done_channel()):
            assert await bus.backlog(channel) == Backlog(0, 0)
    finally:
        await bus.close()


async def test_nobody_at_the_address_is_an_error_that_names_it(unused_tcp_port: int) -> None:
    with pytest.raises(BusUnavailableError, match=r"127\.0\.0\.1"):
        await connect(f"nats://127.0.0.1:{unused_tcp_port}", name="test")


async def test_a_wrong_password_is_an_error_that_says_so(nats_url: str) -> None:
    address = nats_url.rpartition("@")[2]
    with pytest.raises(BusUnavailableError, match="Authorization Violation"):
        await connect(f"nats://nobody:wrong@{address}", name="test")
