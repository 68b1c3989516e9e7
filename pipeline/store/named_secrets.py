"""Secrets that steps refer to by name. They are written by the gateway and read by runners only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from permaflow.errors import InputError, NotFoundError, SecretHostError
from pipeline.store.database import Connection, Database
from pipeline.store.queries import query
from pipeline.store.rows import every
from pipeline.store.secret_hosts import covers, parse_hosts, plain
from pipeline.store.secrets import SecretBox

_PUT = query("secrets.put")
_HOSTS = query("secrets.hosts")
_GET = query("secrets.get")
_DELETE = query("secrets.delete")
_LIST = query("secrets.list")
_name = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}")

LONGEST = 16_000


@dataclass(frozen=True, slots=True)
class SecretName:
    """What is told of a secret. `hosts`: where it may be sent to; none: anywhere."""

    name: str
    hosts: Sequence[str]
    updated_by: str
    updated_at: datetime


async def put(
    connection: Connection,
    org: UUID,
    name: str,
    value: str,
    *,
    box: SecretBox,
    by: str,
    hosts: Sequence[str] | None = None,
) -> tuple[str, ...]:
    """Set a secret, and give the hosts that it may be sent to; none: anywhere.

    With `hosts` None it keeps those that it has. Raises `InputError`, and `SettingsError` if
    nothing can encrypt it.
    """
    if not _name.fullmatch(name):
        raise InputError("The name of a secret has up to 100 letters, digits, `_`, `.` and `-`.")
    if not 1 <= len(value) <= LONGEST or "\0" in value:
        raise InputError(f"A secret has 1 to {LONGEST:,} characters, and no NUL.")
    bound = await _bound(connection, org, name) if hosts is None else parse_hosts(hosts)
    encrypted = box.encrypt(value.encode(), secret_place(org, name, bound))
    values = {"org": org, "name": name, "encrypted": encrypted, "hosts": list(bound), "by": by}
    await connection.execute(_PUT, values)
    return bound


async def _bound(connection: Connection, org: UUID, name: str) -> tuple[str, ...]:
    cursor = await connection.execute(_HOSTS, {"org": org, "name": name})
    row = await cursor.fetchone()
    return () if row is None else tuple(row[0])


async def delete(connection: Connection, org: UUID, name: str) -> None:
    """Remove a secret. Raises `NotFoundError`."""
    if (await connection.execute(_DELETE, {"org": org, "name": name})).rowcount == 0:
        raise NotFoundError(f"There is no secret {name[:100]!r}.")


async def find(
    connection: Connection, org: UUID, *, after: str = "", limit: int = 50
) -> list[SecretName]:
    """The names of secrets, in order."""
    return await every(connection, SecretName, _LIST, {"org": org, "after": after, "limit": limit})


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A secret as it is stored."""

    encrypted: bytes
    hosts: tuple[str, ...]


async def stored(connection: Connection, org: UUID, name: str) -> StoredSecret | None:
    cursor = await connection.execute(_GET, {"org": org, "name": name}, binary=True)
    row = await cursor.fetchone()
    return None if row is None else StoredSecret(bytes(row[0]), tuple(row[1]))


class StoredSecrets:
    """The secrets of an organisation for one attempt (`permaflow.ports.Secrets`).

    `used` are those that the attempt has seen: what it gives back must not tell them, and it may
    send them to their hosts alone.
    """

    __slots__ = ("_bound", "_box", "_database", "_org", "used")

    def __init__(self, database: Database, box: SecretBox, org: UUID) -> None:
        self._database = database
        self._box = box
        self._org = org
        self._bound: dict[str, tuple[str, ...]] = {}
        self.used: list[str] = []

    async def get(self, name: str) -> str:
        found = await self._database.run_as(self._org, stored, self._org, name)
        if found is None:
            raise NotFoundError(
                f"There is no secret {name[:100]!r}. Set it with `permaflow secret set`, or PUT "
                "/secrets/v1/<name>."
            )
        place = secret_place(self._org, name, found.hosts)
        value = self._box.decrypt(found.encrypted, place).decode()
        if found.hosts:
            self._bound[name] = found.hosts
        self.used.append(value)
        return value

    def check(self, host: str) -> None:
        """Raises `SecretHostError` if the attempt has seen a secret that may not go there."""
        for name, hosts in self._bound.items():
            if not covers(hosts, host):
                raise SecretHostError(
                    f"The secret {name!r} may be sent to {', '.join(hosts)} alone, and this "
                    f"request goes to {plain(host)}. Correct the address, or set the secret again "
                    "with this host among its hosts."
                )


def secret_place(org: UUID, name: str, hosts: Sequence[str] = ()) -> str:
    """What a secret is bound to. Whoever changes its hosts has to know it."""
    bound = f" to {','.join(hosts)}" if hosts else ""
    return f"secret:{org}:{name}{bound}"
