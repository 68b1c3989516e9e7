"""A change of a record, whatever told us of it.

Every source of changes (Debezium over Kafka, PostgreSQL's own replication, the built-in records)
gives the same `ChangeRecord`; the trigger matcher sees nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from permaflow.plan import Json

CREATED = "created"
UPDATED = "updated"
DELETED = "deleted"
EVENTS = frozenset({CREATED, UPDATED, DELETED})

UNAVAILABLE = "__debezium_unavailable_value"
"""Stands for a column whose value the source did not send (an unchanged TOAST value)."""


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """One change of one record.

    `event_id` is the same however often the source tells of this change, and unlike that of any
    other change of the source. `object` is the table or the object's name without its schema;
    `namespace` is the schema (or ""). `before` is None where the source did not send it.
    `record` is the state after the change, or the last known state for a deletion. `unavailable`
    names the fields whose value the source did not send. `snapshot` is true for rows that were
    read, not changed. `at` is the source's time in milliseconds since 1970, 0 if unknown. `org` is
    the organisation (hex) whose triggers it may fire, "" for all. `cause` is the id of the run
    that made the change, where the source tells.
    """

    source: str
    event_id: str
    object: str
    event: str
    record: Mapping[str, Json]
    before: Mapping[str, Json] | None = None
    namespace: str = ""
    key: str = ""
    org: str = ""
    at: int = 0
    snapshot: bool = False
    unavailable: frozenset[str] = field(default_factory=frozenset)
    cause: str = ""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that is no change record: the bytes as they came, and why."""

    raw: bytes
    reason: str
    position: str
