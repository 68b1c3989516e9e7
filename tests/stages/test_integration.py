from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from permaflow.errors import BusyError, InputError, NotFoundError, RefusedError, UnreachableError
from permaflow.task import Done, Reject, Retry
from permaflow.testing.task import check_task_type, config_of, make_context
from stages.integration import judge, task_type

CONFIG = {
    "connection_id": "conn_slack_123",
    "action_key": "send_message",
    "params": {"channel": "#sales", "text": "New order: 7"},
}


class Raising:
    """Integrations of which every action fails in one way."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    async def execute(self, *arguments: Any, **named: Any) -> Any:
        raise self._error


async def run_with(integrations):
    context = make_context(integrations=integrations)
    return await task_type.run(config_of(task_type, **CONFIG), context)


def test_it_keeps_the_promises_of_a_task_type():
    check_task_type(task_type, sound=CONFIG, unsound={**CONFIG, "params": []})


async def test_without_a_provider_the_step_is_rejected_with_the_setting():
    verdict = await run_with(None)

    assert isinstance(verdict, Reject)
    assert verdict.code == "not_configured"
    assert "PERMAFLOW_INTEGRATIONS" in verdict.message


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (
            NotFoundError("There is no action send_fax."),
            Reject("There is no action send_fax.", "not_found"),
        ),
        (InputError("channel is missing"), Reject("channel is missing", "invalid_input")),
        (RefusedError("not allowed"), Reject("not allowed", "refused")),
        (UnreachableError("gone"), Retry("gone", "connect")),
        (
            BusyError("slow down", after=timedelta(seconds=30)),
            Retry("slow down", "busy", timedelta(seconds=30)),
        ),
    ],
)
async def test_an_error_of_the_provider_says_whether_to_try_again(error, expected):
    assert await run_with(Raising(error)) == expected


def test_only_json_is_an_output():
    assert judge({"ok": True, "at": None}) == Done({"ok": True, "at": None})
    assert isinstance(judge({"x": float("nan")}), Reject)
