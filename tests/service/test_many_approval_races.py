"""Ten thousand approvals on PostgreSQL that several people and the clock decide at the same moment.

The people come in where the gateway's handlers do, over eight connections; the time is over by the
real timers, which the clock finds due and the orchestrator takes in. Whatever happened to a run is
read in bulk and compared with what each of them was told.

Each thousand takes eight to nine seconds of one processor in Python, and PostgreSQL keeps most of
another busy. `test_approval_races.py` plays a few hundred over HTTP, and
`tests/core/test_approval_races.py` every order of events in one process.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import orjson
import pytest
import structlog

from permaflow.errors import ForbiddenError, StateError, StoreUnavailableError
from pipeline import telemetry
from pipeline.answers import post_answers
from pipeline.bus.subjects import TIMER
from pipeline.core.entries import Entry, Failed, Finished, Succeeded, from_row
from pipeline.core.state import timer_key
from pipeline.gateway.approvals import respond
from pipeline.gateway.ports import Ports, open_ports
from pipeline.ids import question_id
from pipeline.store import decisions
from pipeline.store.database import GATEWAY_ROLE, Database
from pipeline.store.decisions import Response
from tests.fix_approvals import gate
from tests.fix_engine import Engine
from tests.fix_store import execute

pytestmark = [pytest.mark.service, pytest.mark.slow]

RACES = 10_000
BEGUN_TOGETHER = 1_000
AT_ONCE = 50
CONNECTIONS = 8
WITHIN = 120.0
PEOPLE = ("ana", "bob", "carl", "dora")
TIMEOUT = timer_key("timeout", "", "ask", 1)
BRANCHES = ("ask>yes", "ask:rejected>no", "ask:timed_out>late")
KINDS: tuple[tuple[dict[str, Any], tuple[str, ...]], ...] = (
    ({"assignees": list(PEOPLE)}, ()),
    ({"assignees": list(PEOPLE), "quorum": {"at_least": 2}}, BRANCHES),
    ({"assignees": list(PEOPLE[:2]), "quorum": "all", "veto": False}, ()),
    ({"quorum": {"at_least": 2}, "veto": True}, BRANCHES),
)
DUE = """
    with due as (
      update permaflow.timer set due_at = clock_timestamp() + random() * make_interval(secs => %s)
      where run_id = any(%s) and key = %s
      returning run_id, due_at
    )
    update permaflow.approval set expires_at = due_at from due where approval.run_id = due.run_id"""
WAITING = "select count(*) from permaflow.run where id = any(%s) and status = 'waiting'"
OPEN = "select count(*) from permaflow.run where id = any(%s) and finished_at is null"
APPROVALS = """
    select id, run_id, status, closed_by, closed_at is not null from permaflow.approval
    where run_id = any(%s)"""
EVENTS = """
    select approval_id, kind, person from permaflow.approval_event
    where approval_id = any(%s) order by approval_id, at, id"""
AUDIT = """
    select object, action, actor from permaflow.audit
    where action in ('approval.approve', 'approval.reject') and object = any(%s)"""
JOURNALS = """
    select run_id, entries from permaflow.journal where run_id = any(%s) order by run_id, seq"""
LEFT = """
    select (select count(*) from permaflow.question) + (select count(*) from permaflow.answer)
      + (select count(*) from permaflow.timer)
      + (select count(*) from permaflow.approval where status = 'pending')
      + (select count(*) from permaflow.approval_assignee where is_open)
    where cardinality(%s::uuid[]) = 0"""


@dataclass(slots=True)
class Race:
    """One approval, and what everybody was told: the status that their decision came to, or None
    and why it was refused.
    """

    run_id: UUID
    id: UUID
    cancelled: bool
    told: list[tuple[str, str, str | None, str]] = field(default_factory=list)


@pytest.fixture
async def desk(engine: Engine, database_url: str) -> AsyncIterator[Ports]:
    settings = engine.settings.model_copy(update={"database_pool": CONNECTIONS + 1})
    warnings = structlog.make_filtering_bound_logger(logging.WARNING)
    structlog.configure(wrapper_class=warnings)  # a line for every step takes as long as the step
    try:
        async with Database(database_url, size=CONNECTIONS, role=GATEWAY_ROLE) as database:
            ports = open_ports(engine.bus, database, engine.types, settings)
            yield ports
            await ports.starts.close()
    finally:
        structlog.reset_defaults()


async def decide(
    desk: Ports, org: UUID, race: Race, person: str, decision: str, *, looks_first: bool
) -> None:
    """What the gateway does with a decision; notes what it would answer. Most leave out its first
    look, which is for the form.
    """
    said = Response(person, decision, comment=person)
    try:
        if looks_first:
            approval = await respond(desk, org, race.id, said)
        else:
            heard = await desk.pool.run_as(
                org, decisions.respond, org, race.id, said, inline=32_000
            )
            post_answers(desk.bus, heard.answers)
            approval = heard.approval
    except StoreUnavailableError:  # a 503: the client comes again
        await decide(desk, org, race, person, decision, looks_first=looks_first)
    except (StateError, ForbiddenError) as error:
        race.told.append((person, decision, None, str(error)))
    else:
        race.told.append((person, decision, approval.row.status, approval.row.closed_by))


async def play(
    engine: Engine, desk: Ports, races: Sequence[Race], chance: random.Random, seconds: float
) -> float:
    """All of these at once: the clock, the people, and somebody who wants the end of the run.

    The time of half of them is over somewhere in these `seconds`. Answers how many it took.
    """
    begun_at = time.monotonic()
    late = [race.run_id for race in races if chance.random() < 0.5]
    await execute(engine.database, DUE, (seconds, late, TIMEOUT))
    engine.bus.ring(TIMER, b"0")
    doing = []
    for race in races:
        people = chance.sample(PEOPLE, 2)
        if chance.random() < 0.3:
            people.append(chance.choice(PEOPLE))  # perhaps the same one twice
        for person in people:
            decision = "approve" if chance.random() < 0.6 else "reject"
            looks = chance.random() < 0.25
            doing.append(decide(desk, engine.org, race, person, decision, looks_first=looks))
        if race.cancelled:
            doing.append(engine.cancel(race.run_id))
    chance.shuffle(doing)
    await asyncio.gather(*doing)
    return time.monotonic() - begun_at


async def until(engine: Engine, statement: str, ids: list[UUID], count: int) -> None:
    """Looks whenever nothing has happened to any run for a moment."""
    rung = asyncio.Event()
    stop = await engine.bus.listen("pf.live.*", lambda _subject, _data: rung.set())
    try:
        async with asyncio.timeout(WITHIN):
            while (await execute(engine.database, statement, (ids,)))[0][0] != count:
                with suppress(TimeoutError):
                    while True:
                        rung.clear()
                        await asyncio.wait_for(rung.wait(), 0.2)
    finally:
        await stop()


async def begun(engine: Engine, workflows: Sequence[UUID], chance: random.Random) -> list[Race]:
    """Races whose runs wait for people."""
    ids: list[UUID] = []
    for workflow_id in workflows:
        ids += await engine.start(workflow_id, count=BEGUN_TOGETHER // len(workflows))
    await until(engine, WAITING, ids, len(ids))
    chance.shuffle(ids)
    return [
        Race(run_id, question_id(run_id, "", "ask", 1), chance.random() < 0.1) for run_id in ids
    ]


async def check(engine: Engine, races: Sequence[Race]) -> Counter[str]:
    """The winners, on which journals, approvals, the audit and all that was told agree."""
    runs, ids = [race.run_id for race in races], [race.id for race in races]
    kept = {row[0]: row[1:] for row in await execute(engine.database, APPROVALS, (runs,))}
    events: dict[UUID, list[tuple[str, str]]] = defaultdict(list)
    for approval_id, kind, person in await execute(engine.database, EVENTS, (ids,)):
        if kind in ("approve", "reject"):
            events[approval_id].append((kind, person))
    audit: dict[str, list[tuple[str, str]]] = defaultdict(list)
    names = [f"approval:{each}" for each in ids]
    for name, action, actor in await execute(engine.database, AUDIT, (names,)):
        audit[name].append((action.removeprefix("approval."), actor))
    journals: dict[UUID, list[Entry]] = defaultdict(list)
    for run_id, row in await execute(engine.database, JOURNALS, (runs,)):
        journals[run_id] += from_row(row if isinstance(row, list) else orjson.loads(row))
    found: Counter[str] = Counter()
    for race in races:
        run_id, status, closed_by, is_closed = kept[race.id]
        assert (run_id, is_closed) == (race.run_id, True)
        agree(race, status, closed_by, journals[race.run_id])
        taken = [(decision, person) for person, decision, came_to, _ in race.told if came_to]
        assert sorted(events[race.id]) == sorted(taken)
        assert sorted(audit[f"approval:{race.id}"]) == sorted(taken)
        assert len({person for _, person in taken}) == len(taken)
        found[status] += 1
    return found


def agree(race: Race, status: str, closed_by: str, entries: Sequence[Entry]) -> None:
    """One end of the step, one of the run, one winner, and nobody told otherwise."""
    ends = [e for e in entries if isinstance(e, Succeeded | Failed) and e.node == "ask"]
    (finished,) = [e for e in entries if isinstance(e, Finished)]
    match ends, status:
        case [Succeeded(port=port, output=output)], "approved" | "rejected":
            assert (port, output["decision"], output["by"]) == (status, status, closed_by)
            assert finished.status == "completed" or race.cancelled
        case [Failed(code="rejected", message=message)], "rejected":
            assert f"by {closed_by}" in message
        case [Failed(code="timeout", timed_out=True)], "timed_out":
            pass
        case [Succeeded(port="timed_out")], "timed_out":
            pass
        case [], "withdrawn" | "timed_out":
            assert (finished.status, race.cancelled) == ("cancelled", True)
        case _:
            raise AssertionError((ends, status, closed_by, race.told))
    deciding = [(p, by) for p, _, came_to, by in race.told if came_to not in (None, "pending")]
    if status in ("approved", "rejected"):
        assert deciding == [(closed_by, closed_by)]
        assert [c for _, _, c, _ in race.told if c not in (None, "pending")] == [status]
    else:
        assert (deciding, closed_by) == ([], "")
    by = f" by {closed_by}" if closed_by else ""
    for person, _, came_to, said in race.told:
        if came_to is None and said.startswith("It is "):
            assert said == f"It is {status}{by} already."
        elif came_to is None and "a decision stands" in said:
            assert any(p == person and c is not None for p, _, c, _ in race.told)
        elif came_to is None:  # one who came in time may still be writing when it is over
            assert said in ("Its time is over.", f"{person} is not among those who are asked.")


async def test_ten_thousand_approvals_on_postgresql_have_one_winner_each(
    engine: Engine, desk: Ports
) -> None:
    chance = random.Random(20_261_122)
    workflows = [
        await engine.workflow(gate({**config, "timeout_seconds": 3_600}, edges=edges))
        for config, edges in KINDS
    ]
    winners: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    before = telemetry.CONFLICTS._value.get()
    seconds = 0.4
    while winners.total() < RACES:
        races = await begun(engine, workflows, chance)
        for first in range(0, len(races), AT_ONCE):
            together = races[first : first + AT_ONCE]
            seconds = await play(engine, desk, together, chance, seconds)
        # What nobody has decided yet is over now.
        ids = [race.run_id for race in races]
        await execute(engine.database, DUE, (0.0, ids, TIMEOUT))
        engine.bus.ring(TIMER, b"0")
        await until(engine, OPEN, ids, 0)
        winners += await check(engine, races)
        for race in races:
            refused.update(said.split()[-1] for _, _, came_to, said in race.told if not came_to)
    assert winners.total() == RACES
    assert min(winners[each] for each in ("approved", "rejected", "timed_out")) > 1_000, winners
    assert winners["withdrawn"] > 20, winners
    assert refused["already."] > 1_000, refused
    assert refused["over."] > 10, refused
    assert telemetry.CONFLICTS._value.get() > before, "no timeout met a decision"
    await until(engine, LEFT, [], 0)
