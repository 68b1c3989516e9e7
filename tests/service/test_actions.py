"""Actions through the whole engine, each on the real thing that it reaches."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import Any

import orjson

from permaflow.errors import NotFoundError
from permaflow.plan import Json
from pipeline.core.entries import Retrying, Succeeded
from tests.fix_engine import graph, start_engine
from tests.fix_mail import PostOffices

RETRY = {"max_retries": 2, "initial_delay_ms": 10}


def step(name: str, kind: str, config: dict[str, Any], **more: Json) -> dict[str, Any]:
    return {"id": name, "type": kind, "config": config, **more}


class Ledger:
    """A provider of integrations that keeps a ledger: real enough to be asked, and to say no."""

    calls: list[tuple[str, str, str]]

    def __init__(self) -> None:
        self.calls = []

    def __call__(self, org: str, http: object) -> Ledger:
        return self

    async def execute(
        self, connection_id: str, action_key: str, params: Any, *, key: str, timeout: object
    ) -> Json:
        if action_key != "add":
            raise NotFoundError("Action not found")
        self.calls.append((connection_id, params["text"], key))
        return {"entry": len(self.calls)}


ledger = Ledger()
"""What PERMAFLOW_INTEGRATIONS names in these tests."""


async def test_a_run_sends_mail_and_tries_again_what_the_server_put_off(
    database_url: str, nats_url: str, post_office: PostOffices
) -> None:
    config = {
        "to": "{{trigger.email}}",
        "subject": "Order [[id]]",
        "html": "<b>[[name]]</b>",
        "merge": {"id": "{{trigger.id}}", "name": "{{trigger.name}}"},
    }
    async with post_office() as post, AsyncExitStack() as stack:
        post.answers.append("451 later")
        engine = await start_engine(
            database_url,
            nats_url,
            stack,
            smtp_url=f"smtp://127.0.0.1:{post.port}",
            smtp_sender="Shop <shop@example.com>",
        )
        run, entries = await engine.finished(
            graph(step("mail", "action_email", config, retry=RETRY), edges=["t>mail"]),
            {"email": "ada@example.com", "id": 7, "name": "<Ada>"},
        )

    assert run.status == "completed"
    assert sum(isinstance(entry, Retrying) for entry in entries) == 1
    [delivered] = post.delivered
    assert delivered.message["subject"] == "Order 7"
    assert delivered.message.get_content().strip() == "<b>&lt;Ada&gt;</b>"
    [output] = [e.output for e in entries if isinstance(e, Succeeded) and e.node == "mail"]
    assert output["accepted"] == ["ada@example.com"]
    assert output["message_id"] == delivered.message["message-id"]


async def test_a_provider_that_the_settings_name_carries_out_integrations(
    database_url: str, nats_url: str
) -> None:
    config = {
        "connection_id": "conn_1",
        "action_key": "add",
        "params": {"text": "New order: {{trigger.id}}"},
    }
    unknown = {**config, "action_key": "remove"}
    ledger.calls.clear()
    async with AsyncExitStack() as stack:
        engine = await start_engine(
            database_url, nats_url, stack, integrations=f"{__name__}:ledger"
        )
        run, entries = await engine.finished(
            graph(step("add", "action_integration", config), edges=["t>add"]), {"id": 7}
        )
        refused, _ = await engine.finished(
            graph(step("add", "action_integration", unknown, retry=RETRY), edges=["t>add"]),
            {"id": 7},
        )

    assert run.status == "completed"
    assert [e.output for e in entries if isinstance(e, Succeeded) and e.node == "add"] == [
        {"entry": 1}
    ]
    [(connection, text, key)] = ledger.calls
    assert (connection, text) == ("conn_1", "New order: 7")
    assert key.startswith(str(run.id))
    assert refused.status == "failed"
    assert orjson.loads(refused.error or b"")["message"] == "Action not found"
