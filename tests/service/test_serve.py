"""What a process of a vertex does beside its work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from permaflow.errors import ServerError, StoreError, StoreUnavailableError
from pipeline.listening import open_socket
from pipeline.serve import put_aside
from pipeline.store.database import Database


class Letter:
    """A message that nobody can read, and what the store held when it was let go."""

    subject, data, deliveries, again = "pf.inbox.1.x", b"\xff", 1, False

    def __init__(self) -> None:
        self.ends: list[str] = []

    def term(self) -> None:
        self.ends.append("term")

    def nak(self, _delay: timedelta) -> None:
        self.ends.append("nak")


async def letters(database: Database) -> list[Any]:
    async with database.connection() as connection:
        cursor = await connection.execute("select source, position, raw from permaflow.dead_letter")
        return await cursor.fetchall()


async def test_a_message_is_put_aside_once_the_store_is_back(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    letter = Letter()
    async with Database(database_url) as database:
        run, away = database.run, iter(range(1))

        async def flaky(work: Callable[..., Any], *args: Any) -> Any:
            assert letter.ends == []
            if next(away, None) is not None:
                raise StoreUnavailableError
            return await run(work, *args)

        monkeypatch.setattr(database, "run", flaky)
        await put_aside(database, "inbox", letter)  # type: ignore[arg-type]
        assert await letters(database) == [("inbox", "pf.inbox.1.x", b"\xff")]
    assert letter.ends == ["term"]


@pytest.mark.parametrize(
    ("end", "ends"), [(asyncio.CancelledError(), []), (StoreError("no"), ["nak"])]
)
async def test_a_message_that_is_not_stored_is_not_given_up(
    database_url: str, monkeypatch: pytest.MonkeyPatch, end: BaseException, ends: list[str]
) -> None:
    """Be it that the process ends meanwhile, or that the store will not have it."""
    letter = Letter()
    async with Database(database_url) as database:

        async def fails(*_: Any) -> None:
            raise end

        monkeypatch.setattr(database, "run", fails)
        with pytest.raises(type(end)):
            await put_aside(database, "inbox", letter)  # type: ignore[arg-type]
        assert await letters(database) == []
    assert letter.ends == ends


def test_a_port_that_is_taken_is_named_with_the_setting_that_changes_it() -> None:
    with open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"Port {port} .* with PERMAFLOW_HTTP_PORT"):
            open_socket("127.0.0.1", port, "PERMAFLOW_HTTP_PORT")
