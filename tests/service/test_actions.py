"""Actions through the whole engine, each on the real thing that it reaches."""

from __future__ import annotations

import asyncio
import base64
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson

from permaflow.errors import NotFoundError
from permaflow.plan import Json
from pipeline.core.entries import Retrying, Succeeded
from tests.connectors.sites import Seen, Site
from tests.connectors.sites import answer as http_answer
from tests.fix_engine import graph, start_engine
from tests.fix_mail import PostOffices
from tests.fix_site import Sites

COMMAND = Path(sys.executable).with_name("permaflow")
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


async def test_a_report_is_kept_linked_and_sent_by_mail(
    sites: Sites, post_office: PostOffices
) -> None:
    rows = [{"id": 1, "name": "=1+1"}, {"id": 2, "name": "Bob"}]
    mail = {
        "to": "ada@example.com",
        "subject": "Your report",
        "text": "[[link]]",
        "merge": {"link": "{{steps.report.output.link}}"},
        "attachments": [{"document": "{{steps.report.output.id}}"}],
    }
    document = graph(
        step("report", "action_report", {"rows": "{{trigger.rows}}", "name": "orders"}),
        step("mail", "action_email", mail),
        edges=["t>report", "report>mail"],
    )
    async with (
        post_office() as post,
        sites(
            smtp_url=f"smtp://127.0.0.1:{post.port}",
            smtp_sender="shop@example.com",
            public_url="https://flows.example.com/",
        ) as site,
    ):
        run, entries = await site.engine.finished(document, {"rows": rows})
        outputs = {e.node: e.output for e in entries if isinstance(e, Succeeded)}
        link = outputs["report"]["link"]
        assert link.startswith("https://flows.example.com/documents/v1/")
        answer = await site.door.get(link.removeprefix("https://flows.example.com"))

    assert run.status == "completed"
    text = b"id,name\r\n1,'=1+1\r\n2,Bob\r\n"
    assert (answer.content, outputs["report"]["row_count"]) == (text, 2)
    assert answer.headers["content-disposition"].startswith('attachment; filename="orders.csv"')
    [message] = [each.message for each in post.delivered]
    assert message.get_body(("plain",)).get_content().strip() == link
    [attached] = message.iter_attachments()
    assert (attached.get_filename(), attached.get_payload(decode=True)) == ("orders.csv", text)


async def test_a_secret_is_sent_where_it_belongs_and_told_nowhere(
    sites: Sites, tmp_path: Path
) -> None:
    secret = "canary/0123456789+abc"

    def echo(seen: Seen) -> bytes:
        told = orjson.dumps({"headers": seen.headers, "again": quote(secret, safe="")})
        status = 200 if seen.path == "/good" else 500
        return http_answer(status, {"Content-Type": "application/json"}, told)

    auth = {"type": "basic", "user": "ada", "secret": "crm"}
    async with Site(echo) as crm, sites(http_allow=crm.permit) as site:
        key = site.door.headers["authorization"].removeprefix("Bearer ")
        env = {"PERMAFLOW_API_URL": str(site.door.base_url), "PERMAFLOW_API_KEY": key}
        setting = await asyncio.create_subprocess_exec(
            COMMAND, "secret", "set", "crm", stdin=asyncio.subprocess.PIPE, env=env, cwd=tmp_path
        )
        await setting.communicate(secret.encode() + b"\n")
        assert setting.returncode == 0
        for path, status in (("/good", "completed"), ("/bad", "failed")):
            config = {"url": crm.url + path, "auth": auth, "body": {"n": 1}, "method": "POST"}
            run, _ = await site.engine.finished(
                graph(step("call", "action_http", config), edges=["t>call"])
            )
            assert run.status == status
        everything = [
            str(row)
            for table in ("run", "journal", "payload", "workflow_version", "audit", "secret")
            for row in await site.sql(f"select t::text from permaflow.{table} t")
        ]

    basic = base64.b64encode(f"ada:{secret}".encode()).decode()
    assert [seen.headers["authorization"] for seen in crm.seen] == [f"Basic {basic}"] * 2
    told = "\n".join(everything)
    for spelt in (secret, quote(secret, safe=""), secret.encode().hex(), basic):
        assert spelt not in told
    assert "[secret]" in told


async def test_a_secret_goes_to_its_hosts_and_to_no_others(sites: Sites, tmp_path: Path) -> None:
    """Neither at once nor by a redirect, nor as the address itself, nor from a task of others."""
    secret = "canary-0123456789"

    def reply(seen: Seen) -> bytes:
        away = {"Location": f"http://localhost:{crm.port}/there"}
        return http_answer(307, away) if seen.path == "/away" else http_answer(200)

    async with Site(reply) as crm, sites(http_allow=crm.permit) as site:
        key = site.door.headers["authorization"].removeprefix("Bearer ")
        env = {"PERMAFLOW_API_URL": str(site.door.base_url), "PERMAFLOW_API_KEY": key}
        values = {"crm": secret, "hook": f"http://localhost:{crm.port}/hook/{secret}"}
        for name, value in values.items():
            setting = await asyncio.create_subprocess_exec(
                *(COMMAND, "secret", "set", name, "--host", "127.0.0.1"),
                stdin=asyncio.subprocess.PIPE,
                env=env,
                cwd=tmp_path,
            )
            await setting.communicate(value.encode())
            assert setting.returncode == 0

        async def ended(kind: str, config: dict[str, Any]) -> tuple[str, str]:
            document = graph(step("call", kind, config, retry=RETRY), edges=["t>call"])
            run, entries = await site.engine.finished(document)
            assert not any(isinstance(entry, Retrying) for entry in entries)
            return run.status, (run.error or b"").decode()

        auth = {"type": "bearer", "secret": "crm"}
        right, wrong = crm.url, f"http://localhost:{crm.port}"
        assert await ended("action_http", {"url": f"{right}/good", "auth": auth}) == (
            "completed",
            "",
        )
        told = [
            await ended("action_http", {"url": f"{wrong}/there", "auth": auth}),
            await ended("action_http", {"url": f"{right}/away", "auth": auth}),
            await ended(
                "action_notification",
                {"channel": "slack", "webhook": {"secret": "hook"}, "payload": {"title": "t"}},
            ),
        ]
        assert (await ended("action_http", {"url": f"{wrong}/open"}))[0] == "completed"

    assert [seen.path for seen in crm.seen] == ["/good", "/away", "/open"]
    for name, (status, error) in zip(("crm", "crm", "hook"), told, strict=True):
        assert status == "failed"
        assert f"The secret '{name}' may be sent to 127.0.0.1 alone" in error
        assert "localhost" in error
        assert secret not in error
