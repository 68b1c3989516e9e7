"""What goes wrong on purpose, each with the evidence that it did."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from collections.abc import Awaitable, Callable

from pipeline.bus.jetstream import JetStreamBus
from tests.faults.cluster import Cluster

Nemesis = Callable[[Cluster, random.Random, Counter[str]], Awaitable[None]]
"""One fault; it returns once the fault is over, and counts what it did."""


async def kill_a_vertex(cluster: Cluster, chance: random.Random, seen: Counter[str]) -> None:
    member = chance.choice(cluster.members)
    if cluster.signal(member, signal.SIGKILL):
        seen[f"killed {member.vertex}"] += 1


async def kill_postgres(cluster: Cluster, chance: random.Random, seen: Counter[str]) -> None:
    await _kill_server(cluster, "postgres", seen)


async def kill_nats(cluster: Cluster, chance: random.Random, seen: Counter[str]) -> None:
    await _kill_server(cluster, "nats", seen)


async def _kill_server(cluster: Cluster, name: str, seen: Counter[str]) -> None:
    assert cluster.stack is not None
    server = cluster.stack.servers[name]
    await server.kill()
    await server.restart()
    seen[f"killed {name}"] += 1


async def restart_postgres(cluster: Cluster, chance: random.Random, seen: Counter[str]) -> None:
    assert cluster.stack is not None
    server = cluster.stack.servers["postgres"]
    await server.stop()
    await server.start()
    seen["restarted postgres"] += 1


async def wipe_jetstream(cluster: Cluster, chance: random.Random, seen: Counter[str]) -> None:
    assert cluster.stack is not None
    seen["bytes wiped"] += await cluster.wipe_jetstream()
    await cluster.stack.servers["nats"].restart()
    seen["wiped"] += 1


async def wipe_what_waits(cluster: Cluster, chance: random.Random, seen: Counter[str]) -> None:
    """With nobody there who has it already: what waits in the queues of the runners is lost."""
    for member in cluster.pick("runner"):
        cluster.signal(member, signal.SIGKILL)
    await asyncio.sleep(0.3)
    await wipe_jetstream(cluster, chance, seen)


async def stop_a_runner(cluster: Cluster, chance: random.Random, seen: Counter[str]) -> None:
    """Longer than a message is waited for, so that another runner does its work again."""
    member = chance.choice(cluster.pick("runner"))
    if cluster.signal(member, signal.SIGSTOP):
        await asyncio.sleep(7.0)
        cluster.signal(member, signal.SIGCONT)
        seen["stopped a runner"] += 1


class Repeater:
    """Keeps what goes over the bus and sends it again, later and in another order."""

    def __init__(self, bus: JetStreamBus, chance: random.Random, seen: Counter[str]) -> None:
        self._bus = bus
        self._chance = chance
        self._seen = seen
        self._kept: list[tuple[str, bytes]] = []

    async def run(self, seconds: float) -> None:
        stops = [await self._bus.listen(name, self._keep) for name in ("pf.inbox.>", "pf.step.>")]
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            await asyncio.sleep(0.05)
            self._chance.shuffle(self._kept)
            for subject, data in self._kept[:40]:
                self._bus.send(subject, data).add_done_callback(lambda f: f.exception())
                self._seen["repeated"] += 1
            del self._kept[20:]
        for stop in stops:
            await stop()

    def _keep(self, subject: str, data: bytes) -> None:
        if len(self._kept) < 400:
            self._kept.append((subject, data))
