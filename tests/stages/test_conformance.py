"""The task types in the box keep the promises that plug-ins are held to."""

from __future__ import annotations

import pytest

from permaflow.testing.conformance import check_conformance, check_schemas
from permaflow.testing.task import Answer
from pipeline import builtins
from pipeline.settings import Settings
from stages.http import task_type as action_http


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
