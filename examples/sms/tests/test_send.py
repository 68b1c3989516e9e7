"""`sms/send` keeps the promises of a task type, and does what it is for."""

from __future__ import annotations

import json
from functools import partial

import pytest
from permaflow_sms.integration import integration
from permaflow_sms.steps import send

from permaflow.task import Done, Reject, Retry
from permaflow.testing.conformance import check_conformance
from permaflow.testing.task import (
    Answer,
    GivenSecrets,
    ScriptedHttp,
    config_of,
    make_context,
)

CONFIG = {"phoneNumber": "+1234567890", "message": "Your parcel is on its way."}
SENT = Answer(200, body=b'{"id": "m1"}')
context = partial(make_context, secrets=GivenSecrets(sms_api_key="k3y"))


async def test_it_keeps_the_promises_of_a_task_type() -> None:
    unsound = {"phoneNumber": "nobody", "message": "hello"}
    await check_conformance(send, sound=CONFIG, unsound=unsound, answers=[SENT], context=context)


async def test_the_provider_is_asked_and_its_id_given_back() -> None:
    http = ScriptedHttp(SENT)
    verdict = await send.run(config_of(send, **CONFIG), context(http=http))
    assert verdict == Done({"success": True, "messageId": "m1"})
    (asked,) = http.asked
    assert asked.headers["Authorization"] == "Bearer k3y"
    assert json.loads(asked.body or b"") == {"to": "+1234567890", "body": CONFIG["message"]}


@pytest.mark.parametrize(("status", "verdict"), [(503, Retry), (429, Retry), (403, Reject)])
async def test_what_is_not_sent_is_a_failed_step(status: int, verdict: type) -> None:
    http = ScriptedHttp(Answer(status))
    failed = await send.run(config_of(send, **CONFIG), context(http=http))
    assert isinstance(failed, verdict)
    assert failed.message == "Failed to send SMS"


def test_the_integration_shows_what_there_is_without_its_steps() -> None:
    assert integration.labels == {"sms/send": "Send SMS"}
    assert [each.key for each in integration.form_fields] == ["sms-api-key"]
    assert integration.load("sms/send").category == "SMS"
