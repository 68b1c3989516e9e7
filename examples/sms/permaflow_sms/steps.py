"""`sms/send`: hand a message over to the SMS provider."""

from __future__ import annotations

import json
import os
from typing import Any

from pydantic import BaseModel, Field

from permaflow import field
from permaflow.declare import task_type
from permaflow.errors import InputError
from permaflow.forms import Form
from permaflow.task import HttpResponse, TaskContext
from permaflow.values import parse
from permaflow_sms.integration import API_KEY

PROVIDER = "https://api.smsprovider.com/send"


class SendSms(Form):
    """Who gets which text."""

    phoneNumber: str = field.template_input(
        "Phone Number", placeholder="+1234567890", required=True, pattern=r"^\+\d{5,15}$"
    )
    message: str = field.template_textarea(
        "Message", placeholder="Your message here", rows=3, required=True
    )


class SmsSent(BaseModel):
    """What the provider said."""

    success: bool = Field(description="Whether the SMS was sent")
    messageId: str = Field(description="The SMS message ID")


@task_type("sms/send", stage="http", config=SendSms, result=SmsSent)
async def send(config: SendSms, ctx: TaskContext) -> dict[str, Any]:
    """Send an SMS message to a phone number."""
    headers = {
        "Authorization": f"Bearer {await ctx.secrets.get(API_KEY)}",
        "Content-Type": "application/json",
        "Idempotency-Key": ctx.step_key,
    }
    body = json.dumps({"to": config.phoneNumber, "body": config.message}).encode()
    url = os.environ.get("SMS_PROVIDER_URL", PROVIDER)
    return judge(await ctx.http.request("POST", url, headers=headers, body=body))


def judge(answer: HttpResponse) -> dict[str, Any]:
    """What the provider's answer means. What it refuses for good is not tried again."""
    message_id = _message_id(answer.body)
    if not 200 <= answer.status < 300 or message_id is None:
        may_pass = answer.status == 429 or answer.status >= 500
        return {"success": False, "error": "Failed to send SMS", "retryable": may_pass}
    return {"success": True, "messageId": message_id}


def _message_id(body: bytes) -> str | None:
    try:
        found = parse(body)
    except InputError:
        return None
    return str(found["id"]) if isinstance(found, dict) and "id" in found else None
