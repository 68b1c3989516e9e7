"""Approvals that people, timeouts and cancellations decide at the same moment, on real servers.

The bulk of the races is played without HTTP in `test_many_approval_races.py`, and in memory in
`tests/core/test_approval_races.py`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable
from typing import Any

import httpx
import pytest

from pipeline.core.entries import Failed, Finished, Succeeded
from pipeline.core.state import timer_key
from pipeline.ids import question_id
from pipeline.starter import post
from pipeline.store.database import Connection
from pipeline.wire import TimerDue
from tests.fix_approvals import Gate, Town, gate

pytestmark = [pytest.mark.service, pytest.mark.slow]

RACES = 300
AT_ONCE = 25
PEOPLE = ("ana", "bob", "carl", "dora")
KINDS: tuple[dict[str, Any], ...] = (
    {"assignees": list(PEOPLE)},
    {"assignees": list(PEOPLE), "quorum": {"at_least": 2}, "on_reject": "branch"},
    {"assignees": list(PEOPLE[:3]), "quorum": "all", "veto": False},
    {"quorum": {"at_least": 2}, "veto": True},
)
TIMEOUT = timer_key("timeout", "", "ask", 1)
LEFT = b"""
    select (select count(*) from permaflow.question), (select count(*) from permaflow.answer),
      (select count(*) from permaflow.approval where status = 'pending'),
      (select count(*) from permaflow.approval_assignee where is_open)"""


async def race(asked: Gate, chance: random.Random) -> list[httpx.Response]:
    """Everybody at once; what the people were told."""
    town = asked.town
    people = [name for name in PEOPLE for _ in range(chance.randint(0, 2))] or ["ana"]
    doing: list[Awaitable[Any]] = []
    for name in people:
        decision = "approve" if chance.random() < 0.6 else "reject"
        doing.append(asked.respond(name, decision, comment=name))
    if chance.random() < 0.5:
        post(town.engine.bus, [(town.engine.org, TimerDue(asked.run_id, TIMEOUT))])
    if chance.random() < 0.4:
        doing.append(town.engine.cancel(asked.run_id))
    chance.shuffle(doing)
    found = await asyncio.gather(*doing)
    return [each for each in found if isinstance(each, httpx.Response)]


async def check(asked: Gate, told: list[httpx.Response]) -> str:
    """The winner, on which the journal, the approval and all answers agree."""
    view = await asked.view()
    entries = await asked.town.engine.entries(asked.run_id)
    ends = [e for e in entries if isinstance(e, Succeeded | Failed) and e.node == "ask"]
    assert sum(isinstance(e, Finished) for e in entries) == 1
    status = view["status"]
    match ends, status:
        case [Succeeded(port=port, output=output)], "approved" | "rejected":
            assert (port, output["decision"], output["by"]) == (status, status, view["closed_by"])
            assert [d["user"] for d in output["decisions"]] == [
                d["user"] for d in view["decisions"]
            ]
        case [Failed(code="rejected", message=message)], "rejected":
            assert f"by {view['closed_by']}" in message
        case [Failed(code="timeout")], "timed_out" | "withdrawn":
            pass
        case [], "withdrawn":
            assert entries[-1].status == "cancelled"  # type: ignore[union-attr]
        case _:
            raise AssertionError((ends, view))
    taken = [each for each in told if each.status_code == 200]
    assert {each.status_code for each in told} <= {200, 403, 404, 409}
    assert len(taken) == len(view["decisions"])
    closing = [each.json() for each in taken if each.json()["status"] != "pending"]
    assert len(closing) == (status in ("approved", "rejected"))
    for each in closing:
        assert (each["status"], each["closed_by"]) == (status, view["closed_by"])
    return str(status)


async def test_hundreds_of_approvals_have_one_winner_each(town: Town) -> None:
    chance = random.Random(20_261_122)
    for name in PEOPLE:
        await town.person(name)
    workflows = [
        await town.engine.workflow(gate({**config, "timeout_seconds": 3_600})) for config in KINDS
    ]
    winners: Counter[str] = Counter()
    refused: Counter[int] = Counter()
    while winners.total() < RACES:
        started = [(await town.engine.start(chance.choice(workflows)))[0] for _ in range(AT_ONCE)]
        gates = [Gate(town, run_id, question_id(run_id, "", "ask", 1)) for run_id in started]
        for asked in gates:
            await town.engine.until(asked.run_id, "waiting")
        told = await asyncio.gather(*(race(asked, chance) for asked in gates))
        for asked in gates:
            # What nobody has decided yet is decided now.
            post(town.engine.bus, [(town.engine.org, TimerDue(asked.run_id, TIMEOUT))])
        for asked, answers in zip(gates, told, strict=True):
            await asked.end()
            winners[await check(asked, answers)] += 1
            refused.update(each.status_code for each in answers if each.status_code != 200)
    assert min(winners[each] for each in ("approved", "rejected", "withdrawn")) >= 20, winners
    assert refused[409] >= 100
    assert await left(town) == (0, 0, 0, 0)


async def left(town: Town) -> tuple[int, ...]:
    """Questions, answers, open approvals and open assignees."""

    async def look(connection: Connection) -> tuple[int, ...]:
        row = await (await connection.execute(LEFT)).fetchone()
        assert row is not None
        return tuple(row)

    return await town.engine.database.run(look)


async def test_a_decision_that_was_stored_first_counts_before_the_timeout(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody tells the run of the answer; with the timeout it finds it by itself."""
    asked = await town.asked(assignees=["ana"], timeout_seconds=3_600)
    monkeypatch.setattr("pipeline.gateway.approvals.post_answers", lambda _bus, _answers: None)
    await asked.approve("ana")
    post(town.engine.bus, [(town.engine.org, TimerDue(asked.run_id, TIMEOUT))])
    assert (await asked.output())[0] == "approved"


async def test_a_decision_that_the_run_was_not_told_of_is_told_again(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = await town.asked(assignees=["ana"])
    monkeypatch.setattr("pipeline.gateway.approvals.post_answers", lambda _bus, _answers: None)
    await asked.approve("ana")
    assert (await asked.output())[0] == "approved"
