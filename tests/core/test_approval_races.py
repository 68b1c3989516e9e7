"""Ten thousand approvals that everybody decides at once: one winner, and everybody told the same.

A `Desk` follows the rules of `pipeline/store/decisions.py` and `close_approvals`: one transaction
at a time holds the approval. The orchestrators, of which each keeps a state that may be old, are
the real core over a journal in memory. `tests/service/test_approval_races.py` plays the same on
PostgreSQL.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import timedelta
from uuid import UUID

from permaflow.plan import Json, Plan, Question
from pipeline.core.approval import APPROVED, PENDING, REJECTED, TIMED_OUT, WITHDRAWN, judge
from pipeline.core.decide import decide
from pipeline.core.effects import Ask, Withdraw
from pipeline.core.entries import Failed, Finished, Succeeded, from_row, to_row
from pipeline.core.events import (
    AttemptDone,
    AttemptFailed,
    CancelAsked,
    Event,
    TimerFired,
    Woken,
)
from pipeline.core.program import Program
from pipeline.core.replay import replay
from pipeline.core.state import Run, timer_key
from tests.core.plans import TASK, plan_of, step

RACES = 10_000
PEOPLE = ("ana", "bob", "carl", "dora", "eve", "finn")
RUN_ID = UUID("01890000-0000-7000-8000-000000000002")
TIMEOUT = timer_key("timeout", "", "ask", 1)


class ConflictError(Exception):
    """Somebody else was first."""


class Desk:
    """The approval as the store has it, and what people were told."""

    def __init__(self, chance: random.Random) -> None:
        self.eligible = frozenset(PEOPLE[: chance.randint(1, 5)])
        self.need = chance.choice((None, 1, 1, 2, 3))
        self.veto = chance.random() < 0.5
        self.on_reject = chance.choice(("fail", "branch"))
        self.status = PENDING
        self.is_open = False
        self.answer: Event | None = None
        self.votes: dict[str, bool] = {}
        self.told: list[tuple[str, str]] = []
        self.closed_by = ""

    def respond(self, person: str, approve: bool) -> None:
        """What `decisions.respond` does in its transaction."""
        if self.status != PENDING:
            self.told.append((person, self.status))
        elif person in self.votes or person not in self.eligible:
            self.told.append((person, "refused"))
        else:
            self.votes[person] = approve
            found = judge(self.need, self.veto, self.eligible, self.votes)
            self.told.append((person, found or "noted"))
            if found is not None:
                self.status, self.closed_by = found, person
                self.answer = self._answer(found)

    def _answer(self, status: str) -> Event:
        if status == REJECTED and self.on_reject == "fail":
            return AttemptFailed("", "ask", 1, "rejected", f"by {self.closed_by}", False)
        return AttemptDone("", "ask", 1, {"by": self.closed_by}, status)

    def withdraw(self, effect: Withdraw, by_timeout: bool) -> None:
        """What `close_approvals` and the deletion of the question do."""
        if self.is_open and not effect.answered and self.status in (APPROVED, REJECTED):
            raise ConflictError
        if self.status == PENDING:
            self.status = TIMED_OUT if by_timeout else WITHDRAWN
        self.is_open, self.answer = False, None


class Race:
    """One run with two orchestrators before it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.desk = Desk(self.chance)
        port = self.chance.choice((None, "timed_out", APPROVED))
        ask = Question("approval", {}, port, None if port is None else {"by": ""})
        self.plan: Plan = plan_of(
            step("ask", ask, timeout=timedelta(seconds=9)), step("after", TASK, "ask")
        )
        self.program = Program(self.plan)
        self.rows: list[str] = []
        self.kept: list[Run | None] = [None, None]
        self.inbox: list[Event] = []
        self.conflicts = 0

    def load(self) -> Run:
        run = Run(RUN_ID, self.program, None, "")
        return replay(
            run, [(n, from_row(json.loads(row))) for n, row in enumerate(self.rows, start=1)]
        )

    def advance(self, *events: Event) -> None:
        """What an orchestrator does with a message: as `Orchestrator._advance_alone`."""
        who = self.chance.randrange(2)
        for attempt in range(4):
            run = self.kept[who] if attempt == 0 else None
            is_old = run is not None
            run = run or self.load()
            self.kept[who] = None
            if run.finished:
                return
            decision = decide(run, events)
            if decision.unknown and is_old:
                continue
            try:
                if decision.entries and run.seq != len(self.rows):
                    raise ConflictError
                for effect in decision.effects:
                    if isinstance(effect, Withdraw):
                        self.desk.withdraw(effect, TimerFired(TIMEOUT) in events)
                    elif isinstance(effect, Ask):
                        self.desk.is_open = True
            except ConflictError:
                self.conflicts += 1
                if self.desk.answer is not None:
                    events = (self.desk.answer, *events)
                continue
            if decision.entries:
                self.rows.append(json.dumps(to_row(decision.entries)))
                run.seq += 1
            self.kept[who] = run
            return
        raise AssertionError("orchestrators come to nothing")

    def play(self) -> None:
        self.advance(Woken())
        chance, desk = self.chance, self.desk
        todo = [("respond", person) for person in PEOPLE for _ in range(chance.randint(0, 2))]
        todo += [("time", ""), ("cancel", "")][: chance.randint(0, 2)]
        todo += [("deliver", "")] * chance.randint(0, 3)
        chance.shuffle(todo)
        for what, person in todo:
            match what:
                case "respond":
                    before = desk.answer
                    desk.respond(person, chance.random() < 0.6)
                    if desk.answer is not before and desk.answer is not None:
                        self.inbox += [desk.answer] * chance.randint(0, 2)
                case "time":
                    self.advance(TimerFired(TIMEOUT))
                case "cancel":
                    self.advance(CancelAsked("ann"))
                case _ if self.inbox:
                    event = self.inbox.pop(chance.randrange(len(self.inbox)))
                    self.advance(*[event] * chance.randint(1, 2))  # told once more at that moment
        for event in self.inbox:
            self.advance(event)
        if desk.answer is not None:
            self.advance(desk.answer)  # the reconciler tells it again
        if desk.status == PENDING:
            self.advance(TimerFired(TIMEOUT))

    def check(self) -> str:
        """The winner, on which the journal, the desk and everybody who was told agree."""
        desk = self.desk
        entries = [entry for row in self.rows for entry in from_row(json.loads(row))]
        ends = [e for e in entries if isinstance(e, Succeeded | Failed) and e.node == "ask"]
        finished = [e for e in entries if isinstance(e, Finished)]
        assert len(ends) <= 1
        assert len(finished) <= 1
        assert not desk.is_open
        assert desk.answer is None, "an answer that nobody took"
        match ends, desk.status:
            case [Succeeded(port=port, output=output)], "approved" | "rejected":
                assert (port, output) == (desk.status, {"by": desk.closed_by})
            case [Failed(code="rejected", message=message)], "rejected":
                assert message == f"by {desk.closed_by}"
            case [Succeeded(port=port, output=output)], "timed_out":
                assert (port, output) == (self.plan.nodes["ask"].work.timeout_port, {"by": ""})  # type: ignore[union-attr]
            case [Failed(code="timeout", timed_out=True)], "timed_out":
                pass
            case [], "withdrawn":
                assert finished[0].status == "cancelled"
            case _:
                raise AssertionError((ends, desk.status, desk.told))
        told: Json = [said for _, said in desk.told]
        deciding = [name for name, said in desk.told if said == desk.status]
        if desk.status in (APPROVED, REJECTED):
            assert deciding[0] == desk.closed_by
            first = told.index(desk.status)
            assert set(told[:first]) <= {"noted", "refused"}
            assert set(told[first:]) == {desk.status}
        else:
            assert set(told) <= {"noted", "refused", desk.status}
        assert len(desk.votes) == told.count("noted") + (desk.status in (APPROVED, REJECTED))
        return desk.status


def test_ten_thousand_approvals_have_one_winner_each() -> None:
    winners: Counter[str] = Counter()
    conflicts = 0
    for seed in range(RACES):
        race = Race(seed)
        race.play()
        winners[race.check()] += 1
        conflicts += race.conflicts
    assert set(winners) == {APPROVED, REJECTED, TIMED_OUT, WITHDRAWN}
    assert min(winners.values()) > 500, winners
    assert conflicts > 500
