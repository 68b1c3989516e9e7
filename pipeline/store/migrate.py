"""Brings a database to the schema of this version: `migrations/NNNN_pre_what.sql`, forward only.

`pre` files are safe while the version before still runs and come before the deployment; `post`
files come after it. Each runs in one transaction, except those whose first line is
`-- no transaction` (a single statement, such as `create index concurrently`). A released file is
never edited again.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg

from permaflow.errors import StoreError
from pipeline.store.queries import query
from pipeline.store.sqlstate import store_errors

_FOLDER = Path(__file__).with_name("migrations")
_FILE = re.compile(r"(\d{4})_(pre|post)_[a-z0-9_]+")
_NO_TRANSACTION = "-- no transaction"
_TRY_LOCK_EVERY = 0.1

_LOCK = query("migrations.lock")
_UNLOCK = query("migrations.unlock")
_SCHEMA = query("migrations.schema")
_PREPARE = query("migrations.prepare")
_EXISTS = query("migrations.exists")
_APPLIED = query("migrations.applied")
_ADD = query("migrations.add")

Session = psycopg.AsyncConnection[tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Migration:
    """One file; `version` is its name without the suffix."""

    version: str
    text: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def in_transaction(self) -> bool:
        return not self.text.startswith(_NO_TRANSACTION)


@dataclass(frozen=True, slots=True)
class Status:
    """What a database has, and what it lacks, oldest first."""

    applied: tuple[str, ...]
    pending: tuple[str, ...]


def read_migrations(folder: Path = _FOLDER) -> list[Migration]:
    """The migrations of this version, in order. Raises `ValueError` for a name out of line."""
    found = [Migration(p.stem, p.read_text(encoding="utf-8")) for p in folder.glob("*.sql")]
    found.sort(key=lambda migration: migration.version)
    last = 0
    for migration in found:
        match = _FILE.fullmatch(migration.version)
        if match is None or int(match[1]) <= last:
            expected = f"{last + 1:04}_pre_… or {last + 1:04}_post_…"
            raise ValueError(f"migrations/{migration.version}.sql: expected {expected}")
        last = int(match[1])
    return found


async def migrate(
    database_url: str, *, until: str | None = None, folder: Path = _FOLDER
) -> list[str]:
    """Applies what is missing, up to and including the migration that starts with `until`.

    Answers the versions it applied. Any number of processes may call it at once: one works, the
    others wait and find nothing to do. Raises `StoreError`.
    """
    known = read_migrations(folder)
    chosen = known[: _position(known, until) + 1]
    async with _locked(database_url) as session:
        await session.execute(_SCHEMA)
        await session.execute(_PREPARE)
        missing = _missing(known, await _applied(session))
        todo = [migration for migration in chosen if migration in missing]
        for migration in todo:
            await _apply(session, migration)
    return [migration.version for migration in todo]


async def status(database_url: str, *, folder: Path = _FOLDER) -> Status:
    """What is applied and what is pending. Changes nothing. Raises `StoreError`."""
    with store_errors():
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as session:
            known = read_migrations(folder)
            applied = await _applied(session)
            pending = _missing(known, applied)
    return Status(tuple(applied), tuple(migration.version for migration in pending))


async def check(database_url: str) -> None:
    """Raises `StoreError` if the database lacks what this version needs of it. A newer version may
    have migrated it already.
    """
    with store_errors():
        async with await psycopg.AsyncConnection.connect(database_url, autocommit=True) as session:
            applied = await _applied(session)
    missing = [
        each.version
        for each in read_migrations()
        if each.version not in applied and "_pre_" in each.version
    ]
    if missing:
        lacks = f"the migration {missing[0]}" if applied else "the schema of Permaflow"
        raise StoreError(f"The database lacks {lacks}. Run `permaflow db migrate`.")


def _position(known: Sequence[Migration], until: str | None) -> int:
    if until is None:
        return len(known) - 1
    for position, migration in enumerate(known):
        if migration.version.startswith(until):
            return position
    raise StoreError(f"There is no migration {until}; the last one is {known[-1].version}.")


@asynccontextmanager
async def _locked(database_url: str) -> AsyncIterator[Session]:
    with store_errors():
        async with await psycopg.AsyncConnection.connect(
            database_url, autocommit=True, application_name="permaflow migrate"
        ) as session:
            while not await _single(session, _LOCK):  # noqa: ASYNC110 - the holder is elsewhere
                await asyncio.sleep(_TRY_LOCK_EVERY)
            yield session
            await session.execute(_UNLOCK)


async def _applied(session: Session) -> dict[str, str]:
    if not await _single(session, _EXISTS):
        return {}
    rows = await (await session.execute(_APPLIED)).fetchall()
    return {str(row[0]): str(row[1]) for row in rows}


async def _single(session: Session, text: LiteralString) -> object:
    row = await (await session.execute(text)).fetchone()
    return row[0] if row else None


def _missing(known: Sequence[Migration], applied: dict[str, str]) -> list[Migration]:
    names = {migration.version for migration in known}
    newer = sorted(set(applied) - names)
    if newer:
        raise StoreError(
            f"The database has migration {newer[-1]}, which this version of Permaflow does not "
            "know. A newer version was here: run that one, or restore the backup from before its "
            "upgrade."
        )
    for migration in known:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise StoreError(
                f"Migration {migration.version} was applied to this database with another content. "
                "Released migrations never change: put the file back and write a new one."
            )
    return [migration for migration in known if migration.version not in applied]


async def _apply(session: Session, migration: Migration) -> None:
    text: LiteralString = cast(Any, migration.text)
    note = {"version": migration.version, "checksum": migration.checksum}
    try:
        if not migration.in_transaction:
            await session.execute(text)
            await session.execute(_ADD, note)
            return
        async with session.transaction():
            await session.execute(text)
            await session.execute(_ADD, note)
    except psycopg.Error as error:
        said = error.diag.message_primary or str(error)
        hint = f" {error.diag.message_hint}" if error.diag.message_hint else ""
        raise StoreError(f"Migration {migration.version} failed: {said}.{hint}") from error
