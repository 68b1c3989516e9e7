"""The embedded servers, for real: started, killed, restarted, refused."""

from __future__ import annotations

import psycopg
import pytest

pytestmark = pytest.mark.service


async def ask(url: str, question: str) -> object:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
        row = await (await session.execute(question.encode())).fetchone()
    return row[0] if row else None


async def test_each_test_has_a_database_of_its_own(database_url: str) -> None:
    assert str(await ask(database_url, "select current_database()")).startswith("test_")


async def test_the_bus_is_empty_at_the_start_of_a_test(nats_url: str) -> None:
    import nats

    client = await nats.connect(nats_url)
    try:
        assert await client.jetstream().streams_info() == []
    finally:
        await client.close()


@pytest.mark.parametrize(
    ("setting", "value"),
    [("wal_level", "logical"), ("fsync", "on"), ("synchronous_commit", "on")],
)
async def test_postgres_is_durable_and_ready_for_change_data_capture(
    database_url: str, setting: str, value: str
) -> None:
    assert await ask(database_url, f"show {setting}") == value
