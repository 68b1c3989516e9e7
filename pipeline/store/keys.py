"""API keys: `pf_<id>_<secret>`, the secret 32 random bytes.

The secret is shown once and kept as its SHA-256; it is too random to need a slow hash.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from permaflow.errors import NotFoundError
from pipeline.store.database import Connection
from pipeline.store.queries import query
from pipeline.store.rows import every, one

PREFIX = "pf"
_FORM = re.compile(rf"{PREFIX}_([0-9a-f]{{16}})_([A-Za-z0-9_-]{{43}})")
_NOBODY = bytes(32)

_INSERT = query("keys.insert")
_FIND = query("keys.find")
_REVOKE = query("keys.revoke")
_LIST = query("keys.list")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret."""

    id: str
    org: UUID
    name: str
    scopes: list[str]
    user_name: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a valid key speaks for."""

    key_id: str
    org: UUID
    name: str
    scopes: frozenset[str]
    user_name: str


@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    org: UUID
    name: str
    scopes: list[str]
    user_name: str
    secret_sha256: bytes
    is_valid: bool


async def create(
    connection: Connection,
    org: UUID,
    name: str,
    scopes: Sequence[str],
    *,
    user_name: str = "",
    expires_at: datetime | None = None,
) -> tuple[ApiKey, str]:
    """A new key, and its text, which nobody can tell again."""
    secret = secrets.token_urlsafe(32)
    key_id = secrets.token_hex(8)
    values = {
        "id": key_id,
        "org": org,
        "name": name,
        "sha256": _sha256(secret),
        "scopes": list(scopes),
        "user_name": user_name,
        "expires_at": expires_at,
    }
    key = await one(connection, ApiKey, _INSERT, values)
    assert key is not None
    return key, f"{PREFIX}_{key_id}_{secret}"


async def verify(connection: Connection, text: str) -> Caller | None:
    """Who this key speaks for; None if it is unknown, wrong, revoked or expired.

    Needs no organisation. Takes as long for an unknown key as for a wrong one.
    """
    match = _FORM.fullmatch(text)
    if match is None:
        return None
    row = await one(connection, _Row, _FIND, {"id": match[1]})
    same = hmac.compare_digest(_sha256(match[2]), row.secret_sha256 if row else _NOBODY)
    if row is None or not same or not row.is_valid:
        return None
    return Caller(row.id, row.org, row.name, frozenset(row.scopes), row.user_name)


async def revoke(connection: Connection, org: UUID, key_id: str) -> None:
    """Ends a key, at once and for good. Raises `NotFoundError`."""
    cursor = await connection.execute(_REVOKE, {"id": key_id, "org": org})
    if await cursor.fetchone() is None:
        raise NotFoundError(f"There is no API key {key_id}.")


async def find(connection: Connection, org: UUID) -> list[ApiKey]:
    """The keys of an organisation, newest first, ended ones included."""
    return await every(connection, ApiKey, _LIST, {"org": org})


def _sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
