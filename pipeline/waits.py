"""Runs that wait for changes: which a change ends, and what is true already when a wait begins.

Every change that is read after a wait was committed is compared with it, in the transaction that
keeps how far was read. What happened before is seen by one look at the record, which follows the
commit of the wait. So nothing falls between the two, and a look that comes late does no harm: the
first answer counts. A change from before the wait that is told only now is not taken for how the
record is: it is looked at again, or, where nobody can look, taken if it is hardly older.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol
from uuid import UUID

import orjson

from permaflow.changes import DELETED, UPDATED, ChangeRecord, Rejected
from permaflow.plan import Condition
from pipeline.answers import give, output_answer
from pipeline.store import waits
from pipeline.store.answers import Answer, StoredAnswer
from pipeline.store.database import Connection, Database
from pipeline.store.payloads import Payload
from pipeline.store.waits import Begun, Wait
from specs.conditions import Test, compile_tests
from specs.waits import MET

FOUND = "found"
"""The event of a record that met the conditions when it was looked at."""

RECORDS = "records"
PAGE = 1_000
SKEW = 60_000
"""Milliseconds by which the clock of a source that cannot be looked at may be behind."""


class Rows(Protocol):
    """A source that can be asked how records are now."""

    async def look(self, wanted: Sequence[Begun]) -> Mapping[UUID, ChangeRecord]:
        """Question → the record, as far as there is one. Every change that is not seen here is
        told of. Raises `ConnectorError`.
        """
        ...


@dataclass(slots=True)
class _Answers:
    """Answers that are to be stored."""

    inline: int
    given: list[Answer] = field(default_factory=list)
    large: list[Payload] = field(default_factory=list)

    def add(self, wait: Wait | Begun, change: ChangeRecord, event: str) -> None:
        found = {
            "event": event,
            "object": change.object,
            "record": change.record,
            "before": change.before,
            "at": change.at,
        }
        question = wait.question_id
        try:
            body = orjson.dumps(found)
        except (TypeError, ValueError) as error:
            message = f"The record cannot be written as JSON: {error}."
            self.given.append(Answer(question, code="unreadable_record", message=message))
        else:
            inline, large = self.inline, self.large
            self.given.append(
                output_answer(question, body, large, org=wait.org, inline=inline, port=MET)
            )


def spellings(change: ChangeRecord) -> tuple[str, ...]:
    """What a wait may call the object of a change."""
    if not change.namespace:
        return (change.object,)
    return (change.object, f"{change.namespace}.{change.object}")


def objects_of(records: Iterable[ChangeRecord | Rejected]) -> set[str]:
    """The objects that changes are about, in every spelling."""
    kinds = {
        (each.namespace, each.object): each for each in records if isinstance(each, ChangeRecord)
    }
    return {name for each in kinds.values() for name in spellings(each)}


async def answer(
    connection: Connection,
    records: Iterable[ChangeRecord | Rejected],
    objects: Iterable[str],
    *,
    can_look: bool,
    inline: int,
) -> list[StoredAnswer]:
    """Ends the waits that these changes meet. Somebody waits for `objects`."""
    waited = frozenset(objects)
    changes: dict[tuple[str, str], list[ChangeRecord]] = {}
    for change in records:
        if isinstance(change, ChangeRecord) and change.key and change.event != DELETED:
            for name in spellings(change):
                if name in waited:
                    changes.setdefault((name, change.key), []).append(change)
    if not changes:
        return []
    met, late = _Answers(inline), list[UUID]()
    for wait in await waits.of_records(connection, changes):
        here = changes[wait.object, wait.record_id]
        since = wait.since if can_look else wait.since - SKEW
        found = first_met(wait, [each for each in here if each.at >= since or not each.at])
        if found is not None:
            met.add(wait, found, found.event)
        elif can_look and first_met(wait, here) is not None:
            late.append(wait.question_id)
    if late:
        await waits.look_again(connection, late)
    return await give(connection, met.given, met.large)


def first_met(wait: Wait | Begun, changes: Iterable[ChangeRecord]) -> ChangeRecord | None:
    """The first change of these that its organisation may see and that meets the conditions."""
    test = _test(wait.conditions)
    for change in changes:
        if change.org in ("", wait.org.hex) and test(change):
            return change
    return None


@lru_cache(maxsize=4_096)
def _test(conditions: bytes) -> Test:
    return compile_tests(
        [
            Condition(tuple(each["field"]), each["op"], each["value"])
            for each in orjson.loads(conditions)
        ]
    )


async def look(
    database: Database, sources: Iterable[Rows], inline: int
) -> tuple[list[StoredAnswer], bool]:
    """Looks at the records of waits that have begun. Gives the answers that it gave, and whether
    there may be more to look at. Raises `StoreError` and `ConnectorError`.
    """
    wanted = await database.run(waits.begun, PAGE)
    if not wanted:
        return [], False
    found: dict[UUID, list[ChangeRecord]] = {each.question_id: [] for each in wanted}
    for source in sources:
        for question, record in (await source.look(wanted)).items():
            found[question].append(record)
    met = _Answers(inline)
    for each in wanted:
        if each.record is not None:
            found[each.question_id].append(_built_in(each))
        now = first_met(each, found[each.question_id])
        if now is not None:
            met.add(each, now, FOUND)
    given = await database.run(_keep, met, [each.question_id for each in wanted])
    return given, len(wanted) == PAGE


async def _keep(
    connection: Connection, met: _Answers, looked: Sequence[UUID]
) -> list[StoredAnswer]:
    given = await give(connection, met.given, met.large)
    await waits.looked(connection, looked)
    return given


def _built_in(wait: Begun) -> ChangeRecord:
    """A built-in record as it is, in the form that its changes have."""
    record = {**(wait.record or {}), "id": wait.record_id}
    name = wait.object.removeprefix(f"{RECORDS}.")
    org, key = wait.org.hex, wait.record_id
    return ChangeRecord("permaflow", "", name, UPDATED, record, None, RECORDS, key, org)
