"""The task types in the box keep the promises that plug-ins are held to."""

from __future__ import annotations

import pytest

from permaflow.ports import StoredDocument
from permaflow.testing.conformance import check_conformance, check_schemas
from permaflow.testing.task import Answer, make_context
from pipeline import builtins
from pipeline.settings import Settings
from stages.email import task_type as action_email
from stages.http import task_type as action_http
from stages.integration import task_type as action_integration
from stages.notification import task_type as action_notification
from stages.report import task_type as action_report


@pytest.mark.parametrize("name", builtins.TASK_TYPES)
def test_every_schema_is_sound_and_the_catalogue_has_a_sentence_for_it(name: str) -> None:
    task_type = builtins.task_types(Settings(_env_file=None)).get(name)  # type: ignore[call-arg]
    check_schemas(task_type)
    assert task_type.doc.endswith(".")
    assert task_type.label
    assert task_type.icon


async def test_a_request_keeps_every_promise() -> None:
    sound = {"url": "https://example.com/", "method": "POST", "body": {"a": 1}}
    await check_conformance(
        action_http,
        sound=sound,
        unsound={**sound, "method": "SHOUT"},
        answers=[Answer(200, body=b'{"ok": true}', headers={"content-type": "application/json"})],
    )


class Accepting:
    """Ports that take whatever they are given."""

    sender = "shop@example.com"

    async def send(self, message, recipients, *, partial=False, timeout=None):
        return {}

    async def add(self, users, notice, *, key):
        return len(users)

    async def put(self, document, *, key):
        return StoredDocument("d1", "/documents/v1/d1")

    async def execute(self, connection_id, action_key, params, *, key, timeout):
        return {"ok": True}


def with_ports(**more):
    port = Accepting()
    ports = {"mail": port, "notifications": port, "documents": port, "integrations": port}
    return make_context(**(ports | more))


PAYLOAD = {"title": "Approved"}
SLACK = {"channel": "slack", "webhook": "https://hooks.example.com/x", "payload": PAYLOAD}


@pytest.mark.parametrize(
    ("task_type", "sound", "unsound", "answers"),
    [
        (
            action_email,
            {"to": "a@b.example", "subject": "s", "text": "t"},
            {"to": "a@b.example"},
            (),
        ),
        (action_notification, {"recipient": "ada", "payload": PAYLOAD}, {"recipient": "ada"}, ()),
        (action_notification, SLACK, SLACK | {"channel": "pager"}, [Answer(200, body=b"ok")]),
        (action_notification, SLACK | {"channel": "teams"}, {"channel": "teams"}, [Answer(202)]),
        (action_report, {"rows": [{"a": 1}]}, {"rows": {"a": 1}}, ()),
        (action_integration, {"connection_id": "c", "action_key": "a"}, {"action_key": "a"}, ()),
    ],
    ids=["email", "notification", "slack", "teams", "report", "integration"],
)
async def test_an_action_keeps_every_promise(task_type, sound, unsound, answers) -> None:
    await check_conformance(
        task_type, sound=sound, unsound=unsound, answers=answers, context=with_ports
    )
