"""What a process of a vertex says when it cannot start."""

from __future__ import annotations

import pytest

from permaflow.errors import BusUnavailableError, StoreError, StoreUnavailableError
from pipeline.bus.jetstream import connect
from pipeline.serve import _parts, serve
from pipeline.settings import load_settings
from pipeline.store.migrate import check, migrate


@pytest.mark.parametrize("vertex", ["clock", "gateway"])
async def test_a_vertex_says_what_its_database_lacks_instead_of_starting(
    empty_database_url: str, nats_url: str, vertex: str
) -> None:
    settings = load_settings(database_url=empty_database_url, nats_url=nats_url)
    with pytest.raises(StoreError, match=r"lacks the schema of Permaflow\. Run `permaflow db mig"):
        await serve(vertex, settings)
    await migrate(empty_database_url, until="0006")
    with pytest.raises(StoreError, match="lacks the migration 0007_pre_waits"):
        await serve(vertex, settings)
    await migrate(empty_database_url)
    await check(empty_database_url)


async def test_a_database_that_has_just_gone_lets_a_vertex_start(
    database_url: str, nats_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_url: str) -> None:
        raise StoreUnavailableError

    monkeypatch.setattr("pipeline.store.migrate.check", away)
    settings = load_settings(database_url=database_url, nats_url=nats_url)
    async with _parts("clock", settings) as parts:
        assert parts.bus.connected


async def test_a_nats_that_is_not_there_is_named_with_its_port() -> None:
    with pytest.raises(BusUnavailableError) as told:
        await connect("nats://user:secret@127.0.0.1:1,localhost", name="test")
    assert "NATS at 127.0.0.1:1, localhost:4222 cannot be reached" in str(told.value)
    assert "secret" not in str(told.value)
