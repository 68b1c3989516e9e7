"""Organisations: whatever is stored belongs to one."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from uuid_utils.compat import uuid7

from permaflow.errors import StoreError
from pipeline.store.database import Connection
from pipeline.store.queries import query
from pipeline.store.rows import every, one

DEFAULT = "default"

_INSERT = query("orgs.insert")
_BY_SLUG = query("orgs.by_slug")
_LIST = query("orgs.list")


@dataclass(frozen=True, slots=True)
class Org:
    """An organisation; `slug` is its name in addresses."""

    id: UUID
    slug: str
    name: str


async def ensure(connection: Connection, slug: str = DEFAULT, name: str = "") -> Org:
    """The organisation with this slug, made if it is not there.

    A slug is 1 to 63 of a-z, 0-9 and `-`; another one is an `InputError`.
    """
    await connection.execute(_INSERT, {"id": uuid7(), "slug": slug, "name": name or slug})
    found = await by_slug(connection, slug)
    if found is None:
        raise StoreError(f"The organisation {slug} is hidden from this role.")
    return found


async def by_slug(connection: Connection, slug: str) -> Org | None:
    """The organisation with this slug. Needs no organisation."""
    return await one(connection, Org, _BY_SLUG, {"slug": slug})


async def find(connection: Connection) -> list[Org]:
    """All organisations, by slug."""
    return await every(connection, Org, _LIST, {})
