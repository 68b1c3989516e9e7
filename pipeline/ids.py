"""Ids that sort by the time they were made."""

from __future__ import annotations

import hashlib
from uuid import UUID

import uuid_utils

_LOW = (1 << 80) - 1


def new_id() -> UUID:
    """A UUIDv7: 48 bits of milliseconds, then random bits."""
    return UUID(int=uuid_utils.uuid7().int)


def question_id(run_id: UUID, scope: str, node: str, attempt: int) -> UUID:
    """The id of what this attempt of a step asks: the same wherever it is asked for.

    A UUIDv8: the 48 bits of milliseconds of its run, then 74 bits of a hash.
    """
    name = f"{scope}\x1f{node}\x1f{attempt}".encode()
    digest = int.from_bytes(hashlib.sha256(run_id.bytes + name).digest()[:10], "big")
    value = run_id.int & ~_LOW | digest
    value = value & ~(0xF << 76) | 8 << 76
    return UUID(int=value & ~(0b11 << 62) | 0b10 << 62)
