"""One connection to PostgreSQL: how it is set up, and which servers are refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from permaflow.errors import SettingsError
from pipeline.store.json_values import use_orjson
from pipeline.store.queries import query
from pipeline.store.sqlstate import store_errors

Connection = psycopg.AsyncConnection[Any]

GATEWAY_ROLE = "permaflow_gateway"
ENGINE_ROLE = "permaflow_engine"
OLDEST_VERSION = 15

_CONFIGURE = query("session.configure")
_SERVER = query("session.server")
_NOTICED = {
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
"""A server that vanishes without a word is noticed within 15 s; the system's own limit is hours."""

_LASTING = {
    "fsync": ("on",),
    "full_page_writes": ("on",),
    "synchronous_commit": ("on", "local", "remote_write", "remote_apply"),
}


@dataclass(frozen=True, slots=True)
class Session:
    """What every connection of a process has in common.

    `role` is set once, when it connects. `prepare_threshold=None` suits a PgBouncer. With
    `plans="force_generic_plan"` a statement is planned once, not for the values of each call.
    """

    application_name: str = "permaflow"
    role: str | None = None
    statement_timeout: timedelta = timedelta(seconds=30)
    idle_timeout: timedelta = timedelta(seconds=10)
    prepare_threshold: int | None = 1
    plans: str = "auto"

    def options(self) -> dict[str, Any]:
        """What the driver needs to connect."""
        return {
            "autocommit": True,
            "application_name": self.application_name,
            "prepare_threshold": self.prepare_threshold,
            **_NOTICED,
        }

    async def configure(self, connection: Connection) -> None:
        """Sets up a connection that was made with `options`."""
        use_orjson(connection)
        values = {
            "role": self.role or "none",
            "statement_timeout": f"{self.statement_timeout // timedelta(milliseconds=1)}ms",
            "plans": self.plans,
            "idle_timeout": f"{self.idle_timeout // timedelta(milliseconds=1)}ms",
        }
        await connection.execute(_CONFIGURE, values)


async def connect(url: str, session: Session) -> Connection:
    """A connection of its own, in autocommit, set up like those of a pool. Raises `StoreError`."""
    with store_errors():
        connection = await psycopg.AsyncConnection.connect(url, **session.options())
        await session.configure(connection)
    return connection


async def check_server(connection: Connection) -> None:
    """Raises `SettingsError` where the server is too old or forgets what it has confirmed."""
    async with connection.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(_SERVER)
        refused = refusal(await cursor.fetchone() or {})
    if refused is not None:
        raise refused


def refusal(found: Mapping[str, Any]) -> SettingsError | None:
    """Why this server cannot be the truth, if it cannot."""
    version = int(found["version"]) // 10000
    if version < OLDEST_VERSION:
        return SettingsError(
            f"The database is PostgreSQL {version}; {OLDEST_VERSION} or newer is needed."
        )
    for name, allowed in _LASTING.items():
        if found[name] not in allowed:
            return SettingsError(
                f"The database runs with {name} = {found[name]}: it forgets what it has confirmed "
                f"when it crashes. Set {name} = on, and restart or reload it."
            )
    return None
