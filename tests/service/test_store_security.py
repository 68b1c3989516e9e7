"""Row level security: the gateway sees one organisation, whatever it asks for."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from permaflow.errors import NotFoundError, StoreError
from pipeline.store import keys, orgs, runs, triggers, workflows
from pipeline.store.database import Connection, Database
from pipeline.store.starts import StartRequest, start_runs
from tests.fix_store import DRAFT, TRIGGERS, active_workflow, append, execute, start

pytestmark = pytest.mark.service

OWNED = """
    select c.relname from pg_class c
    where c.relnamespace = 'permaflow'::regnamespace and c.relkind in ('r', 'p')
      and not c.relispartition and exists (
        select from pg_attribute where attrelid = c.oid and attname = 'org_id')
    order by 1"""

PARTITIONS = """
    select c.relname from pg_class c
    where c.relnamespace = 'permaflow'::regnamespace and c.relkind = 'r' and c.relispartition"""


async def fill(store: Database, org: UUID) -> UUID:
    """At least one row of the organisation in every table that has one; answers its workflow."""
    workflow_id = await active_workflow(store, org)
    run_id = await start(
        store, org, workflow_id, key=uuid7().bytes * 2, input=b'"' + b"x" * 40_000 + b'"'
    )
    await append(store, org, run_id, 1)
    await store.run(keys.create, org, "key", ["runs:read"])
    values = {"run": run_id, "org": org, "workflow": workflow_id, "id": uuid7()}
    for statement in (
        "insert into permaflow.timer values (%(run)s, 'k', %(org)s, now())",
        "insert into permaflow.lease values (%(run)s, 's', 1, %(org)s, 'h', now(), now())",
        "insert into permaflow.question values (%(id)s, %(org)s, %(run)s, '', 'n', 1, 'k', '{}')",
        "insert into permaflow.answer values (%(id)s, %(org)s, %(run)s, '', 'n', 1)",
        "insert into permaflow.user_group (org_id, name) values (%(org)s, 'g')",
        "insert into permaflow.user_group_member values (%(org)s, 'g', 'ana')",
        "insert into permaflow.approval (id, org_id, run_id, scope, node, attempt, to_all, terms)"
        " values (%(id)s, %(org)s, %(run)s, '', 'n', 1, true, '{}')",
        "insert into permaflow.approval_assignee values (%(id)s, 'user', 'ana', %(org)s)",
        "insert into permaflow.approval_event (id, org_id, approval_id, kind)"
        " values (%(id)s, %(org)s, %(id)s, 'remind')",
        "insert into permaflow.approval_link values (%(org)s::text, %(org)s, %(id)s, 'ana',"
        " 'approve', sha256(''), now(), now())",
        "insert into permaflow.record (org_id, object, id, data) values (%(org)s, 'o', 'i', '{}')",
        "insert into permaflow.dead_letter values (%(id)s, %(org)s, 's', 'p', 'r', '')",
        "insert into permaflow.audit values (%(id)s, %(org)s, 'a', 'b', 'c')",
        "insert into permaflow.workflow_stats values (%(workflow)s, %(org)s)",
        "insert into permaflow.notification_box values (%(org)s, 'ada', 1)",
        "insert into permaflow.notification"
        " (org_id, id, user_name, seq, title, description, link, data)"
        " values (%(org)s, %(id)s, 'ada', 1, 't', 'd', '', 'null')",
        "insert into permaflow.document values (%(org)s, %(id)s, 'n', 'text/csv', '')",
        "insert into permaflow.secret values (%(org)s, 'n', '', 'me')",
        "insert into permaflow.change_wait values (%(id)s, %(org)s, 'o', 'i', '[]')",
        "insert into permaflow.family values (%(run)s, %(org)s, 1)",
        "insert into permaflow.claim values (%(run)s, '', 'n', 1, %(org)s, %(id)s)",
    ):
        await store.run(Connection.execute, statement.encode(), values)
    return workflow_id


async def attempt(gateway: Database, org: UUID, statement: str, value: object) -> int:
    """How many rows it saw or changed; refused is none."""

    async def work(connection: Connection) -> int:
        return (await connection.execute(statement.encode(), (value,))).rowcount

    try:
        return await gateway.run_as(org, work)
    except StoreError as error:
        if "permission denied" in str(error) or "row-level security" in str(error):
            return 0
        raise


async def test_another_organisation_has_no_rows_in_any_table(
    store: Database, gateway: Database, org: UUID, other_org: UUID
) -> None:
    await fill(store, org)
    await fill(store, other_org)
    tables = [row[0] for row in await execute(store, OWNED)]
    assert len(tables) > 15
    for table in tables:
        whole = f"select from permaflow.{table} where org_id = %s"
        assert (await store.run(Connection.execute, whole.encode(), (org,))).rowcount >= 1, table
        for statement in (
            whole,
            f"delete from permaflow.{table} where org_id = %s",
            f"update permaflow.{table} set org_id = org_id where org_id = %s",
        ):
            assert await attempt(gateway, other_org, statement, org) == 0, statement
        assert (await store.run(Connection.execute, whole.encode(), (org,))).rowcount >= 1, table


async def test_its_own_organisation_has_rows(store: Database, gateway: Database, org: UUID) -> None:
    await fill(store, org)
    visible = ("api_key", "workflow", "workflow_version", "trigger", "webhook", "workflow_stats")
    for table in (*visible, "run", "journal", "payload", "run_key", "record", "audit"):
        statement = f"select from permaflow.{table} where org_id = %s"
        assert await attempt(gateway, org, statement, org) >= 1, table


async def test_rows_cannot_be_written_into_another_organisation(
    store: Database, gateway: Database, org: UUID, other_org: UUID
) -> None:
    statement = (
        "insert into permaflow.record (org_id, object, id, data) values (%s, 'o', 'i', '{}')"
    )
    assert await attempt(gateway, org, statement, other_org) == 0
    assert await attempt(gateway, org, statement, org) == 1
    moved = "update permaflow.record set org_id = %s"
    assert await attempt(gateway, org, moved, other_org) == 0


async def test_partitions_are_closed_to_the_gateway(
    store: Database, gateway: Database, org: UUID
) -> None:
    partitions = [row[0] for row in await execute(store, PARTITIONS)]
    assert partitions
    for partition in partitions:
        with pytest.raises(StoreError, match="permission denied"):
            await gateway.run_as(
                org, Connection.execute, f"select from permaflow.{partition}".encode()
            )


async def test_without_an_organisation_every_question_is_an_error(
    store: Database, gateway: Database, org: UUID
) -> None:
    await fill(store, org)
    with pytest.raises(StoreError, match=r"permaflow\.org is not set"):
        await gateway.run(workflows.find, org)
    await gateway.run_as(org, workflows.find, org)
    with pytest.raises(StoreError, match=r"permaflow\.org is not set"):
        await gateway.run(runs.find, org)


async def test_what_comes_before_the_organisation_is_found_without_one(
    store: Database, gateway: Database, org: UUID, workflow: UUID
) -> None:
    key, text = await store.run(keys.create, org, "key", ["runs:read"])
    [hook] = await store.run(triggers.webhooks, org, workflow)
    found = await gateway.run(keys.verify, text)
    assert found is not None
    assert (found.key_id, found.org) == (key.id, org)
    target = await gateway.run(triggers.find_webhook, hook.token)
    assert target is not None
    assert (target.org_id, target.workflow_id, target.node) == (org, workflow, "hook")
    assert await gateway.run(orgs.by_slug, "default") is not None


async def test_a_pooled_connection_forgets_the_organisation_before(
    store: Database, gateway: Database, org: UUID, other_org: UUID
) -> None:
    mine = await active_workflow(store, org)
    theirs = await active_workflow(store, other_org)

    async def look(number: int) -> None:
        own, foreign = ((org, mine), (other_org, theirs))[:: 1 if number % 2 else -1]
        found = await gateway.run_as(own[0], workflows.find, own[0])
        assert [each.id for each in found] == [own[1]]
        with pytest.raises(NotFoundError):
            await gateway.run_as(own[0], workflows.get, foreign[0], foreign[1])

    await asyncio.gather(*(look(number) for number in range(200)))


async def test_the_gateway_may_create_activate_start_cancel_and_delete(
    store: Database, gateway: Database, org: UUID
) -> None:
    workflow_id = uuid7()
    await gateway.run_as(org, workflows.create, org, workflow_id, DRAFT)
    await gateway.run_as(org, workflows.set_status, org, workflow_id, "active", TRIGGERS)
    await gateway.run_as(org, workflows.update, org, workflow_id, DRAFT)

    async def begin(connection: Connection) -> UUID:
        request = StartRequest(uuid7(), org, workflow_id, "api", bytes(32), b"1" * 40_000)
        [first] = await start_runs(connection, [request])
        [second] = await start_runs(connection, [request])
        assert first.run_id == second.run_id  # type: ignore[union-attr]
        return request.run_id

    run_id = await gateway.run_as(org, begin)
    assert await gateway.run_as(org, runs.request_cancel, org, run_id, "me")
    await gateway.run_as(org, workflows.delete, org, workflow_id)
