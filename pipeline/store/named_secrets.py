"""Secrets that steps refer to by name. They are written by the gateway and read by runners only."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from permaflow.errors import InputError, NotFoundError
from pipeline.store.database import Connection, Database
from pipeline.store.queries import query
from pipeline.store.rows import every
from pipeline.store.secrets import SecretBox

_PUT = query("secrets.put")
_GET = query("secrets.get")
_DELETE = query("secrets.delete")
_LIST = query("secrets.list")
_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}")

LONGEST = 16_000


@dataclass(frozen=True, slots=True)
class SecretName:
    """What is told of a secret."""

    name: str
    updated_by: str
    updated_at: datetime


async def put(
    connection: Connection, org: UUID, name: str, value: str, *, box: SecretBox, by: str
) -> None:
    """Set a secret. Raises `InputError`, and `SettingsError` if nothing can encrypt it."""
    if not _name.fullmatch(name):
        raise InputError("The name of a secret has up to 100 letters, digits, `_`, `.` and `-`.")
    if not 1 <= len(value) <= LONGEST or "\0" in value:
        raise InputError(f"A secret has 1 to {LONGEST:,} characters, and no NUL.")
    encrypted = box.encrypt(value.encode(), secret_place(org, name))
    values = {"org": org, "name": name, "encrypted": encrypted, "by": by}
    await connection.execute(_PUT, values)


async def delete(connection: Connection, org: UUID, name: str) -> None:
    """Remove a secret. Raises `NotFoundError`."""
    if (await connection.execute(_DELETE, {"org": org, "name": name})).rowcount == 0:
        raise NotFoundError(f"There is no secret {name[:100]!r}.")


async def find(
    connection: Connection, org: UUID, *, after: str = "", limit: int = 50
) -> list[SecretName]:
    """The names of secrets, in order."""
    return await every(connection, SecretName, _LIST, {"org": org, "after": after, "limit": limit})


async def encrypted(connection: Connection, org: UUID, name: str) -> bytes | None:
    """A secret as it is stored."""
    cursor = await connection.execute(_GET, {"org": org, "name": name}, binary=True)
    row = await cursor.fetchone()
    return None if row is None else bytes(row[0])


class StoredSecrets:
    """The secrets of an organisation for one attempt (`permaflow.ports.Secrets`).

    `used` are those that the attempt has seen: what it gives back must not tell them.
    """

    __slots__ = ("_box", "_database", "_org", "used")

    def __init__(self, database: Database, box: SecretBox, org: UUID) -> None:
        self._database = database
        self._box = box
        self._org = org
        self.used: list[str] = []

    async def get(self, name: str) -> str:
        stored = await self._database.run_as(self._org, encrypted, self._org, name)
        if stored is None:
            raise NotFoundError(
                f"There is no secret {name[:100]!r}. Set it with `permaflow secret set`, or PUT "
                "/secrets/v1/<name>."
            )
        value = self._box.decrypt(stored, secret_place(self._org, name)).decode()
        self.used.append(value)
        return value


def secret_place(org: UUID, name: str) -> str:
    """What a secret is bound to."""
    return f"secret:{org}:{name}"
