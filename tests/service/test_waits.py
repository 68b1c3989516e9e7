"""Runs that wait until a record meets a condition, on real servers."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import psycopg
import pytest

from connectors.postgres_catalog import Catalog
from permaflow.plan import Json
from pipeline.bus.subjects import WAITS
from pipeline.core.entries import Failed as NodeFailed
from pipeline.core.entries import Skipped, Succeeded
from pipeline.sources import PostgresChanges
from pipeline.store import records
from pipeline.store.database import Database
from tests.fix_engine import Engine, graph, start_engine, task
from tests.fix_site import Send, Sites
from tests.fix_store import execute

pytestmark = pytest.mark.service

LIMIT = 20.0


@pytest.fixture
async def watching(database_url: str, nats_url: str) -> AsyncIterator[Engine]:
    """An engine with a slot of its own, whose ingest watches what is named."""
    slot = f"waits_{uuid.uuid4().hex[:12]}"
    async with AsyncExitStack() as stack:
        stack.push_async_callback(Catalog(database_url, slot, slot).drop)
        engine = await start_engine(
            database_url, nats_url, stack, cdc_slot=slot, cdc_tables="auto", database_pool=8
        )
        await until(engine, f"select active from pg_replication_slots where slot_name = '{slot}'")
        yield engine


def wait(until: dict[str, Json], **config: Json) -> dict[str, Any]:
    return {"id": "pause", "type": "logic_delay", "config": {"until_field": until, **config}}


def paid(until: dict[str, Json] | None = None, **config: Json) -> dict[str, Json]:
    """A workflow that waits until the order that its input names is paid."""
    about = {"object": "orders", "record_id": "{{trigger.id}}"} if until is None else until
    condition = {"field": "status", "op": "eq", "value": "paid"}
    return graph(wait({**about, **condition}, **config), edges=["t>pause"])


async def put(engine: Engine, order: str, **data: Json) -> None:
    """Creates or changes a built-in record."""
    done = await engine.database.run(records.update, engine.org, "orders", order, data)
    if done is None:
        await engine.database.run(records.create, engine.org, "orders", data, order)


async def sql(engine: Engine, *statements: str) -> None:
    url = engine.settings.database_url
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
        for statement in statements:
            await session.execute(statement.encode())


async def until(engine: Engine, question: str) -> None:
    """Until the database answers true."""
    async with asyncio.timeout(LIMIT):
        while True:
            rows = await execute(engine.database, question)
            if rows and rows[0][0]:
                return
            await asyncio.sleep(0.02)


async def looked_at(engine: Engine) -> None:
    """Until every wait that has begun was looked at."""
    await until(engine, "select bool_and(looked) from permaflow.change_wait")


async def output(engine: Engine, run_id: UUID) -> Any:
    return next(
        e.output
        for e in await engine.entries(run_id)
        if isinstance(e, Succeeded) and e.node == "pause"
    )


async def waits(engine: Engine) -> int:
    rows = await execute(engine.database, "select count(*) from permaflow.change_wait")
    return int(rows[0][0])


async def test_a_run_goes_on_when_the_field_meets_the_condition(watching: Engine) -> None:
    await put(watching, "a", status="open")
    (run_id,) = await watching.start(await watching.workflow(paid()), {"id": "a"})
    await watching.until(run_id, "waiting")
    await looked_at(watching)
    await put(watching, "a", status="sent")
    await put(watching, "b", status="paid")
    await put(watching, "a", status="paid", amount=3)
    assert (await watching.until(run_id)).status == "completed"
    told = await output(watching, run_id)
    assert told["record"] == {"id": "a", "status": "paid", "amount": 3}
    assert (told["event"], told["before"]["status"]) == ("updated", "sent")
    assert await waits(watching) == 0


async def test_what_is_met_already_ends_the_wait_at_once(watching: Engine) -> None:
    await put(watching, "a", status="paid")
    (run_id,) = await watching.start(await watching.workflow(paid()), {"id": "a"})
    assert (await watching.until(run_id)).status == "completed"
    told = await output(watching, run_id)
    assert (told["event"], told["record"]) == ("found", {"id": "a", "status": "paid"})


async def test_a_row_of_a_table_is_waited_for(watching: Engine) -> None:
    await sql(
        watching,
        "create table public.bills (id int primary key, status text, total numeric)",
        "insert into public.bills values (1, 'open', 2.5), (2, 'paid', 3)",
    )
    workflow_id = await watching.workflow(paid({"object": "bills", "record_id": "{{trigger.id}}"}))
    (first,) = await watching.start(workflow_id, {"id": 1})
    (second,) = await watching.start(workflow_id, {"id": 2})
    (nothing,) = await watching.start(workflow_id, {"id": "no number"})
    assert (await watching.until(second)).status == "completed"
    assert (await output(watching, second))["record"] == {"id": 2, "status": "paid", "total": 3}
    await looked_at(watching)
    await sql(watching, "update public.bills set status = 'paid' where id = 1")
    assert (await watching.until(first)).status == "completed"
    told = await output(watching, first)
    assert (told["event"], told["record"]) == ("updated", {"id": 1, "status": "paid", "total": 2.5})
    assert (await watching.until(nothing, "waiting")).status == "waiting"


async def test_a_key_of_several_columns_names_a_row(watching: Engine) -> None:
    await sql(
        watching,
        "create table public.lines (line int, bill text, status text, primary key (bill, line))",
        "insert into public.lines values (1, 'x', 'paid'), (2, 'x', 'open')",
    )
    workflow_id = await watching.workflow(
        paid({"object": "public.lines", "record_id": "{{trigger.key}}"})
    )
    (first,) = await watching.start(workflow_id, {"key": '[1,"x"]'})
    (second,) = await watching.start(workflow_id, {"key": '[2,"x"]'})
    assert (await watching.until(first)).status == "completed"
    await looked_at(watching)
    await sql(watching, "update public.lines set status = 'paid'")
    assert (await watching.until(second)).status == "completed"


async def test_all_conditions_have_to_hold_and_their_values_may_be_templates(
    watching: Engine,
) -> None:
    conditions = [
        {"field": "status", "op": "in", "value": ["paid", "sent"]},
        {"field": "address.city", "op": "eq", "value": "{{trigger.city}}"},
    ]
    until = {"object": "orders", "record_id": "a", "conditions": conditions}
    workflow_id = await watching.workflow(graph(wait(until), edges=["t>pause"]))
    (run_id,) = await watching.start(workflow_id, {"city": "Bonn"})
    await watching.until(run_id, "waiting")
    await put(watching, "a", status="paid", address={"city": "Köln"})
    await put(watching, "a", status="sent", address={"city": "Bonn"})
    assert (await watching.until(run_id)).status == "completed"
    assert (await output(watching, run_id))["record"]["status"] == "sent"


async def test_the_record_whose_change_started_the_run_is_the_default(watching: Engine) -> None:
    trigger = {"object": "orders", "event": "created"}
    condition = {"field": "status", "op": "changed_to", "value": "paid"}
    document = {
        "nodes": [
            {"id": "t", "type": "trigger_record", "config": trigger},
            wait(condition),
        ],
        "edges": [{"source": "t", "target": "pause"}],
    }
    workflow_id = await watching.workflow(document)
    await put(watching, "a", status="paid")
    await looked_at(watching)
    rows = await execute(watching.database, "select object, record_id from permaflow.change_wait")
    assert rows == [("orders", "a")]
    await put(watching, "a", status="open")
    await put(watching, "a", status="paid")
    rows = await execute(
        watching.database, "select id from permaflow.run where workflow_id = %s", (workflow_id,)
    )
    assert (await watching.until(rows[0][0])).status == "completed"


async def test_without_a_record_there_is_nothing_to_wait_for(watching: Engine) -> None:
    condition = {"field": "status", "op": "eq", "value": "paid"}
    run, entries = await watching.finished(graph(wait(condition), edges=["t>pause"]))
    assert run.status == "failed"
    assert [e.code for e in entries if isinstance(e, NodeFailed)] == ["no_record"]


async def test_a_wait_that_takes_too_long_is_a_failure(watching: Engine) -> None:
    run, entries = await watching.finished(paid(timeout_seconds=0.2), {"id": "a"})
    assert run.status == "failed"
    assert [e.timed_out for e in entries if isinstance(e, NodeFailed)] == [True]
    assert await waits(watching) == 0


async def test_a_wait_that_takes_too_long_may_branch(watching: Engine) -> None:
    condition = {"object": "orders", "record_id": "a", "field": "x", "op": "eq", "value": 1}
    document = graph(
        wait(condition, timeout_seconds=0.2, on_timeout="branch"),
        task("met"),
        task("late"),
        edges=["t>pause", "pause>met", "pause:timed_out>late"],
    )
    run, entries = await watching.finished(document)
    assert run.status == "completed"
    assert [e.node for e in entries if isinstance(e, Skipped)] == ["met"]


async def test_a_cancelled_run_waits_no_longer(watching: Engine) -> None:
    (run_id,) = await watching.start(await watching.workflow(paid()), {"id": "a"})
    await watching.until(run_id, "waiting")
    await watching.cancel(run_id)
    assert (await watching.until(run_id)).status == "cancelled"
    assert await waits(watching) == 0


async def test_nobody_waits_for_records_of_others(watching: Engine, other_org: UUID) -> None:
    (run_id,) = await watching.start(await watching.workflow(paid()), {"id": "a"})
    await watching.until(run_id, "waiting")
    await looked_at(watching)
    data = {"status": "paid"}
    await watching.database.run(records.create, other_org, "orders", data, "a")
    await put(watching, "b", status="paid")
    (other,) = await watching.start(await watching.workflow(paid()), {"id": "b"})
    assert (await watching.until(other)).status == "completed"
    assert (await watching.until(run_id, "waiting")).status == "waiting"


async def test_a_change_at_the_moment_the_wait_begins_is_never_missed(watching: Engine) -> None:
    workflow_id = await watching.workflow(paid())
    count = 60
    for number in range(count):
        await put(watching, f"o{number}", status="open")
    found: list[UUID] = []
    for number in range(count):
        starting = asyncio.create_task(watching.start(workflow_id, {"id": f"o{number}"}))
        # From long before the wait is committed to long after it.
        await asyncio.sleep(0.0005 * number)
        await put(watching, f"o{number}", status="paid")
        found += await starting
    for run_id in found:
        assert (await watching.until(run_id)).status == "completed"
    assert await waits(watching) == 0


async def test_a_lost_doorbell_costs_seconds_and_no_wait(
    watching: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    ring = watching.bus.ring
    monkeypatch.setattr(
        watching.bus, "ring", lambda name, data: None if name == WAITS else ring(name, data)
    )
    await put(watching, "a", status="paid")
    (run_id,) = await watching.start(await watching.workflow(paid()), {"id": "a"})
    assert (await watching.until(run_id)).status == "completed"


async def test_a_large_record_travels_by_reference(watching: Engine) -> None:
    await put(watching, "a", status="paid", text="x" * 100_000)
    (run_id,) = await watching.start(await watching.workflow(paid()), {"id": "a"})
    assert (await watching.until(run_id)).status == "completed"
    refs = [e.ref for e in await watching.entries(run_id) if isinstance(e, Succeeded) and e.attempt]
    assert all(refs)


async def test_a_message_of_a_topic_ends_a_wait(
    sites: Sites, kafka_bootstrap: str, topic: str, send: Send
) -> None:
    flags = {"kafka_bootstrap": kafka_bootstrap, "kafka_topics": topic, "kafka_group": topic}
    async with sites(**flags) as site:
        until = {"object": "orders", "record_id": "1", "field": "status"}
        (run_id,) = await site.engine.start(
            await site.engine.workflow(
                graph(wait({**until, "op": "eq", "value": "paid"}), edges=["t>pause"])
            )
        )
        await looked_at(site.engine)
        old = round(time.time() * 1000) - 3_600_000
        await send({"status": "paid", "__op": "u", "__source_ts_ms": old})
        await send({"status": "open", "__op": "u"}, {"status": "paid", "n": 2, "__op": "u"})
        assert (await site.engine.until(run_id)).status == "completed"
        told = await output(site.engine, run_id)
        assert (told["record"]["n"], told["event"]) == (2, "updated")


async def test_a_change_from_before_the_wait_is_not_taken_for_how_the_record_is(
    watching: Engine,
) -> None:
    """It is told late, when the record is another already: then the record is looked at again."""
    await put(watching, "a", status="open")
    (run_id,) = await watching.start(await watching.workflow(paid()), {"id": "a"})
    await watching.until(run_id, "waiting")
    await looked_at(watching)
    await execute(
        watching.database, "update permaflow.change_wait set since = now() + interval '1 hour'"
    )
    await put(watching, "a", status="paid")
    # The look finds what that change has made.
    assert (await watching.until(run_id)).status == "completed"
    assert (await output(watching, run_id))["event"] == "found"


async def test_tables_of_one_organisation_are_not_waited_for_by_others(
    sites: Sites, store: Database, other_org: UUID
) -> None:
    async with sites(cdc_tables="auto", cdc_org="other") as site:
        await site.sql(
            "create table public.bills (id int primary key, status text)",
            "insert into public.bills values (1, 'paid')",
        )
        document = paid({"object": "public.bills", "record_id": "1"})
        (run_id,) = await site.engine.start(await site.engine.workflow(document))
        await looked_at(site.engine)
        assert (await site.engine.until(run_id, "waiting")).status == "waiting"
        mine, site.engine.org = site.engine.org, other_org
        (theirs,) = await site.engine.start(await site.engine.workflow(document))
        assert (await site.engine.until(theirs)).status == "completed"
        await site.sql("update public.bills set status = 'paid'")
        site.engine.org = mine
        assert (await site.engine.until(run_id, "waiting")).status == "waiting"


@pytest.mark.parametrize("name", ["permaflow.api_key", "pg_catalog.pg_authid", "pg_authid"])
async def test_no_wait_looks_at_what_is_not_the_users(watching: Engine, name: str) -> None:
    until = {"object": name, "record_id": "10", "field": "rolname", "op": "exists"}
    document = graph(wait(until), edges=["t>pause"])
    (run_id,) = await watching.start(await watching.workflow(document))
    await looked_at(watching)
    assert (await watching.until(run_id, "waiting")).status == "waiting"


async def test_no_wait_reads_the_records_of_others_by_the_name_of_their_table(
    watching: Engine, other_org: UUID
) -> None:
    await watching.database.run(records.create, other_org, "orders", {"status": "paid"}, "a")
    key = f'["{other_org}","orders","a"]'
    about = {"object": "record", "record_id": key, "field": "id", "op": "eq", "value": "a"}
    document = graph(wait(about), edges=["t>pause"])
    (run_id,) = await watching.start(await watching.workflow(document))
    await until(
        watching,
        "select exists (select from permaflow.change_wait where looked)"
        " or exists (select from permaflow.run where finished_at is not null)",
    )
    assert (await watching.until(run_id, "waiting")).status == "waiting"


async def test_a_restart_of_ingest_watches_what_runs_wait_for(watching: Engine) -> None:
    await sql(
        watching,
        "create table public.bills (id int primary key, status text)",
        "insert into public.bills values (1, 'open')",
    )
    document = paid({"object": "bills", "record_id": "1"})
    (run_id,) = await watching.start(await watching.workflow(document))
    await watching.until(run_id, "waiting")
    await looked_at(watching)
    slot = watching.settings.cdc_slot
    published = (
        "select count(*) from pg_publication_tables where tablename = 'bills' and pubname = %s"
    )
    # An ingest that knows of no wait asks for its own tables only.
    await PostgresChanges(watching.settings, watching.database).watch(["nothing"])
    assert await execute(watching.database, published, (slot,)) == [(1,)]
    await sql(watching, "update public.bills set status = 'paid'")
    assert (await watching.until(run_id)).status == "completed"


async def test_lost_messages_of_ingest_cost_seconds_and_no_wait(
    watching: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.ingest.post_answers", lambda *_: None)
    await put(watching, "a", status="paid")
    await put(watching, "b", status="open")
    workflow_id = await watching.workflow(paid())
    (found,) = await watching.start(workflow_id, {"id": "a"})
    (told,) = await watching.start(workflow_id, {"id": "b"})
    await looked_at(watching)
    await put(watching, "b", status="paid")
    assert (await watching.until(found)).status == "completed"
    assert (await watching.until(told)).status == "completed"


async def test_a_wait_that_is_cancelled_as_it_is_met_leaves_nothing_behind(
    watching: Engine,
) -> None:
    workflow_id = await watching.workflow(paid())
    found: list[UUID] = []
    for number in range(60):
        await put(watching, f"o{number}", status="open")
        found += await watching.start(workflow_id, {"id": f"o{number}"})
        await watching.until(found[-1], "waiting")
        await put(watching, f"o{number}", status="paid")
        await asyncio.sleep(0.0005 * number)
        await watching.cancel(found[-1])
    ended = {(await watching.until(run_id)).status for run_id in found}
    assert ended <= {"completed", "cancelled"}
    await until(
        watching,
        "select not exists (select from permaflow.question) and"
        " not exists (select from permaflow.answer) and"
        " not exists (select from permaflow.change_wait)",
    )
