"""Starting runs: once for each key, all or nothing, inside any transaction."""

from __future__ import annotations

import asyncio
from uuid import UUID

import orjson
import pytest
from uuid_utils.compat import uuid7

from permaflow.errors import InputError
from pipeline.store import payloads, runs, workflows
from pipeline.store.database import Connection, Database
from pipeline.store.starts import (
    Duplicate,
    Refused,
    Started,
    StartRequest,
    StartResult,
    run_key,
    start_runs,
)
from tests.fix_store import DRAFT, execute

pytestmark = pytest.mark.service

KEY = bytes(range(32))


def request(org: UUID, workflow: UUID, **wanted: object) -> StartRequest:
    return StartRequest(uuid7(), org, workflow, "api", **wanted)  # type: ignore[arg-type]


async def start_one(store: Database, wanted: StartRequest) -> StartResult:
    [result] = await store.run(start_runs, [wanted])
    return result


async def test_a_run_pins_the_current_version_and_keeps_its_input_as_it_came(
    store: Database, org: UUID, workflow: UUID
) -> None:
    await store.run(workflows.update, org, workflow, DRAFT)
    wanted = request(org, workflow, input=b'{"b": 1,  "a": 9007199254740993}', trigger_node="hook")
    assert await start_one(store, wanted) == Started(wanted.run_id, 2)
    run = await store.run(runs.get, org, wanted.run_id)
    assert (run.status, run.version, run.trigger_node) == ("running", 2, "hook")
    assert run.input == b'{"b": 1,  "a": 9007199254740993}'


async def test_a_key_starts_one_run(store: Database, org: UUID, workflow: UUID) -> None:
    first = request(org, workflow, key=KEY)
    await start_one(store, first)
    assert await start_one(store, request(org, workflow, key=KEY)) == Duplicate(first.run_id)
    assert len(await store.run(runs.find, org)) == 1


async def test_fifty_concurrent_requests_with_one_key_start_one_run(
    store: Database, org: UUID, workflow: UUID
) -> None:
    wanted = [request(org, workflow, key=KEY) for _ in range(50)]
    results = await asyncio.gather(*(start_one(store, each) for each in wanted))
    [started] = [result for result in results if isinstance(result, Started)]
    others = [result for result in results if result != started]
    assert others == [Duplicate(started.run_id)] * 49
    assert [run.id for run in await store.run(runs.find, org)] == [started.run_id]


async def test_a_key_twice_in_one_batch_starts_one_run(
    store: Database, org: UUID, workflow: UUID
) -> None:
    wanted = [request(org, workflow, key=KEY) for _ in range(3)]
    results = await store.run(start_runs, wanted)
    first = wanted[0].run_id
    assert results == [Started(first, 1), Duplicate(first), Duplicate(first)]


async def test_without_a_key_every_request_starts_a_run(
    store: Database, org: UUID, workflow: UUID
) -> None:
    results = await store.run(start_runs, [request(org, workflow) for _ in range(3)])
    assert all(isinstance(result, Started) for result in results)
    assert len(await store.run(runs.find, org)) == 3


async def test_answers_come_in_the_order_of_the_requests(
    store: Database, org: UUID, other_org: UUID, workflow: UUID
) -> None:
    wanted = [
        request(org, workflow, key=KEY),
        request(org, uuid7()),
        request(org, workflow, key=KEY),
        request(other_org, workflow),
        request(org, workflow),
    ]
    results = await store.run(start_runs, wanted)
    first, last = wanted[0].run_id, wanted[4].run_id
    assert results == [Started(first, 1), Refused(), Duplicate(first), Refused(), Started(last, 1)]


async def test_a_batch_that_waits_for_a_key_holds_no_later_key(
    store: Database, org: UUID, workflow: UUID
) -> None:
    """Keys are taken in one order, whatever that of the requests: no two batches deadlock."""
    low, high = bytes([1]) * 32, bytes([2]) * 32

    async def begin(keys: list[bytes]) -> list[StartResult]:
        async with store.connection() as connection:  # no second attempt hides a deadlock
            return await start_runs(connection, [request(org, workflow, key=key) for key in keys])

    async with asyncio.timeout(20), store.transaction() as first:
        await start_runs(first, [request(org, workflow, key=low)])
        second = asyncio.create_task(begin([high, low]))
        while await execute(store, "select pid from pg_locks where not granted") == []:
            pass
        [result] = await start_runs(first, [request(org, workflow, key=high)])
        assert isinstance(result, Started)
    assert [type(result) for result in await second] == [Duplicate, Duplicate]


@pytest.mark.parametrize("status", ["draft", "paused", "archived", "deleted"])
async def test_only_an_active_workflow_starts(store: Database, org: UUID, status: str) -> None:
    workflow_id = uuid7()
    await store.run(workflows.create, org, workflow_id, DRAFT)
    for step in {"paused": ["active", "paused"], "archived": ["archived"]}.get(status, []):
        await store.run(workflows.set_status, org, workflow_id, step)
    if status == "deleted":
        await store.run(workflows.delete, org, workflow_id)
    refused = Refused("Workflow not found or not active")
    assert await start_one(store, request(org, workflow_id, key=KEY)) == refused
    assert await execute(store, "select count(*) from permaflow.run_key") == [(0,)]
    forced = await start_one(store, request(org, workflow_id, allow_inactive=True))
    assert isinstance(forced, Started) == (status in ("draft", "paused"))


async def test_another_version_can_be_pinned_if_it_exists(
    store: Database, org: UUID, workflow: UUID
) -> None:
    await store.run(workflows.update, org, workflow, DRAFT)
    wanted = request(org, workflow, version=1)
    assert await start_one(store, wanted) == Started(wanted.run_id, 1)
    assert await start_one(store, request(org, workflow, version=3)) == Refused()


async def test_a_large_input_is_kept_apart(store: Database, org: UUID, workflow: UUID) -> None:
    text = orjson.dumps("x" * 40_000)
    wanted = request(org, workflow, input=text)
    await start_one(store, wanted)
    run = await store.run(runs.get, org, wanted.run_id)
    assert run.input is None
    assert run.input_ref is not None
    assert await store.run(payloads.get, [run.input_ref]) == {run.input_ref: text}


async def test_a_large_input_of_a_refused_request_is_not_kept(store: Database, org: UUID) -> None:
    await start_one(store, request(org, uuid7(), input=b'"' + b"x" * 40_000 + b'"'))
    assert await execute(store, "select count(*) from permaflow.payload") == [(0,)]


async def test_a_transaction_that_is_rolled_back_leaves_no_run_and_no_key(
    store: Database, org: UUID, workflow: UUID
) -> None:
    async def work(connection: Connection) -> None:
        await start_runs(connection, [request(org, workflow, key=KEY)])
        raise ValueError("rolled back")

    with pytest.raises(ValueError, match="rolled back"):
        await store.run(work)
    assert await store.run(runs.find, org) == []
    assert isinstance(await start_one(store, request(org, workflow, key=KEY)), Started)


async def test_a_start_that_fails_leaves_the_transaction_usable_behind_a_savepoint(
    store: Database, org: UUID, workflow: UUID
) -> None:
    async def work(connection: Connection) -> None:
        await connection.execute("update permaflow.generation set value = 41")
        try:
            async with connection.transaction():
                await start_runs(connection, [request(org, workflow, input=b"{")])
        except Exception:
            await connection.execute("update permaflow.generation set value = value + 1")

    await store.run(work)
    assert await execute(store, "select value from permaflow.generation") == [(42,)]


async def test_bad_json_in_an_input_is_the_callers_fault_and_starts_nothing(
    store: Database, org: UUID, workflow: UUID
) -> None:
    with pytest.raises(InputError):
        await store.run(start_runs, [request(org, workflow), request(org, workflow, input=b"{")])
    assert await store.run(runs.find, org) == []


def test_a_key_tells_its_parts_apart() -> None:
    org, workflow = uuid7(), uuid7()
    assert run_key(org, workflow, "a", "bc", "d") != run_key(org, workflow, "ab", "c", "d")
    assert run_key(org, workflow, "a", "b", "c") != run_key(uuid7(), workflow, "a", "b", "c")
    assert len(run_key(org, workflow, "a", "b", "c")) == 32
