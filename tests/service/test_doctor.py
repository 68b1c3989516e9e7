"""What the doctor sees in the store: versions in use that do not compile here."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
import psycopg
import pytest

from permaflow.plan import Json
from pipeline.cli import checks
from pipeline.cli.checks import FAIL, OK, WARN, Line
from pipeline.ids import new_id
from pipeline.settings import Settings, load_settings
from pipeline.store import orgs, starts, workflows
from pipeline.store.database import Database
from pipeline.store.starts import StartRequest
from tests.fix_engine import graph

pytestmark = pytest.mark.service

SOUND = graph({"id": "a", "type": "logic_delay", "config": {"duration": 1}}, edges=["t>a"])
GONE = graph({"id": "a", "type": "of_a_plug_in", "config": {}}, edges=["t>a"])


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with Database(database_url, size=2) as database:
        yield database


@pytest.fixture
def settings(database_url: str) -> Settings:
    return load_settings(database_url=database_url)


async def workflow(database: Database, name: str, document: Json, runs: int) -> None:
    """An active workflow with so many open runs."""
    org = (await database.run(orgs.ensure)).id
    workflow_id = new_id()
    draft = workflows.Draft(name, orjson.dumps(document), "graph", ())
    await database.run(workflows.create, org, workflow_id, draft)
    await database.run(workflows.set_status, org, workflow_id, "active", ())
    wanted = [StartRequest(new_id(), org, workflow_id, "api") for _ in range(runs)]
    await database.run(starts.start_runs, wanted, inline_bytes=1_000)


async def looked(settings: Settings) -> list[Line]:
    return [line async for line in checks.workflows(settings)]


async def test_a_version_that_no_longer_compiles_is_told_with_its_open_runs(
    database: Database, settings: Settings
) -> None:
    await workflow(database, "sound", SOUND, 1)
    assert [line.state for line in await looked(settings)] == [OK]
    await workflow(database, "lost", GONE, 2)
    await workflow(database, "idle", GONE, 0)
    first, second = await looked(settings)
    assert (first.state, second.state) == (FAIL, FAIL)
    assert first.message.startswith("version 1 of 'lost' does not compile (open runs: 2): ")
    assert "of_a_plug_in" in first.message
    assert first.message.endswith(" (at /nodes/1/type)")
    assert second.message.startswith("version 1 of 'idle' does not compile (open runs: 0): ")
    assert "unrunnable" in first.advice


async def test_it_says_how_many_it_has_not_looked_at(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "MOST_VERSIONS", 1)
    await workflow(database, "idle", GONE, 0)
    await workflow(database, "busy", SOUND, 2)
    lines = await looked(settings)
    assert [line.state for line in lines] == [WARN, OK]
    assert lines[0].message == "versions in use: 2; only the 1 most used were looked at"


async def test_it_names_some_and_stops_in_time(
    database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "MOST_LINES", 1)
    for name in ("one", "two", "three"):
        await workflow(database, name, GONE, 0)
    named, others = await looked(settings)
    assert (named.state, others.state) == (FAIL, FAIL)
    assert others.message == "versions that do not compile, not shown: 2"
    monkeypatch.setattr(checks, "COMPILING", -1.0)
    warned, fine = await looked(settings)
    assert warned.message == "versions in use: 3; only the 0 most used were looked at"
    assert (fine.state, fine.message) == (OK, "versions in use that compile: 0")


async def test_a_database_without_tables_is_for_another_check_to_tell(
    database_url: str, settings: Settings
) -> None:
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as session:
        await session.execute("drop schema permaflow cascade")
    assert await looked(settings) == []
