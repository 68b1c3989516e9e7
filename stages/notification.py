"""`action_notification`: tell users where they watch, or a channel of Slack or Teams."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from permaflow.errors import PermaflowError
from permaflow.plan import Json
from permaflow.ports import Notice
from permaflow.task import (
    Done,
    HttpResponse,
    Reject,
    Retry,
    TaskContext,
    TaskType,
    Verdict,
    failure,
)
from stages.answers import excerpt, retry_after
from stages.secret_refs import SecretRef, resolved

SLACK_HEADER = 150
SLACK_TEXT = 3_000
"""The longest texts that Slack takes in a header and in a section (docs.slack.dev, Block Kit)."""

TEAMS_BYTES = 28_000
"""The largest message that an incoming webhook of Teams takes."""


def _several(value: object) -> object:
    return value if isinstance(value, list | tuple) else [value]


User = Annotated[str, Field(min_length=1, max_length=320)]
Users = Annotated[
    tuple[User, ...],
    BeforeValidator(_several, json_schema_input_type=str | list[str]),
    Field(min_length=1, max_length=100),
]


class Payload(BaseModel):
    """What is told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    title: str = Field(min_length=1, max_length=500, description="One line that says it all.")
    description: str = Field("", max_length=10_000, description="The rest, as plain text.")
    link: str = Field(
        "", max_length=2_000, pattern=r"^(https?://[^\s]+|/[^\s]*)?$", description="Where it leads."
    )
    data: Json = Field(None, description="Anything more, for the program that shows it.")


class Config(BaseModel):
    """`recipient` are users of this installation: it is kept for them, and told to those who watch.

    With the channel `slack` or `teams` it goes to an incoming webhook instead, whose address is in
    `webhook`: itself, or better `{"secret": "<name>"}`, for whoever knows it may post there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    channel: Literal["user", "slack", "teams"] = Field("user", description="Where it is told.")
    recipient: Users | None = Field(
        None, description="A user, or a list of users: the `user_name` of their keys."
    )
    webhook: str | SecretRef | None = Field(
        None, description="Address of an incoming webhook of Slack or Teams."
    )
    payload: Payload = Field(description="What is told.")
    timeout_seconds: float = Field(30.0, gt=0, le=3600, description="For a webhook to answer.")

    @model_validator(mode="after")
    def _has_an_address(self) -> Config:
        if self.channel == "user" and (self.recipient is None or self.webhook is not None):
            raise ValueError("users need a recipient, and no webhook")
        if self.channel != "user" and (self.webhook is None or self.recipient is not None):
            raise ValueError(f"the channel {self.channel} needs a webhook, and no recipient")
        return self


class Result(BaseModel):
    """`recipients` are the users; `delivered` says how many messages are on their way or kept."""

    channel: str
    recipients: list[str]
    delivered: int


async def run(config: Config, ctx: TaskContext) -> Verdict:
    try:
        if config.recipient is not None:
            return await _tell(config.recipient, config.payload, ctx)
        return await _post(config, ctx)
    except PermaflowError as error:
        return failure(error)


async def _tell(users: tuple[str, ...], payload: Payload, ctx: TaskContext) -> Verdict:
    """Under the key of the step: an attempt after one that had told them tells nobody again."""
    notice = Notice(payload.title, payload.description, payload.link, payload.data)
    recipients = list(dict.fromkeys(users))
    await ctx.notifications.add(recipients, notice, key=ctx.step_key)
    return Done({"channel": "user", "recipients": recipients, "delivered": len(recipients)})


async def _post(config: Config, ctx: TaskContext) -> Verdict:
    assert config.webhook is not None
    message = slack(config.payload) if config.channel == "slack" else teams(config.payload)
    body = json.dumps(message, ensure_ascii=False).encode(errors="replace")
    if config.channel == "teams" and len(body) > TEAMS_BYTES:
        return Reject(f"Teams takes {TEAMS_BYTES:,} bytes; this has {len(body):,}.", "too_large")
    answer = await ctx.http.request(
        "POST",
        await resolved(config.webhook, ctx),
        headers={
            "Content-Type": "application/json; charset=utf-8",
            "Idempotency-Key": ctx.step_key,  # Slack and Teams look at none; what imitates them may
        },
        body=body,
        timeout=min(timedelta(seconds=config.timeout_seconds), ctx.timeout),
        max_bytes=100_000,
        follow_redirects=False,
    )
    return judge(config.channel, answer, datetime.now(UTC))


def slack(payload: Payload) -> dict[str, Json]:
    """A message for an incoming webhook of Slack. `text` is what notifications show."""
    blocks: list[Json] = [
        {
            "type": "header",
            "text": {"type": "plain_text", "text": _cut(payload.title, SLACK_HEADER)},
        }
    ]
    if payload.description:
        text = _cut(_slack_escaped(payload.description), SLACK_TEXT)
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": text}})
    if payload.link.startswith("http"):
        link = _slack_escaped(payload.link).replace("|", "%7C")
        blocks.append({"type": "section", "text": {"type": "mrkdwn", "text": f"<{link}>"}})
    return {"text": _slack_escaped(payload.title), "blocks": blocks}


def _slack_escaped(text: str) -> str:
    """The three characters that are markup to Slack; with them goes every way to call somebody."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def teams(payload: Payload) -> dict[str, Json]:
    """A message for an incoming webhook of Teams: an adaptive card."""
    body: list[Json] = [
        {
            "type": "TextBlock",
            "text": payload.title,
            "size": "Medium",
            "weight": "Bolder",
            "wrap": True,
        }
    ]
    if payload.description:
        body.append({"type": "TextBlock", "text": payload.description, "wrap": True})
    card: dict[str, Json] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": body,
    }
    if payload.link.startswith("http"):
        card["actions"] = [{"type": "Action.OpenUrl", "title": "Open", "url": payload.link}]
    return {
        "type": "message",
        "attachments": [
            {
                "contentType": "application/vnd.microsoft.card.adaptive",
                "contentUrl": None,
                "content": card,
            }
        ],
    }


def judge(channel: str, answer: HttpResponse, now: datetime) -> Verdict:
    """What the answer of a webhook means.

    The older webhooks of Teams answer 200 whatever happens, and say in words what did.
    """
    words = excerpt(answer)
    status = answer.status
    if channel == "teams" and status == 200 and "HTTP error 429" in words:
        status = 429
    elif channel == "teams" and status == 200 and "delivery failed" in words.lower():
        return Retry("Teams says that the delivery failed.", code="teams_failed", details=words)
    if 200 <= status <= 299:
        return Done({"channel": channel, "recipients": [], "delivered": 1})
    details = _details(answer, words)
    if status == 429 or status in (408, 425) or status >= 500:
        after = retry_after(answer.headers, now)
        return Retry(f"HTTP {status}", code=f"http_{status}", after=after, details=details)
    return Reject(f"HTTP {status}: {words[:200]}", code=f"http_{status}", details=details)


def _details(answer: HttpResponse, words: str) -> Mapping[str, Any]:
    return {"status": answer.status, "body": words}


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"


task_type = TaskType(
    name="action_notification",
    stage="notification",
    config=Config,
    result=Result,
    run=run,
    doc="Tell users, or a channel of Slack or Teams.",
    label="Notification",
    category="Actions",
    icon="bell",
)
