"""Starting in groups: one commit for all that came meanwhile, and nobody pays for another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from permaflow.errors import InputError, StoreUnavailableError
from pipeline.bus.jetstream import JetStreamBus
from pipeline.gateway import shared_pool
from pipeline.gateway import starts as batches
from pipeline.gateway.shared_pool import SharedPool
from pipeline.gateway.starts import StartBatcher
from pipeline.ids import new_id
from pipeline.store import runs
from pipeline.store.database import Connection, Database
from pipeline.store.starts import Duplicate, Refused, Started, StartRequest, run_key
from tests.fix_store import active_workflow

WITHIN = 20.0


class Counted:
    """A database that counts its transactions, and can be made to wait in the first one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.sizes: list[int] = []
        self.entered = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def run_as(self, org: UUID, work: Callable[..., Any], *args: Any) -> Any:
        self.sizes.append(len(args[0]))
        self.entered.set()
        await self.go_on.wait()
        return await self._database.run_as(org, work, *args)


@pytest.fixture
def counted(gateway: Database) -> Counted:
    return Counted(gateway)


@pytest.fixture
def batcher(counted: Counted, nats_bus: JetStreamBus) -> StartBatcher:
    return StartBatcher(counted, nats_bus, 32_000)  # type: ignore[arg-type]


def request(org: UUID, workflow: UUID, **more: Any) -> StartRequest:
    more.setdefault("input", b"{}")
    return StartRequest(new_id(), org, workflow, "api", **more)


async def held(
    counted: Counted, batcher: StartBatcher, first: StartRequest
) -> asyncio.Task[object]:
    """The first start, held in its transaction."""
    counted.go_on.clear()
    task = asyncio.create_task(batcher.start(first))
    await asyncio.wait_for(counted.entered.wait(), WITHIN)
    return task  # type: ignore[return-value]


async def test_what_comes_during_a_commit_goes_into_the_next_one(
    counted: Counted, batcher: StartBatcher, store: Database, org: UUID, workflow: UUID
) -> None:
    first = await held(counted, batcher, request(org, workflow))
    others = [request(org, workflow) for _ in range(50)]
    tasks = [asyncio.create_task(batcher.start(each)) for each in others]
    await asyncio.sleep(0)
    counted.go_on.set()
    results = await asyncio.wait_for(asyncio.gather(*tasks), WITHIN)
    assert isinstance(await first, Started)
    assert [result.run_id for result in results] == [each.run_id for each in others]  # type: ignore[union-attr]
    assert counted.sizes == [1, 50]
    assert len(await store.run(runs.find, org, limit=100)) == 51


async def test_one_bad_request_fails_alone(
    batcher: StartBatcher, counted: Counted, org: UUID, workflow: UUID
) -> None:
    first = await held(counted, batcher, request(org, workflow))
    wanted = [
        request(org, workflow),
        request(org, workflow, input=b'{"cut": '),
        request(org, new_id()),
        request(org, workflow),
    ]
    tasks = [asyncio.create_task(batcher.start(each)) for each in wanted]
    await asyncio.sleep(0)
    counted.go_on.set()
    answers = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), WITHIN)
    assert [type(answer) for answer in answers] == [Started, InputError, Refused, Started]
    await first


async def test_one_key_in_one_batch_starts_one_run(
    batcher: StartBatcher, counted: Counted, org: UUID, workflow: UUID
) -> None:
    first = await held(counted, batcher, request(org, workflow))
    key = run_key(org, workflow, "hook", "webhook", "1")
    tasks = [asyncio.create_task(batcher.start(request(org, workflow, key=key))) for _ in range(20)]
    await asyncio.sleep(0)
    counted.go_on.set()
    results = await asyncio.wait_for(asyncio.gather(*tasks), WITHIN)
    await first
    assert len({result.run_id for result in results}) == 1  # type: ignore[union-attr]
    assert sum(isinstance(result, Started) for result in results) == 1


async def test_an_earlier_key_counts_too(batcher: StartBatcher, org: UUID, workflow: UUID) -> None:
    old, new = (run_key(org, workflow, "hook", "webhook", name) for name in ("old", "new"))
    first = await batcher.start(request(org, workflow, key=old))
    again = await batcher.start(request(org, workflow, key=new), old)
    assert isinstance(first, Started)
    assert again == Duplicate(first.run_id)
    fresh = await batcher.start(request(org, workflow, key=new), new_id().bytes * 2)
    assert isinstance(fresh, Started)


async def test_organisations_do_not_wait_for_each_other(
    batcher: StartBatcher, counted: Counted, store: Database, org: UUID, other_org: UUID
) -> None:
    ours, theirs = await active_workflow(store, org), await active_workflow(store, other_org)
    first = await held(counted, batcher, request(org, ours))
    counted.entered.clear()
    second = asyncio.create_task(batcher.start(request(other_org, theirs)))
    await asyncio.wait_for(counted.entered.wait(), WITHIN)
    counted.go_on.set()
    assert {type(each) for each in await asyncio.gather(first, second)} == {Started}


async def test_too_many_that_wait_are_refused_at_once(
    batcher: StartBatcher,
    counted: Counted,
    org: UUID,
    workflow: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "MOST_WAITING", 3)
    first = await held(counted, batcher, request(org, workflow))
    tasks = [asyncio.create_task(batcher.start(request(org, workflow))) for _ in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailableError):
        await batcher.start(request(org, workflow))
    counted.go_on.set()
    await asyncio.gather(first, *tasks)
    assert isinstance(await batcher.start(request(org, workflow)), Started)


async def test_a_caller_that_left_does_not_disturb_the_others(
    batcher: StartBatcher, counted: Counted, org: UUID, workflow: UUID
) -> None:
    first = await held(counted, batcher, request(org, workflow))
    left = asyncio.create_task(batcher.start(request(org, workflow)))
    stays = asyncio.create_task(batcher.start(request(org, workflow)))
    await asyncio.sleep(0)
    left.cancel()
    await asyncio.sleep(0)
    counted.go_on.set()
    assert isinstance(await asyncio.wait_for(stays, WITHIN), Started)
    await first
    assert counted.sizes == [1, 1]


async def test_a_store_that_does_not_answer_is_given_up(
    batcher: StartBatcher,
    counted: Counted,
    org: UUID,
    workflow: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "LONGEST_WAIT", 0.05)
    first = await held(counted, batcher, request(org, workflow))
    with pytest.raises(StoreUnavailableError, match="too long"):
        await first
    counted.go_on.set()
    await batcher.close()


async def test_readers_never_take_the_last_connection(
    gateway: Database, nats_bus: JetStreamBus, org: UUID, workflow: UUID, monkeypatch: Any
) -> None:
    """Four connections: three are held by readers that never end, and a fourth reader gives up."""
    monkeypatch.setattr(shared_pool, "LONGEST_QUEUE", 0.05)
    pool, go_on, reading = SharedPool(gateway, 3), asyncio.Event(), asyncio.Semaphore(0)

    async def read(_: Connection) -> None:
        reading.release()
        await go_on.wait()

    readers = [asyncio.create_task(pool.run(read)) for _ in range(3)]
    async with asyncio.timeout(WITHIN):
        for _ in readers:
            await reading.acquire()
        with pytest.raises(StoreUnavailableError):
            await pool.run(read)
        started = await StartBatcher(gateway, nats_bus, 32_000).start(request(org, workflow))
    assert isinstance(started, Started)
    go_on.set()
    await asyncio.gather(*readers)
    await pool.run(read)
