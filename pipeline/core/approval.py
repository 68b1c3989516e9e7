"""What an approval comes to: a pure function of its terms, who may decide, and who has.

Rules of this file:

* A person has one vote, and it stands. Votes of people who may no longer decide still count.
* With a veto the first rejection decides. Without one, rejections decide once so many have been
  given that approval is out of reach; as long as nobody rejects, it stays open.
* `all` is everybody who may decide now, and everybody who has.
* What is due is told by how long ago it was asked. A clock that was late reminds once, not once
  for every reminder that it missed.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from permaflow.plan import Json

KIND = "approval"
"""The kind of question that an approval is."""

PENDING, APPROVED, REJECTED = "pending", "approved", "rejected"
TIMED_OUT, WITHDRAWN = "timed_out", "withdrawn"
APPROVE, REJECT = "approve", "reject"
DECIDED = {APPROVE: APPROVED, REJECT: REJECTED}
"""What people say → what it comes to, and the port that the step leaves through."""


@dataclass(frozen=True, slots=True)
class Reminder:
    """The first after so many seconds, then one `every` so many, `at_most` in all."""

    after: float
    every: float | None
    at_most: int

    def past(self, elapsed: float) -> int:
        """How many are due by then."""
        if elapsed < self.after:
            return 0
        if self.every is None:
            return 1
        count = 1 + int((elapsed - self.after) / self.every)
        # Division rounds: at the very moment of a reminder it may come out one short.
        count += self.after + count * self.every <= elapsed
        return min(self.at_most, count)

    def at(self, number: int) -> float | None:
        """When reminder `number` (0 is the first) is due; None if there is none."""
        if number >= self.at_most or (number and self.every is None):
            return None
        return self.after + number * (self.every or 0.0)


@dataclass(frozen=True, slots=True)
class Level:
    """Whom it is escalated to after so many seconds, beside those who were asked before."""

    after: float
    users: tuple[str, ...]
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Terms:
    """What an approval was asked with. `need` is None for everybody.

    `to_all`: anybody with the right to decide may do so; nobody in particular was asked.
    """

    title: str
    description: str
    data: Json
    form: Json
    users: tuple[str, ...]
    groups: tuple[str, ...]
    to_all: bool
    need: int | None
    veto: bool
    reminder: Reminder | None
    escalation: tuple[Level, ...]
    delegation: bool
    self_approval: bool
    on_reject: str
    timeout: float | None
    on_timeout: str

    @property
    def levels(self) -> tuple[Level, ...]:
        """Whom it asks when: those it was put to, then the levels of its escalation."""
        return (Level(0.0, self.users, self.groups), *self.escalation)


def read_terms(value: Mapping[str, Json]) -> Terms:
    """The terms as `specs.approvals` renders them."""
    reminder = value.get("reminder")
    return Terms(
        title=value["title"],
        description=value["description"],
        data=value.get("data"),
        form=value.get("form"),
        users=tuple(value["users"]),
        groups=tuple(value["groups"]),
        to_all=value["to_all"],
        need=value["need"],
        veto=value["veto"],
        reminder=None if reminder is None else Reminder(**reminder),
        escalation=tuple(
            Level(level["after"], tuple(level["users"]), tuple(level["groups"]))
            for level in value["escalation"]
        ),
        delegation=value["delegation"],
        self_approval=value["self_approval"],
        on_reject=value["on_reject"],
        timeout=value.get("timeout"),
        on_timeout=value["on_timeout"],
    )


def judge(
    need: int | None, veto: bool, eligible: Collection[str] | None, votes: Mapping[str, bool]
) -> str | None:
    """APPROVED, REJECTED, or None while it is open. `votes` are True for approve.

    `eligible` are those who may decide, None for anybody.
    """
    approvals = sum(votes.values())
    rejections = len(votes) - approvals
    if rejections and veto:
        return REJECTED
    if not votes:
        return None
    everybody = None if eligible is None else votes.keys() | set(eligible)
    if need is None:
        need = 1 if everybody is None else len(everybody)
    if approvals >= need:
        return APPROVED
    if rejections and everybody is not None and len(everybody) - rejections < need:
        return REJECTED
    return None


@dataclass(frozen=True, slots=True)
class Due:
    """What is to be done now, how far that gets us, and when (since it was asked) to look again."""

    remind: bool
    levels: Sequence[Level]
    reminders: int
    level: int
    next: float | None


def due(terms: Terms, elapsed: float, reminders: int, level: int) -> Due:
    """`reminders` and `level` are how many reminders there have been, and levels been told."""
    reminder = terms.reminder
    past = max(reminders, reminder.past(elapsed) if reminder is not None else 0)
    chain, reached = terms.levels, level
    while reached < len(chain) and chain[reached].after <= elapsed:
        reached += 1
    coming = [each.after for each in chain[reached : reached + 1]]
    if reminder is not None and (at := reminder.at(past)) is not None:
        coming.append(at)
    levels = chain[level:reached]
    return Due(past > reminders, levels, past, reached, min(coming, default=None))
