"""What a process of a vertex does beside its work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from permaflow.errors import ServerError, StoreUnavailableError
from pipeline.listening import open_socket
from pipeline.serve import _put_aside
from pipeline.store.database import Database
from pipeline.store.dead_letters import Unreadable


async def test_a_message_is_put_aside_once_the_store_is_back(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Database(database_url) as database:
        run, away = database.run, iter(range(1))

        async def flaky(work: Callable[..., Any], *args: Any) -> Any:
            if next(away, None) is not None:
                raise StoreUnavailableError
            return await run(work, *args)

        monkeypatch.setattr(database, "run", flaky)
        await _put_aside(database, Unreadable("inbox", "pf.inbox.1.x", "no", b"\xff", None))
        async with database.connection() as connection:
            cursor = await connection.execute("select source, raw from permaflow.dead_letter")
            assert await cursor.fetchall() == [("inbox", b"\xff")]


def test_a_port_that_is_taken_is_named_with_the_setting_that_changes_it() -> None:
    with open_socket("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ServerError, match=f"Port {port} .* with PERMAFLOW_HTTP_PORT"):
            open_socket("127.0.0.1", port, "PERMAFLOW_HTTP_PORT")
