"""The bus by itself: latency of one hop in an idle system, and messages per second.

    python bench/bus.py [--url nats://127.0.0.1:4222] [--hops 2000] [--messages 50000]

A second process echoes every message from one work queue into another, acking each after the
receipt of its echo: two hops, two file-backed streams. Prints one JSON object; latencies are
microseconds, `cpu` is the user and system time of this process per message sent and received.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import time
from asyncio import Future
from collections.abc import Callable, Sequence

import uvloop

from pipeline.bus.jetstream import JetStreamBus, connect
from pipeline.bus.port import Channel, Message

STREAMS = {"PF_BENCH_THERE": "pf.bench.there.>", "PF_BENCH_BACK": "pf.bench.back.>"}
THERE = Channel("PF_BENCH_THERE", "echo", "pf.bench.there.x")
BACK = Channel("PF_BENCH_BACK", "driver", "pf.bench.back.x")
CREDIT = 1024
UNDER_WAY = 2000


def after(receipts: Sequence[Future[None]], then: Callable[[], None]) -> None:
    """Call `then` once every receipt is there."""
    left = len(receipts)

    def one(receipt: Future[None]) -> None:
        nonlocal left
        receipt.result()
        left -= 1
        if left == 0:
            then()

    for receipt in receipts:
        receipt.add_done_callback(one)


def ack_all(messages: list[Message]) -> None:
    for message in messages:
        message.ack()


async def echo(url: str) -> None:
    bus = await connect(url, name="bench echo", streams=STREAMS)
    reader = await bus.subscribe(THERE, CREDIT)
    while True:
        messages = await reader.batch()
        if any(message.data == b"stop" for message in messages):
            ack_all(messages)
            break
        receipts = [bus.send("pf.bench.back.x", message.data) for message in messages]

        def done(messages: list[Message] = messages) -> None:
            ack_all(messages)
            reader.release(len(messages))

        after(receipts, done)
    await bus.close()


def run_echo(url: str) -> None:
    uvloop.run(echo(url))


def cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def hops(bus: JetStreamBus, count: int) -> dict[str, float]:
    """One message at a time, there and back."""
    reader = await bus.subscribe(BACK, CREDIT)
    data = b"x" * 200
    trips = []
    for _ in range(count):
        began = time.perf_counter()
        bus.send("pf.bench.there.x", data)
        messages = await reader.batch()
        trips.append((time.perf_counter() - began) / 2 * 1e6)
        ack_all(messages)
        reader.release(len(messages))
        await asyncio.sleep(0.0005)
    await reader.close()
    trips.sort()
    return {"p50": round(trips[count // 2], 1), "p99": round(trips[count * 99 // 100], 1)}


async def flood(bus: JetStreamBus, count: int, size: int) -> dict[str, float]:
    """Two thousand messages under way at any time."""
    reader = await bus.subscribe(BACK, CREDIT)
    data = b"x" * size
    sent = received = 0
    began, used = time.perf_counter(), cpu()
    while received < count:
        for _ in range(min(count - sent, UNDER_WAY - (sent - received))):
            bus.send("pf.bench.there.x", data)
            sent += 1
        messages = await reader.batch()
        received += len(messages)
        ack_all(messages)
        reader.release(len(messages))
    took, used = time.perf_counter() - began, cpu() - used
    await reader.close()
    return {
        "messages_per_s": round(2 * count / took),
        "cpu_us_per_message": round(used / count / 2 * 1e6, 2),
    }


async def main(url: str, count: int, messages: int) -> None:
    bus = await connect(url, name="bench driver", streams=STREAMS)
    process = multiprocessing.get_context("spawn").Process(target=run_echo, args=(url,))
    process.start()
    bus.send("pf.bench.there.x", b"warm")
    reader = await bus.subscribe(BACK, 1)
    ack_all(await reader.batch())
    await reader.close()
    result = {
        "hop_us": await hops(bus, count),
        "200_bytes": await flood(bus, messages, 200),
        "4_kilobytes": await flood(bus, messages // 4, 4096),
    }
    await bus.send("pf.bench.there.x", b"stop")
    await asyncio.to_thread(process.join, 10)
    await bus.close()
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Latency and throughput of the bus.")
    parser.add_argument("--url", default="nats://127.0.0.1:4222")
    parser.add_argument("--hops", type=int, default=2000)
    parser.add_argument("--messages", type=int, default=50_000)
    options = parser.parse_args()
    uvloop.run(main(options.url, options.hops, options.messages))
