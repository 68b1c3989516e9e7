"""Nothing lost, nothing stuck, nothing applied twice, whatever is killed, stopped, cut or wiped.

Short by default; `--long` runs each fault ten times as long (`make chaos`). Every test shows that
its fault bit, and three of them show that they catch a bug that was planted.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from permaflow.errors import StoreError
from pipeline import builtins
from pipeline.bus.jetstream import connect
from pipeline.settings import load_settings
from pipeline.store.database import Database
from tests.faults import nemesis
from tests.faults.check import Workload
from tests.faults.cluster import Cluster
from tests.faults.effects import WITNESS, effects

pytestmark = [pytest.mark.service, pytest.mark.slow]

VERTICES = (
    "orchestrator",
    "orchestrator",
    "runner",
    "runner",
    "completion",
    "clock",
    "gateway",
    "ingest",
)
SETTLE_WITHIN = 45.0
RESUMES_WITHIN = 5.0


@dataclass
class Trial:
    """What one test did and saw."""

    cluster: Cluster
    work: Workload
    http: httpx.AsyncClient
    seen: Counter[str] = field(default_factory=Counter)
    pauses: list[tuple[float, str]] = field(default_factory=list)
    tormented: bool = False

    async def load(self, seconds: float) -> None:
        """Start runs steadily, a little longer than the faults go on."""
        end = asyncio.get_running_loop().time() + seconds + RESUMES_WITHIN
        while asyncio.get_running_loop().time() < end or self.tormented:
            await self.work.start(8)
            await asyncio.gather(self.work.post(self.http, 2), self.work.insert(2))
            await asyncio.sleep(0.1)

    async def torment(
        self, seconds: float, *kinds: nemesis.Nemesis, every: float = 0.4, least: int = 1
    ) -> None:
        """One fault after the other, at random; how long each stops all progress is kept.

        Goes on for longer if so far fewer than `least` faults found their victim.
        """
        self.tormented = True
        chance = random.Random(self.work.seed)
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end or self.seen.total() < least:
            await asyncio.sleep(every * chance.uniform(0.5, 1.5))
            before = Counter(self.seen)
            await chance.choice(kinds)(self.cluster, chance, self.seen)
            await self._resumed(", ".join(self.seen - before))
        self.tormented = False

    async def _resumed(self, fault: str) -> None:
        """Wait for the next journal row, and note how long it took."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        before = None
        while loop.time() - began < 3 * RESUMES_WITHIN:
            try:
                rows = await self._rows()
            except StoreError:
                rows = None
            if before is None:
                before = rows
            elif rows is not None and rows > before:
                break
            await asyncio.sleep(0.05)
        self.pauses.append((loop.time() - began, fault))

    async def _rows(self) -> int:
        async with self.work.database.connection() as connection:
            cursor = await connection.execute("select count(*) from permaflow.journal")
            row = await cursor.fetchone()
        return int(row[0]) if row else 0

    async def verdict(self) -> tuple[int, list[str]]:
        """How many runs are stuck, and everything that is wrong with the others."""
        stuck = await self.work.settled(SETTLE_WITHIN)
        counts = effects()
        self.seen["runs"] = len(self.work.wanted)
        self.seen["effects"] = sum(counts.values())
        self.seen["effects repeated"] = sum(many - 1 for many in counts.values())
        print(f"\n{dict(self.seen)}; longest pauses {sorted(self.pauses)[-3:]}")
        if stuck:
            print("\n".join(await self.work.stuck()))
            for member in self.cluster.members:
                said = member.log.read_text()[-1500:]
                print(f"--- {member.name}, {member.deaths} deaths\n{said}")
        return stuck, await self.work.violations(counts)


@pytest.fixture
def seconds(request: pytest.FixtureRequest) -> float:
    """How long a fault goes on."""
    return 100.0 if request.config.getoption("--long") else 10.0


@asynccontextmanager
async def trial(
    folder: Path, *, plant: str = "", vertices: tuple[str, ...] = VERTICES
) -> AsyncIterator[Trial]:
    seed = int(os.environ.get("PERMAFLOW_TEST_SEED", "0")) or random.randrange(1, 10**6)
    print(f"PERMAFLOW_TEST_SEED={seed}")
    async with AsyncExitStack() as stack:
        cluster = await Cluster(folder, vertices, plant).start(stack)
        assert cluster.stack is not None
        assert cluster.stack.database_url
        assert cluster.stack.nats_url
        os.environ[WITNESS] = str(cluster.witness)
        cluster.witness.touch()
        database = await stack.enter_async_context(Database(cluster.stack.database_url))
        bus = await connect(cluster.stack.nats_url, name="faults")
        stack.push_async_callback(bus.close)
        settings = load_settings(task_types="tests.faults.effects")
        work = Workload(database, bus, builtins.task_types(settings), seed)
        async with database.connection() as connection:
            await connection.execute("create table fault_order (id int primary key, n int)")
        await work.prepare()
        http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{cluster.port}",
            headers={"Authorization": f"Bearer {cluster.api_key}"},
            timeout=5.0,
        )
        await stack.enter_async_context(http)
        await until_watched(database)
        yield Trial(cluster, work, http)


async def until_watched(database: Database) -> None:
    """Changes count from the moment that the table is published."""
    async with asyncio.timeout(20):
        while True:
            async with database.connection() as connection:
                cursor = await connection.execute(
                    "select 1 from pg_publication_tables where tablename = 'fault_order'"
                )
                if await cursor.fetchone() is not None:
                    return
            await asyncio.sleep(0.05)


async def check(test: Trial) -> None:
    stuck, wrong = await test.verdict()
    assert stuck == 0
    assert wrong == []
    assert [pause for pause in test.pauses if pause[0] > RESUMES_WITHIN] == []


async def test_killing_any_process_at_any_moment_loses_nothing(
    server_dir: Path, seconds: float
) -> None:
    async with trial(server_dir) as test:
        kinds = [nemesis.kill_a_vertex] * 6 + [nemesis.kill_postgres, nemesis.kill_nats]
        await asyncio.gather(test.load(seconds), test.torment(seconds, *kinds, least=8))
        await check(test)
        killed = sum(many for what, many in test.seen.items() if what.startswith("killed"))
        assert killed >= 5


async def test_deleting_the_whole_jetstream_store_loses_nothing(
    server_dir: Path, seconds: float
) -> None:
    async with trial(server_dir) as test:
        await asyncio.gather(
            test.load(seconds), test.torment(seconds, nemesis.wipe_jetstream, every=2.0)
        )
        await check(test)
        assert test.seen["bytes wiped"] > 0


async def test_runners_stopped_past_their_lease_change_nothing(
    server_dir: Path, seconds: float
) -> None:
    async with trial(server_dir) as test:
        await asyncio.gather(
            test.load(seconds), test.torment(seconds, nemesis.stop_a_runner, every=0.5)
        )
        await check(test)
        assert test.seen["effects repeated"] > 0


async def test_repeated_and_reordered_messages_change_nothing(
    server_dir: Path, seconds: float
) -> None:
    async with trial(server_dir) as test:
        repeater = nemesis.Repeater(test.work.bus, random.Random(test.work.seed), test.seen)
        await asyncio.gather(test.load(seconds), repeater.run(seconds))
        await check(test)
        assert test.seen["repeated"] > 100
        assert test.seen["effects repeated"] > 0


async def test_restarting_postgres_loses_nothing(server_dir: Path, seconds: float) -> None:
    async with trial(server_dir) as test:
        await asyncio.gather(
            test.load(seconds), test.torment(seconds, nemesis.restart_postgres, every=1.0)
        )
        await check(test)
        assert test.seen["restarted postgres"] >= 2


async def test_without_the_reconciler_a_deleted_store_is_noticed(server_dir: Path) -> None:
    async with trial(server_dir, plant="no_reconciler") as test:
        await asyncio.gather(test.load(5.0), test.torment(5.0, nemesis.wipe_what_waits))
        stuck, _ = await test.verdict()
        assert stuck > 0


async def test_without_the_attempt_guard_repeated_messages_are_noticed(server_dir: Path) -> None:
    async with trial(server_dir, plant="no_attempt_guard") as test:
        repeater = nemesis.Repeater(test.work.bus, random.Random(test.work.seed), test.seen)
        await asyncio.gather(test.load(5.0), repeater.run(5.0))
        stuck, wrong = await test.verdict()
        assert stuck or wrong
