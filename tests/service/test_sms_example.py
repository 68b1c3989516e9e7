"""examples/sms from end to end: the plug-in, its form, its workflow, and a provider."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.fix_site import RunningSite, Sites

EXAMPLE = Path(__file__).parents[2] / "examples" / "sms"
ORDER = {"phone": "+1234567890", "name": "Ada", "parcel": "p1"}
pytestmark = pytest.mark.service


class Provider:
    """Takes messages; refuses the first `refusals` with a 503."""

    def __init__(self, refusals: int = 0) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.keys: set[str] = set()
        self.refusals = refusals
        self.port = 0

    @property
    def messages(self) -> dict[str, dict[str, Any]]:
        """Message by idempotency key: what somebody got."""
        return dict(self.asked)


@pytest.fixture
def provider(monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            found.asked.append((self.headers["idempotency-key"], body))
            found.keys.add(self.headers["authorization"])
            refused = len(found.asked) <= found.refusals
            answer = json.dumps({} if refused else {"id": f"m{len(found.asked)}"}).encode()
            self.send_response(503 if refused else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Quiet."""

    found = Provider()
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.port = server.server_port
        monkeypatch.setenv("SMS_PROVIDER_URL", f"http://127.0.0.1:{found.port}/send")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield found
        server.shutdown()


@pytest.fixture
def plugin(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The settings with which an installation has the plug-in."""
    monkeypatch.syspath_prepend(str(EXAMPLE))
    yield {
        "plugins": "permaflow_sms.integration",
        "http_allow": f"127.0.0.1:{provider.port}",
    }
    for name in [name for name in sys.modules if name.partition(".")[0] == "permaflow_sms"]:
        del sys.modules[name]


async def connect(site: RunningSite) -> None:
    """Keep the provider's key, as the form of the integration would."""
    answer = await site.door.put("/secrets/v1/sms-api-key", json={"value": "k3y"})
    assert answer.status_code < 300, answer.text


async def test_the_sms_example_works_from_its_form_to_the_phone(
    sites: Sites, plugin: dict[str, str], provider: Provider
) -> None:
    async with sites(**plugin) as site:
        listed = (await site.door.get("/workflows/v1/catalogue")).json()
        (integration,) = [each for each in listed["integrations"] if each["type"] == "sms"]
        assert integration["form_fields"][0]["config_key"] == "sms-api-key"
        block = (await site.door.get("/workflows/v1/catalogue/sms/send")).json()
        assert block["label"] == "Send SMS"
        assert [field["type"] for field in block["fields"]] == [
            "template-input",
            "template-textarea",
        ]
        assert block["outputs"] == [
            {"field": "success", "description": "Whether the SMS was sent"},
            {"field": "messageId", "description": "The SMS message ID"},
        ]
        body = json.loads((EXAMPLE / "parcel.json").read_text(encoding="utf-8"))
        await connect(site)
        workflow = await site.active(body)
        run_id = await site.start(workflow["id"], ORDER)
        events = await site.watch(run_id)
        assert events[-1][1]["status"] == "completed"
        run = (await site.door.get(f"/workflows/v1/runs/{run_id}/steps")).json()["data"]
        (tell,) = [step for step in run if step["node"] == "tell"]
        assert tell["output"] == {"success": True, "messageId": "m1"}
        kept = (await site.door.get("/records/v1/message")).json()["data"]
        assert [record["data"] for record in kept] == [{"parcel": "p1", "sms": "m1"}]
    assert provider.keys == {"Bearer k3y"}
    text = "Hello Ada, your parcel p1 is on its way."
    assert list(provider.messages.values()) == [{"to": "+1234567890", "body": text}]


async def test_success_false_fails_the_step_which_is_tried_again_with_the_same_key(
    sites: Sites, plugin: dict[str, str], provider: Provider
) -> None:
    provider.refusals = 1
    async with sites(**plugin) as site:
        body = json.loads((EXAMPLE / "parcel.json").read_text(encoding="utf-8"))
        await connect(site)
        run_id = await site.start((await site.active(body))["id"], ORDER)
        events = await site.watch(run_id)
        assert events[-1][1]["status"] == "completed"
        (retrying,) = [told for name, told in events if name == "step_retrying"]
        assert "Failed to send SMS" in json.dumps(retrying)
    assert len(provider.asked) == 2
    assert len(provider.messages) == 1


async def test_a_wrong_form_is_refused_when_the_workflow_is_saved(
    sites: Sites, plugin: dict[str, str]
) -> None:
    async with sites(**plugin) as site:
        body = json.loads((EXAMPLE / "parcel.json").read_text(encoding="utf-8"))
        body["definition"]["nodes"][1]["config"] = {"phoneNumber": "nobody"}
        answer = await site.door.post("/workflows/v1/definitions", json=body)
        assert answer.status_code == 422
        assert {each["pointer"] for each in answer.json()["errors"]} >= {
            "/definition/nodes/1/config/phoneNumber",
            "/definition/nodes/1/config/message",
        }


def test_the_package_passes_its_own_test() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, cwd=EXAMPLE, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 passed" in done.stdout
