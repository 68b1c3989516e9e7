"""Decisions about approvals: each in one transaction, with the approval locked.

::

    lock ─► may this person? ─► note it ─► judge ─► decided: answer the question, close

Whoever holds the lock decides; those who come later are told what it came to. A timeout or the end
of the run closes the approval under the same lock, in the transaction of the orchestrator.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson

from permaflow.errors import ForbiddenError, InputError, StateError
from permaflow.plan import Json
from pipeline.core.approval import APPROVE, APPROVED, DECIDED, REJECTED, judge
from pipeline.ids import new_id
from pipeline.store import answers, approvals, audit, payloads
from pipeline.store.answers import Answer, StoredAnswer
from pipeline.store.approvals import AWAY, Approval
from pipeline.store.database import Connection
from pipeline.store.queries import query

_CLOSE = query("approvals.close")


@dataclass(frozen=True, slots=True)
class Response:
    """What a person says: `decision` is approve or reject. `via` is the key or the link."""

    person: str
    decision: str
    data: Json = None
    comment: str = ""
    via: str = ""


@dataclass(frozen=True, slots=True)
class Heard:
    """The approval after a response, and the answers to tell its run once it is committed."""

    approval: Approval
    answers: Sequence[StoredAnswer]


def check(approval: Approval, person: str) -> None:
    """Whether this person may decide now. Raises `StateError` and `ForbiddenError`."""
    row = approval.row
    if not approval.is_pending:
        raise StateError(f"It is {row.status}{_by(row.closed_by)} already.")
    if person in approval.votes:
        said = DECIDED[APPROVE if approval.votes[person] else "reject"]
        raise StateError(f"{person} has {said} it already; a decision stands.")
    if row.is_late:
        raise StateError("Its time is over.")
    if approval.is_barred(person):
        raise ForbiddenError(f"{person} asked for this, and may not decide about it.")
    if approval.eligible is not None and person not in approval.eligible:
        if person in approval.away:
            raise ForbiddenError(f"{person} has handed this over to somebody else.")
        raise ForbiddenError(f"{person} is not among those who are asked.")


async def respond(
    connection: Connection,
    org: UUID,
    approval_id: UUID,
    response: Response,
    *,
    inline: int,
) -> Heard:
    """Takes a decision down, and the approval with it if that makes the quorum.

    Tell the run of the answers once this is committed. An output above `inline` bytes is kept
    apart. Raises `NotFoundError`, `StateError` (it is over, or this person has decided) and
    `ForbiddenError`.
    """
    approval = await approvals.get(connection, org, approval_id, lock=True)
    check(approval, response.person)
    await approvals.add_event(
        connection,
        org,
        approval_id,
        response.decision,
        response.person,
        details=response.data,
        comment=response.comment,
        via=response.via,
    )
    actor = response.person
    details = {"run": str(approval.row.run_id), "node": approval.row.node, "via": response.via}
    name = f"approval:{approval_id}"
    await audit.add(connection, org, actor, f"approval.{response.decision}", name, details)
    approval = await approvals.get(connection, org, approval_id)
    terms = approval.terms
    status = judge(terms.need, terms.veto, approval.eligible, approval.votes)
    if status is None:
        return Heard(approval, ())
    answer = await _answer(connection, approval, status, response, inline)
    given = await answers.give(connection, [answer])
    await connection.execute(_CLOSE, {"id": approval_id, "status": status, "by": response.person})
    return Heard(await approvals.get(connection, org, approval_id), given)


async def delegate(
    connection: Connection,
    org: UUID,
    approval_id: UUID,
    person: str,
    to: str,
    *,
    comment: str = "",
    via: str = "",
) -> Approval:
    """Lets another decide in the place of `person`."""
    approval = await approvals.get(connection, org, approval_id, lock=True)
    check(approval, person)
    if not approval.terms.delegation:
        raise ForbiddenError("This approval cannot be handed over.")
    if approval.eligible is None:
        raise StateError("Anybody may decide about this; there is nothing to hand over.")
    if approval.is_barred(to):
        raise ForbiddenError(f"{to} asked for this, and may not decide about it.")
    if to in approval.eligible or to in approval.away or to in approval.votes:
        raise StateError(f"{to} has been asked already.")
    if not to.strip() or len(to) > 200:
        raise InputError("`to` is no name of a user.", pointer="/to")
    people = [(AWAY, person), ("user", to)]
    await approvals.add_people(connection, org, approval_id, people)
    await approvals.wake(connection, approval_id)
    await approvals.add_event(
        connection,
        org,
        approval_id,
        "delegate",
        person,
        details={"to": to},
        comment=comment,
        via=via,
    )
    details = {"to": to, "via": via}
    await audit.add(
        connection, org, person, "approval.delegate", f"approval:{approval_id}", details
    )
    return await approvals.get(connection, org, approval_id)


def decisions(approval: Approval) -> list[dict[str, Json]]:
    """Who decided what when, in order."""
    return [
        {
            "user": each.person,
            "decision": DECIDED[each.kind],
            "data": orjson.loads(each.details),
            "comment": each.comment,
            "at": each.at.isoformat(),
        }
        for each in approval.events
        if each.kind in DECIDED
    ]


async def _answer(
    connection: Connection, approval: Approval, status: str, response: Response, inline: int
) -> Answer:
    row, terms = approval.row, approval.terms
    if status == REJECTED and terms.on_reject == "fail":
        said = f": {response.comment}" if response.comment else "."
        return Answer(
            row.id, code="rejected", message=f"`{row.node}` was rejected by {response.person}{said}"
        )
    output: dict[str, Any] = {
        "decision": status,
        "timed_out": False,
        "by": response.person,
        "comment": response.comment,
        "data": {} if response.data is None else response.data,
        "decisions": decisions(approval),
    }
    port = APPROVED if status == APPROVED else REJECTED
    body = orjson.dumps(output)
    if len(body) <= inline:
        return Answer(row.id, output=body, port=port)
    ref = new_id()
    await payloads.put(connection, [payloads.Payload(ref, row.org, body, row.run_id)])
    return Answer(row.id, output_ref=ref, port=port)


def _by(person: str) -> str:
    return f" by {person}" if person else ""
