"""The example that the API was designed after, with curl: create, activate, start, watch.

Only what names a machine is another: where the API is, and where the notification goes.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from tests.fix_up import Hooks, Up

pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl"),
]

CREATE = """
curl -X POST http://localhost:3000/workflows/v1/definitions \\
-H "Authorization: Bearer $SERVICE_KEY" \\
-H "Content-Type: application/json" \\
-d '{
"name": "New Order Processing",
"trigger_type": "cdc",
"definition": {
"nodes": [
{"id": "trigger", "type": "trigger_record",
"config": {"event": "created", "object": "orders"}},
{"id": "validate", "type": "code_function",
"config": {"function_slug": "validate-order"}},
{"id": "notify", "type": "action_http",
"config": {"url": "https://hooks.slack.com/...", "method": "POST",
"body": {"text": "New order: {{trigger.record.id}}"}}}
],
"edges": [
{"id": "e1", "source": "trigger", "target": "validate"},
{"id": "e2", "source": "validate", "target": "notify"}
]
}
}'
"""
ACTIVATE = """
curl -X PATCH http://localhost:3000/workflows/v1/definitions/$WORKFLOW_ID/status \\
-H "Authorization: Bearer $SERVICE_KEY" \\
-H "Content-Type: application/json" \\
-d '{"status": "active"}'
"""
START = """
curl -X POST http://localhost:3000/workflows/v1/runs \\
-H "Authorization: Bearer $SERVICE_KEY" \\
-H "Content-Type: application/json" \\
-d '{"workflow_id": "'$WORKFLOW_ID'", "trigger_data": {"order_id": "ord-123"}}'
"""
WATCH = """
curl -N http://localhost:3000/workflows/v1/runs/$RUN_ID/stream \\
-H "Authorization: Bearer $SERVICE_KEY"
"""


Shell = Callable[..., str]


@pytest.fixture
def shell(running: Up, hooks: Hooks) -> Shell:
    def run(script: str, **variables: str) -> str:
        text = script.replace("http://localhost:3000", running.facts["api_url"])
        text = text.replace("https://hooks.slack.com/...", f"{hooks.url}/slack")
        done = subprocess.run(
            ["sh", "-c", text],
            env={"PATH": "/usr/bin:/bin", "SERVICE_KEY": running.facts["api_key"], **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def workflow(shell: Shell) -> str:
    """The id of the example, active."""
    created = json.loads(shell(CREATE))
    assert (created["status"], created["version"]) == ("draft", 1)

    refused = json.loads(shell(START, WORKFLOW_ID=created["id"]))
    assert (refused["status"], refused["detail"]) == (404, "Workflow not found or not active")

    active = json.loads(shell(ACTIVATE, WORKFLOW_ID=created["id"]))
    assert active["status"] == "active"
    return str(created["id"])


def events(stream: str) -> list[tuple[str, dict[str, Any]]]:
    """Names and data of server-sent events."""
    found = re.findall(r"^event: (\w+)\ndata: (.*)$", stream, re.MULTILINE)
    return [(name, json.loads(data)) for name, data in found]


def test_an_order_is_validated_and_announced_and_the_stream_ends_with_the_run(
    shell: Shell, workflow: str, hooks: Hooks
) -> None:
    started = json.loads(shell(START, WORKFLOW_ID=workflow))
    told = events(shell(WATCH, RUN_ID=started["run_id"]))
    assert [name for name, _ in told] == [
        "run_started",
        "step_completed",
        "step_started",
        "step_completed",
        "step_started",
        "step_completed",
        "run_completed",
    ]
    assert told[-1][1]["status"] == "completed"
    assert hooks.received.get(timeout=10) == ("/slack", {"text": "New order: ord-123"})


def test_data_without_what_the_text_names_fails_the_run_and_says_which(
    shell: Shell, workflow: str
) -> None:
    """A path that leads nowhere is an error, not an empty text."""
    start = START.replace("order_id", "number")
    started = json.loads(shell(start, WORKFLOW_ID=workflow))
    name, ended = events(shell(WATCH, RUN_ID=started["run_id"]))[-1]
    assert (name, ended["status"]) == ("run_completed", "failed")
    assert ended["error"]["node"] == "notify"
    assert "trigger.record.id" in ended["error"]["message"]
