"""The first things in a database: its schema, the default organisation, and a key to come in."""

from __future__ import annotations

import os
from pathlib import Path

import psycopg

from pipeline.store import keys, orgs
from pipeline.store.json_values import use_orjson
from pipeline.store.migrate import migrate

SCOPES = (
    "workflows:read",
    "workflows:write",
    "runs:read",
    "runs:write",
    "records:read",
    "records:write",
    "approvals:read",
    "approvals:write",
    "notifications:read",
    "notifications:write",
    "admin",
)


async def bootstrap(database_url: str, key_file: Path) -> str:
    """Migrate, make the default organisation, and give the API key that `key_file` keeps.

    The file is readable by its owner only. A key that the database does not know is replaced.
    """
    await migrate(database_url)
    known = _read(key_file)
    async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as connection:
        use_orjson(connection)
        org = await orgs.ensure(connection)
        if known and await keys.verify(connection, known) is not None:
            return known
        _, text = await keys.create(connection, org.id, "permaflow up", SCOPES)
    _write(key_file, text)
    return text


def _read(path: Path) -> str:
    return path.read_text().strip() if path.exists() else ""


def _write(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text + "\n")
