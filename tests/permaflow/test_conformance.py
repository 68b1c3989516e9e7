"""The conformance kit passes what keeps its promises and catches what breaks one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from permaflow import field
from permaflow.declare import task_type
from permaflow.forms import Form
from permaflow.task import HttpResponse, Reject, Retry, TaskContext, TaskType
from permaflow.testing.conformance import check_conformance
from permaflow.testing.task import Answer

SOUND = {"to": "+4912345", "key": "k"}
ANSWERS = [Answer(200, body=b'{"id": "m1"}')]


class Config(Form):
    """Whom to tell."""

    to: str = field.template_input("To", required=True)
    key: SecretStr = field.password("Key", required=True)


class Sent(BaseModel):
    """The id of what was sent."""

    id: str


def _judge(answer: HttpResponse) -> Sent | Retry | Reject:
    try:
        found = json.loads(answer.body or b"null")
    except ValueError:
        found = None
    if answer.status == 200 and isinstance(found, dict):
        return Sent(id=found["id"])
    return Retry(f"HTTP {answer.status}")


async def _ask(config: Config, ctx: TaskContext, **more: str) -> HttpResponse:
    headers = {"Idempotency-Key": ctx.step_key, "X-Key": config.key.get_secret_value(), **more}
    return await ctx.http.request("POST", "https://sms.example/", headers=headers, body=b"{}")


async def sound(config: Config, ctx: TaskContext) -> Sent | Retry | Reject:
    """Send."""
    return _judge(await _ask(config, ctx))


async def without_key(config: Config, ctx: TaskContext) -> Sent | Retry | Reject:
    """Send."""
    return _judge(await ctx.http.request("POST", "https://sms.example/", body=b"{}"))


async def with_the_attempt_as_key(config: Config, ctx: TaskContext) -> Sent | Retry | Reject:
    """Send."""
    headers = {"Idempotency-Key": f"{ctx.run_id}-{ctx.attempt}"}
    return _judge(await ctx.http.request("POST", "https://sms.example/", headers=headers))


async def lets_escape(config: Config, ctx: TaskContext) -> Sent:
    """Send."""
    return Sent(id=json.loads((await _ask(config, ctx)).body)["id"])


async def tells_secrets(config: Config, ctx: TaskContext) -> Sent | Retry | Reject:
    """Send."""
    answer = await _ask(config, ctx)
    if answer.status >= 400:
        return Reject(f"{config.key.get_secret_value()} was not accepted")
    return _judge(answer)


async def logs_secrets(config: Config, ctx: TaskContext) -> Sent | Retry | Reject:
    """Send."""
    ctx.log(f"with {config.key.get_secret_value()}")
    return _judge(await _ask(config, ctx))


async def goes_on(config: Config, ctx: TaskContext) -> Sent | Retry | Reject:
    """Send."""
    try:
        return _judge(await _ask(config, ctx))
    except asyncio.CancelledError:
        return Retry("cancelled")


async def other_output(config: Config, ctx: TaskContext) -> Any:
    """Send."""
    made = _judge(await _ask(config, ctx))
    return {"number": 7} if isinstance(made, Sent) else made


def make(step: Callable[..., Any]) -> TaskType:
    return task_type("sms/send", stage="http", config=Config, result=Sent)(step)


async def test_what_keeps_its_promises_passes() -> None:
    await check_conformance(make(sound), sound=SOUND, unsound={"key": "k"}, answers=ANSWERS)


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (without_key, "without ctx.step_key"),
        (with_the_attempt_as_key, "without ctx.step_key"),
        (lets_escape, "escape"),
        (tells_secrets, "tells what a password field holds"),
        (logs_secrets, "tells what a password field holds"),
        (goes_on, "keeps its cancellation"),
        (other_output, "is not its result"),
    ],
)
async def test_what_breaks_a_promise_is_caught(step: Any, said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        await check_conformance(make(step), sound=SOUND, unsound={"key": "k"}, answers=ANSWERS)


async def test_a_receiver_without_keys_is_a_choice() -> None:
    await check_conformance(
        make(without_key), sound=SOUND, unsound={"key": "k"}, answers=ANSWERS, sends_key=False
    )


async def test_a_config_that_takes_anything_is_caught() -> None:
    with pytest.raises(AssertionError, match="accepts the config"):
        await check_conformance(make(sound), sound=SOUND, unsound=SOUND, answers=ANSWERS)


async def test_a_sound_config_must_be_done() -> None:
    with pytest.raises(AssertionError, match="answers a sound config with"):
        await check_conformance(
            make(sound), sound=SOUND, unsound={"key": "k"}, answers=[Answer(500)]
        )
