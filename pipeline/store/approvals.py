"""Approvals as they lie in the store: looked at, listed, and those that are due.

They are put and withdrawn by the orchestrator's transaction (`questions.py`), and decided in
`decisions.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID

import orjson

from permaflow.errors import NotFoundError
from permaflow.plan import Json
from permaflow.ports import Notice
from pipeline.core.approval import APPROVE, PENDING, REJECT, Due, Level, Terms, due, read_terms
from pipeline.ids import new_id
from pipeline.store import notifications
from pipeline.store.database import Connection
from pipeline.store.json_values import raw, to_json
from pipeline.store.queries import query
from pipeline.store.rows import every, one

_GET = query("approvals.get")
_LOCK = query("approvals.lock")
_PENDING = query("approvals.pending")
_PENDING_OF = query("approvals.pending_of")
_PEOPLE = query("approvals.people")
_EVENTS = query("approvals.events")
_ADD_EVENT = query("approvals.add_event")
_ADD_PEOPLE = query("approvals.add_people")
_DUE = query("approvals.due")
_ADVANCE = query("approvals.advance")
_WAIT = query("approvals.wait")
_WAKE = query("approvals.wake")
_WAITING = query("approvals.waiting")

AWAY = "away"


@dataclass(frozen=True, slots=True)
class Row:
    """A row of `approval`. `terms` is JSON text; `is_late`: its time is over."""

    id: UUID
    org: UUID
    run_id: UUID
    scope: str
    node: str
    attempt: int
    status: str
    requester: str
    terms: bytes
    reminders: int
    level: int
    asked_at: datetime
    expires_at: datetime | None
    closed_at: datetime | None
    closed_by: str
    is_late: bool

    def read_terms(self) -> Terms:
        return read_terms(orjson.loads(self.terms))


@dataclass(frozen=True, slots=True)
class Happening:
    """Something that was done about an approval. `details` is JSON text."""

    kind: str
    person: str
    details: bytes
    comment: str
    via: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Approval:
    """An approval with all that is known of it.

    `eligible` are those who may decide, whether they have or not; None for anybody. `away` are
    those who were asked and handed over.
    """

    row: Row
    terms: Terms
    events: Sequence[Happening]
    eligible: frozenset[str] | None
    away: frozenset[str]

    @property
    def is_pending(self) -> bool:
        return self.row.status == PENDING

    @property
    def votes(self) -> dict[str, bool]:
        """Person → whether they approved, in the order in which they said so."""
        return {
            each.person: each.kind == APPROVE
            for each in self.events
            if each.kind in (APPROVE, REJECT)
        }

    @property
    def waiting_for(self) -> frozenset[str] | None:
        """Those who may still decide; None for anybody."""
        if not self.is_pending:
            return frozenset()
        return None if self.eligible is None else self.eligible - self.votes.keys()

    def is_barred(self, person: str) -> bool:
        """Whether this is the one who asks, who may not decide."""
        return bool(
            self.row.requester and person == self.row.requester and not self.terms.self_approval
        )


@dataclass(frozen=True, slots=True)
class _Person:
    person: str
    kind: str


@dataclass(frozen=True, slots=True)
class _Waiting:
    approval: UUID
    person: str


@dataclass(frozen=True, slots=True)
class _Due:
    id: UUID
    org: UUID
    run_id: UUID
    node: str
    terms: bytes
    reminders: int
    level: int
    elapsed: float


async def get(
    connection: Connection, org: UUID, approval_id: UUID, *, lock: bool = False
) -> Approval:
    """One approval. With `lock` nobody else decides until the transaction ends."""
    values = {"org": org, "id": approval_id}
    row = await one(connection, Row, _LOCK if lock else _GET, values)
    if row is None:
        raise NotFoundError(f"There is no approval {approval_id}.")
    terms = row.read_terms()
    people = await every(connection, _Person, _PEOPLE, {"id": approval_id})
    away = frozenset(each.person for each in people if each.kind == AWAY)
    asked = {each.person for each in people} - away
    if row.requester and not terms.self_approval:
        asked.discard(row.requester)
    events = await every(connection, Happening, _EVENTS, {"id": approval_id})
    return Approval(row, terms, events, None if terms.to_all else frozenset(asked), away)


async def pending(
    connection: Connection,
    org: UUID,
    *,
    person: str | None = None,
    run: UUID | None = None,
    before: UUID | None = None,
    limit: int = 50,
) -> list[Row]:
    """Open approvals; with `person` those that wait for them."""
    values = {"org": org, "person": person, "run": run, "before": before, "limit": limit}
    return await every(connection, Row, _PENDING if person is None else _PENDING_OF, values)


async def add_event(
    connection: Connection,
    org: UUID,
    approval_id: UUID,
    kind: str,
    person: str = "",
    *,
    details: Json = None,
    comment: str = "",
    via: str = "",
) -> None:
    """Notes what was done."""
    values = {
        "id": new_id(),
        "org": org,
        "approval": approval_id,
        "kind": kind,
        "person": person,
        "details": raw(to_json({} if details is None else details)),
        "comment": comment,
        "via": via,
    }
    await connection.execute(_ADD_EVENT, values)


async def add_people(
    connection: Connection, org: UUID, approval_id: UUID, people: Sequence[tuple[str, str]]
) -> None:
    """Asks further `(kind, name)`."""
    values = {
        "org": org,
        "id": approval_id,
        "kinds": [kind for kind, _ in people],
        "names": [name for _, name in people],
    }
    await connection.execute(_ADD_PEOPLE, values)


# --- what is due ----------------------------------------------------------------------------------


@dataclass(slots=True)
class Tended:
    """How many approvals were looked at, and for whom there is something new to read, by org."""

    count: int = 0
    told: dict[UUID, set[str]] = field(default_factory=lambda: defaultdict(set))


async def tend(connection: Connection, *, limit: int = 100) -> Tended:
    """Tells those who are asked, reminds them and escalates, where it is time to; each once.

    Any number of callers may do this at once.
    """
    rows = await every(connection, _Due, _DUE, {"limit": limit})
    if not rows:
        return Tended()
    tended = Tended(len(rows))
    now: dict[UUID, Due] = {}
    for row in rows:
        terms = read_terms(orjson.loads(row.terms))
        found = now[row.id] = due(terms, row.elapsed, row.reminders, row.level)
        for number, level in enumerate(found.levels, start=row.level):
            if number:
                await _escalate(connection, row, number, level)
    values = {
        "ids": list(now),
        "reminders": [each.reminders for each in now.values()],
        "levels": [each.level for each in now.values()],
        "nexts": [each.next for each in now.values()],
    }
    await connection.execute(_ADVANCE, values)
    waiting: dict[UUID, set[str]] = defaultdict(set)
    for one_of in await every(connection, _Waiting, _WAITING, {"ids": list(now)}):
        if one_of.person.isprintable():
            waiting[one_of.approval].add(one_of.person)
    for row in rows:
        told = await _tell(connection, row, now[row.id], waiting[row.id])
        tended.told[row.org].update(told)
    return tended


async def _escalate(connection: Connection, row: _Due, number: int, level: Level) -> None:
    people = [("user", name) for name in level.users] + [("group", name) for name in level.groups]
    await add_people(connection, row.org, row.id, people)
    details = {"level": number, "users": level.users, "groups": level.groups}
    await add_event(connection, row.org, row.id, "escalate", details=details)


async def _tell(connection: Connection, row: _Due, now: Due, waiting: set[str]) -> set[str]:
    """Notifies those who may decide and have not: of the approval itself once, whoever they are by
    now; and each time that it is to remind.
    """
    told = await _notify(connection, row, waiting, "asked", f"approval:{row.id}")
    if now.remind:
        details = {"number": now.reminders}
        await add_event(connection, row.org, row.id, "remind", details=details)
        key = f"approval:{row.id}:{now.reminders}"
        told += await _notify(connection, row, waiting - set(told), "reminder", key)
    return set(told)


async def _notify(
    connection: Connection, row: _Due, people: set[str], kind: str, key: str
) -> list[str]:
    if not people:
        return []
    terms = orjson.loads(row.terms)
    notice = Notice(
        terms["title"] or row.node,
        terms["description"],
        f"/workflows/v1/approvals/{row.id}",
        {"kind": kind, "approval_id": str(row.id), "run_id": str(row.run_id)},
    )
    return await notifications.add(
        connection, row.org, sorted(people), notice, key=key, run_id=row.run_id
    )


async def wake(connection: Connection, approval_id: UUID) -> None:
    """Lets the clock look at an approval: there may be somebody new to tell."""
    await connection.execute(_WAKE, {"id": approval_id})


async def wait(connection: Connection) -> timedelta | None:
    """How long until the next is due, not below zero; None if nothing will be."""
    row = await (await connection.execute(_WAIT)).fetchone()
    if row is None or row[0] is None:
        return None
    return timedelta(seconds=max(0.0, row[0]))
