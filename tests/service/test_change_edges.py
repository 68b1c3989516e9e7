"""Changes right after an activation, in loops and over a lost slot; and whose they are."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest

from connectors.postgres_catalog import Catalog
from connectors.postgres_tables import PostgresTables
from permaflow.errors import InputError, SettingsError
from pipeline import telemetry
from pipeline.runner_services import open_services
from pipeline.settings import load_settings
from pipeline.sources import open_sources
from pipeline.store import orgs
from pipeline.store.database import Database
from tests.fix_engine import WITHIN, task
from tests.fix_site import RunningSite, Sites

RECORDS = "/records/v1/orders"
GOODS = ("create table public.goods (id int primary key)", "insert into public.goods values (1)")


async def sql(url: str, *statements: str) -> list[Any]:
    """What somebody does in the database; answers the rows of the last statement."""
    rows: list[Any] = []
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
        for statement in statements:
            cursor = await session.execute(statement.encode())
            rows = await cursor.fetchall() if cursor.description else []
    return rows


def on_orders(node: dict[str, Any], *events: str) -> dict[str, Any]:
    config = {"object": "orders", "events": list(events or ("created", "updated"))}
    nodes = [{"id": "t", "type": "trigger_record", "config": config}, node]
    return {
        "name": "Orders",
        "definition": {"nodes": nodes, "edges": [{"source": "t", "target": node["id"]}]},
    }


async def letters(site: RunningSite, count: int) -> list[Any]:
    """The dead letters, once there are so many."""
    async with asyncio.timeout(WITHIN):
        while True:
            rows = await site.sql("select source, position, reason from permaflow.dead_letter")
            if len(rows) >= count:
                return rows
            await asyncio.sleep(0.05)


async def test_a_row_that_is_inserted_right_after_the_activation_starts_a_run(sites: Sites) -> None:
    async with sites(cdc_tables="auto") as site:
        await site.sql("create table public.orders (id int primary key)")
        shown = await site.active(on_orders(task("a", output="{{trigger.record.id}}")))
        assert shown["watched"] is True
        await site.sql("insert into public.orders values (7)")
        (run,) = await site.ended(shown["id"], 1)
        assert run["resource_id"] == "7"


async def test_an_activation_tells_that_nobody_is_heard_to_watch(
    site: RunningSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.gateway.watching.LONGEST_WAIT", 0.05)
    monkeypatch.setattr(type(site.engine.bus), "ring", lambda *_: None)
    assert (await site.active(on_orders(task("a"))))["watched"] is False


async def test_an_activation_tells_of_a_table_that_is_not_there_and_holds_up_no_other(
    sites: Sites,
) -> None:
    async with sites(cdc_tables="auto") as site:
        await site.sql("create table public.orders (id int primary key)")

        async def active(name: str) -> Any:
            body = on_orders(task("a"))
            body["definition"]["nodes"][0]["config"]["object"] = name
            return (await site.active({**body, "name": name}))["watched"]

        assert await active("public.nosuch") is False
        for there in ("public.orders", "orders", "crm.contact", "nobody_made_one_yet"):
            assert await active(there) is True, there
        assert (await site.door.post("/records/v1/public.kept", json={"data": {}})).is_success
        assert await active("public.kept") is True
        await site.sql("create table public.nosuch (id int primary key)")
        await site.published("nosuch")
        assert await active("public.nosuch") is True


async def test_an_activation_tells_of_a_table_that_the_settings_do_not_name(
    site: RunningSite,
) -> None:
    await site.sql("create table public.orders (id int primary key)")
    body = on_orders(task("a"))
    body["definition"]["nodes"][0]["config"]["object"] = "public.orders"
    assert (await site.active(body))["watched"] is False


async def test_a_workflow_that_changes_the_record_it_is_started_by_comes_to_an_end(
    sites: Sites,
) -> None:
    config = {
        "operation": "update",
        "object": "orders",
        "id": "{{trigger.record.id}}",
        "data": {"seen": True},
    }
    async with sites(max_change_depth=3) as site:
        node = {"id": "again", "type": "action_record", "config": config}
        workflow_id = (await site.active(on_orders(node)))["id"]
        await site.door.post(RECORDS, json={"data": {"amount": 1}})
        ((source, _, reason),) = await letters(site, 1)
        runs = list(reversed(await site.ended(workflow_id, 4)))
        assert len(runs) == 4
        assert source == "postgres"
        assert runs[-1]["id"] in reason
        detail = [(await site.door.get(f"/workflows/v1/runs/{run['id']}")).json() for run in runs]
        assert [run["requested_by"] or "" for run in detail] == [
            "",
            *(f"run:{run['id']}" for run in runs[:-1]),
        ]


async def test_a_loop_through_a_table_comes_to_an_end(sites: Sites, database_url: str) -> None:
    source = database_url.replace(" ", "%20")
    assert "://" in source
    config = {
        "operation": "update",
        "source": "shop",
        "table": "public.orders",
        "match": {"id": "{{trigger.record.id}}"},
        "values": {"seen": 1},
    }
    async with sites(max_change_depth=1, cdc_tables="auto", sources=f"shop={source}") as site:
        await site.sql("create table public.orders (id int primary key, seen int)")
        node = {"id": "again", "type": "action_record", "config": config}
        workflow_id = (await site.active(on_orders(node)))["id"]
        await site.published("orders")
        await site.sql("insert into public.orders values (1, 0)")
        ((_, _, reason),) = await letters(site, 1)
        assert "PERMAFLOW_MAX_CHANGE_DEPTH" in reason
        assert len(await site.ended(workflow_id, 2)) == 2


async def test_an_ingest_that_finds_its_slot_gone_says_so_and_goes_on(
    sites: Sites, database_url: str
) -> None:
    slot = f"test_{uuid.uuid4().hex[:12]}"
    flags = {"cdc_slot": slot, "cdc_tables": "auto", "keep_slot": True}
    before = telemetry.SOURCE_GAPS.labels("postgres")._value.get()
    try:
        async with sites(**flags) as site:
            await site.sql("create table public.orders (id int primary key)")
            workflow_id = (await site.active(on_orders(task("a"))))["id"]
            await site.published("orders")
            assert await site.sql("select 1 from permaflow.dead_letter") == []
        await site.sql(
            f"select pg_drop_replication_slot('{slot}')", "insert into public.orders values (1)"
        )
        async with sites(**flags) as site:
            ((source, position, reason),) = await letters(site, 1)
            await site.published("orders")
            await site.sql("insert into public.orders values (2)")
            (run,) = await site.ended(workflow_id, 1)
        assert (source, position, run["resource_id"]) == ("postgres", "gap", "2")
        assert "are lost" in reason
        assert telemetry.SOURCE_GAPS.labels("postgres")._value.get() == before + 1
    finally:
        await Catalog(database_url, slot, slot).drop()


@pytest.mark.parametrize(("owner", "count"), [("default", 0), ("other", 1), ("*", 1)])
async def test_a_table_belongs_to_the_organisation_that_the_settings_name(
    sites: Sites, store: Database, other_org: UUID, owner: str, count: int
) -> None:
    async with sites(cdc_tables="public.orders", cdc_org=owner) as site:
        await site.sql("create table public.orders (id int primary key)")
        await site.published("record")
        site.engine.org = other_org
        await site.engine.workflow(on_orders(task("a"))["definition"])
        site.engine.bus.ring("pf.workflows")
        await site.published("orders")
        await site.sql("insert into public.orders values (1)")
        # A change of the built-in records comes after it in the same log.
        site.engine.org = (await store.run(orgs.ensure)).id
        mine = (await site.active(on_orders(task("a"))))["id"]
        await site.door.post(RECORDS, json={"data": {}})
        await site.ended(mine, 1)
        rows = await site.sql(f"select 1 from permaflow.run where org_id = '{other_org}'")
        assert len(rows) == count


async def test_a_source_of_changes_has_an_owner_that_there_is(store: Database) -> None:
    with pytest.raises(SettingsError, match="PERMAFLOW_CDC_ORG names the organisation 'nobody'"):
        await open_sources(load_settings(cdc_org="nobody"), store)


async def test_only_the_organisation_of_a_database_can_write_to_it(
    store: Database, database_url: str, org: UUID, other_org: UUID
) -> None:
    sources = f"shop={database_url} other/theirs={database_url} */all={database_url}"
    async with AsyncExitStack() as stack:
        services = await open_services(load_settings(sources=sources), store, stack)
        mine, theirs = services.tables(org.hex), services.tables(other_org.hex)
        nobodys = services.tables(uuid.uuid4().hex)
        match = {"id": 1}
        await sql(database_url, *GOODS)
        for tables, source in ((mine, "shop"), (theirs, "theirs"), (mine, "all"), (nobodys, "all")):
            assert await tables.get(source, "goods", match) == {"id": 1}
        for tables, source in ((theirs, "shop"), (mine, "theirs"), (nobodys, "shop")):
            with pytest.raises(InputError, match="no source"):
                await tables.get(source, "goods", match)


async def test_keys_of_old_writes_are_forgotten(
    store: Database, database_url: str, org: UUID
) -> None:
    left = "select 1 from permaflow_target.applied"
    age = "update permaflow_target.applied set at = at - interval '1 day'"
    settings = load_settings(sources=f"shop={database_url}", key_retention_days=2)
    await sql(database_url, *GOODS)
    async with AsyncExitStack() as stack:
        tables = (await open_services(settings, store, stack)).tables(org.hex)
        await tables.delete("shop", "goods", {"id": 1}, key="old:a")
        assert isinstance(tables, PostgresTables)
        await sql(database_url, age)
        await tables.prune(timedelta(days=2))
    assert len(await sql(database_url, left)) == 1
    await sql(database_url, age)
    async with AsyncExitStack() as stack, asyncio.timeout(WITHIN):
        await open_services(settings, store, stack)
        while await sql(database_url, left):  # noqa: ASYNC110 - the server tells nobody
            await asyncio.sleep(0.05)
