"""What the doors of approvals and groups take and give as JSON."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import Field

from pipeline.gateway.shapes import Body, Links, Moment, View

Person = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
Comment = Annotated[str, Field(max_length=2_000, pattern=r"^[^\x00]*$")]
Decision = Literal["approve", "reject"]
ApprovalStatus = Literal["pending", "approved", "rejected", "timed_out", "withdrawn"]


class RespondBody(Body):
    """A decision. `data` is the form; `user`, for whom an admin speaks."""

    decision: Decision
    data: dict[str, Any] = Field(default_factory=dict)
    comment: Comment = ""
    user: Person | None = None


class DelegateBody(Body):
    """Who is to decide in one's place. `user`, for whom an admin speaks."""

    to: Person
    comment: Comment = ""
    user: Person | None = None


class LinkBody(Body):
    """Whom links are for, and for how long they are good (seconds; a week)."""

    user: Person
    decisions: list[Decision] = Field(["approve", "reject"], min_length=1, max_length=2)
    valid_for: Annotated[float, Field(ge=1, le=90 * 86_400)] = 7 * 86_400


class LinkResponse(Body):
    """What may come with a decision by link."""

    data: dict[str, Any] = Field(default_factory=dict)
    comment: Comment = ""


class GroupBody(Body):
    """The members of a group; others leave it."""

    members: Annotated[list[Person], Field(max_length=10_000)]


class DecisionView(View):
    """What one person decided."""

    user: str
    decision: Literal["approved", "rejected"]
    data: Any = None
    comment: str
    at: Moment


class EventView(View):
    """Something that was done about an approval: a decision, a reminder, an escalation, …"""

    kind: Literal["approve", "reject", "delegate", "remind", "escalate"]
    user: str
    details: Any = None
    comment: str
    via: str
    at: Moment


class QuorumView(View):
    """How many have to approve, and whether one rejection is enough."""

    need: int | Literal["all"]
    veto: bool


class ApprovalSummary(View):
    """An approval. `assignees` are as the workflow names them; null is anybody."""

    id: UUID
    status: ApprovalStatus
    title: str
    description: str
    data: Any = None
    form: Any = None
    assignees: list[str] | None
    quorum: QuorumView
    delegation: bool
    requester: str
    run_id: UUID
    scope: str
    node: str
    asked_at: Moment
    expires_at: Moment | None
    closed_at: Moment | None
    closed_by: str
    links: Links


class ApprovalView(ApprovalSummary):
    """An approval with all that was done about it. `waiting_for` are those who may still decide."""

    waiting_for: list[str] | None
    decisions: list[DecisionView]
    events: list[EventView]


class LinkView(View):
    """A link, told once. Only POST decides; GET shows what it would do."""

    user: str
    decision: Decision
    token: str
    path: str
    url: str
    expires_at: Moment


class LinksView(View):
    """New links of one person."""

    data: list[LinkView]


class LinkedView(View):
    """What a link would decide. `decided` is what its user has said.

    Once that is known, or the approval is over, what was asked is no longer shown.
    """

    id: UUID
    status: ApprovalStatus
    title: str = ""
    description: str = ""
    data: Any = None
    form: Any = None
    user: str
    decision: Decision
    decided: Decision | None = None
    expires_at: Moment


class GroupView(View):
    """A group of users."""

    name: str
    members: list[str]
    created_at: Moment
    updated_at: Moment
