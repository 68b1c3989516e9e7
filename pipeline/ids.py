"""Ids that sort by the time they were made."""

from __future__ import annotations

from uuid import UUID

import uuid_utils


def new_id() -> UUID:
    """A UUIDv7: 48 bits of milliseconds, then random bits."""
    return UUID(int=uuid_utils.uuid7().int)
