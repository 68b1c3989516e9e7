"""The owner of the schema need not be a superuser; roles are made once for the whole cluster."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest

from permaflow.errors import StoreError
from pipeline.store import orgs, retention, runs
from pipeline.store.database import GATEWAY_ROLE, Database
from pipeline.store.migrate import migrate
from tests.fix_servers import StackMaker, execute, with_database
from tests.fix_store import active_workflow, finish, start

pytestmark = pytest.mark.service


@pytest.fixture
async def cluster(make_stack: StackMaker) -> str:
    """A server in which no database has made the roles yet."""
    stack = await make_stack("postgres")
    return stack.servers["postgres"].url


def as_user(url: str, user: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{user}:secret@{parts.hostname}:{parts.port}"))


async def owned_database(url: str, user: str, options: str) -> str:
    await execute(url, f"create role {user} login password 'secret' {options}")
    await execute(url, f"create database {user} owner {user}")
    return as_user(with_database(url, user), user)


async def test_databases_of_one_cluster_can_be_migrated_at_the_same_time(cluster: str) -> None:
    names = [f"parallel_{number}" for number in range(4)]
    for name in names:
        await execute(cluster, f"create database {name}")
    done = await asyncio.gather(*(migrate(with_database(cluster, name)) for name in names))
    assert all(done)


async def test_an_owner_who_may_create_roles_needs_no_administrator(cluster: str) -> None:
    url = await owned_database(cluster, "maker", "createrole")
    await migrate(url)
    async with Database(url) as owner, Database(url, role=GATEWAY_ROLE) as gateway:
        org = await owner.run(orgs.ensure)
        workflow_id = await active_workflow(owner, org.id)
        run_id = await start(owner, org.id, workflow_id)
        assert (await gateway.run_as(org.id, runs.get, org.id, run_id)).id == run_id


async def test_an_owner_who_may_not_create_roles_learns_what_an_administrator_must_do(
    cluster: str,
) -> None:
    url = await owned_database(cluster, "plain", "")
    with pytest.raises(StoreError, match="Let an administrator run: create role") as caught:
        await migrate(url)
    advice = str(caught.value).partition("Let an administrator run: ")[2].rstrip(".")
    await execute(cluster, advice)
    await migrate(url)
    async with Database(url, role=GATEWAY_ROLE) as gateway:
        assert await gateway.run(orgs.by_slug, "nobody") is None


async def test_an_owner_without_the_role_of_the_engine_drops_no_open_runs(cluster: str) -> None:
    url = await owned_database(cluster, "forgetful", "createrole")
    await migrate(url)
    await execute(cluster, "revoke permaflow_engine from forgetful granted by forgetful")
    async with Database(url) as owner:
        with pytest.raises(StoreError, match="sees no runs"):
            await retention.drop_old_months(owner, 0)


async def test_the_owner_drops_months_only_when_their_runs_have_ended(cluster: str) -> None:
    url = await owned_database(cluster, "keeper", "createrole")
    await migrate(url)
    async with Database(url) as owner:
        org = await owner.run(orgs.ensure)
        run_id = await start(owner, org.id, await active_workflow(owner, org.id))
        async with await psycopg.AsyncConnection.connect(url) as session:
            before = await session.execute("select permaflow.drop_oldest_month('2999-01-01')")
            assert (await before.fetchone() or ("",))[0] is not None  # the month before, empty
            held = await session.execute("select permaflow.drop_oldest_month('2999-01-01')")
            assert await held.fetchone() == (None,)
        await finish(owner, run_id)
