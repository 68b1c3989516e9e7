"""Links that decide: `pfa_<id>_<secret>`, the secret 32 random bytes, kept as its SHA-256.

A link speaks for one person, about one approval, with one decision, until it expires.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from pipeline.store.database import Connection
from pipeline.store.queries import query
from pipeline.store.rows import one

PREFIX = "pfa"
_FORM = re.compile(rf"{PREFIX}_([0-9a-f]{{16}})_([A-Za-z0-9_-]{{43}})")
_NOBODY = bytes(32)

_INSERT = query("approval_links.insert")
_FIND = query("approval_links.find")


@dataclass(frozen=True, slots=True)
class Link:
    """What a good token stands for."""

    id: str
    org: UUID
    approval: UUID
    person: str
    decision: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class _Row:
    id: str
    org: UUID
    approval: UUID
    person: str
    decision: str
    secret_sha256: bytes
    expires_at: datetime
    is_valid: bool


async def create(
    connection: Connection,
    org: UUID,
    approval: UUID,
    person: str,
    decision: str,
    valid_for: timedelta,
) -> tuple[str, datetime]:
    """A new link: its token, which nobody can tell again, and when it expires."""
    secret = secrets.token_urlsafe(32)
    link_id = secrets.token_hex(8)
    values = {
        "id": link_id,
        "org": org,
        "approval": approval,
        "person": person,
        "decision": decision,
        "sha256": _sha256(secret),
        "seconds": valid_for.total_seconds(),
    }
    row = await (await connection.execute(_INSERT, values)).fetchone()
    assert row is not None
    return f"{PREFIX}_{link_id}_{secret}", row[0]


async def verify(connection: Connection, token: str) -> Link | None:
    """What a token stands for; None if it is unknown, wrong or expired.

    Needs no organisation. Takes as long for an unknown one as for a wrong one.
    """
    match = _FORM.fullmatch(token)
    if match is None:
        return None
    row = await one(connection, _Row, _FIND, {"id": match[1]})
    same = hmac.compare_digest(_sha256(match[2]), row.secret_sha256 if row else _NOBODY)
    if row is None or not same or not row.is_valid:
        return None
    return Link(row.id, row.org, row.approval, row.person, row.decision, row.expires_at)


def _sha256(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
