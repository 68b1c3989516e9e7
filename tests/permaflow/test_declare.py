"""A task type out of one coroutine, and integrations out of actions."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field

from permaflow import field
from permaflow.declare import remote_task_type, task_type
from permaflow.errors import ContractError, NotFoundError
from permaflow.forms import Form
from permaflow.integration import Action, Credential, Integration
from permaflow.plan import Json
from permaflow.task import Done, OutputField, Reject, Retry, TaskContext
from permaflow.task_types import TaskTypeRegistry, accept_task_type
from permaflow.testing.task import make_context
from permaflow.values import plain


class Sum(Form):
    """Two numbers."""

    one: int = field.number("One", required=True)
    other: int = field.number("Other", required=True)


class Total(BaseModel):
    """Their sum."""

    total: int = Field(description="One and the other.")


@task_type("math/add", label="Add", category="Math", icon="plus", timeout=timedelta(seconds=5))
async def add(config: Sum, ctx: TaskContext) -> Total | Reject:
    """Add two numbers.

    The longer story is not for catalogues.
    """
    if config.one > 100:
        return Reject("too large")
    return Total(total=config.one + config.other)


class Sent(BaseModel):
    """What a provider says."""

    success: bool
    error: str = ""


async def run(step: Any, config: Json) -> Any:
    return await step.run(step.config.model_validate(config), make_context())


def test_a_decorated_coroutine_is_a_task_type() -> None:
    accept_task_type(add)
    assert (add.name, add.label, add.category, add.icon) == ("math/add", "Add", "Math", "plus")
    assert add.doc == "Add two numbers."
    assert (add.config, add.result) == (Sum, Total)
    assert add.timeout == timedelta(seconds=5)


async def test_what_it_gives_back_is_its_output_and_a_verdict_stands_for_itself() -> None:
    assert await run(add, {"one": 1, "other": 2}) == Done({"total": 3})
    assert await run(add, {"one": 101, "other": 2}) == Reject("too large")


async def test_a_step_may_be_a_function_of_a_plain_object() -> None:
    @task_type("math/double", config=Sum)
    async def double(input):  # type: ignore[no-untyped-def]  # noqa: A002
        return {"success": True, "given": input, "plain": type(input) is dict}

    assert await run(double, {"one": 1, "other": 2}) == Done(
        {"success": True, "given": {"one": 1, "other": 2}, "plain": True}
    )


@pytest.mark.parametrize(
    ("returned", "verdict"),
    [
        ({"success": False, "error": "Failed to send SMS"}, Retry),
        ({"success": False, "error": "Failed to send SMS", "retryable": False}, Reject),
    ],
)
async def test_success_false_is_a_failed_step(returned: Json, verdict: type) -> None:
    @task_type("sms/send")
    async def send(config: dict[str, Json]) -> dict[str, Json]:
        return dict(returned)

    answered = await run(send, {"any": "thing"})
    assert isinstance(answered, verdict)
    assert answered.message == "Failed to send SMS"
    assert answered.code == "step_failed"
    assert answered.details == returned


async def test_a_model_may_say_that_it_failed() -> None:
    @task_type("sms/send")
    async def send(config: dict[str, Json]) -> Sent:
        return Sent(success=False, error="no credit")

    assert isinstance(await run(send, {}), Retry)


async def test_an_output_that_is_no_json_is_refused() -> None:
    @task_type("odd/one")
    async def odd(config: dict[str, Json]) -> Any:
        return {"when": {1, 2}}

    answered = await run(odd, {})
    assert isinstance(answered, Reject)
    assert answered.code == "bad_result"


def test_a_function_that_is_no_coroutine_is_refused() -> None:
    with pytest.raises(ContractError, match="coroutine"):

        @task_type("math/add")
        def plain_function(config: Sum) -> None: ...


def test_a_function_of_three_is_refused() -> None:
    with pytest.raises(ContractError, match="3 parameters"):

        @task_type("math/add")
        async def three(config: Sum, ctx: TaskContext, more: int) -> None: ...


def test_outputs_are_the_members_of_the_result_unless_they_are_given() -> None:
    types = TaskTypeRegistry()
    types.add(add)
    assert types.info("math/add").outputs == (OutputField("total", "One and the other."),)

    @task_type("math/sub", outputs=[("difference", "What is left"), {"field": "sign"}])
    async def sub(config: Sum) -> Json: ...

    types.add(sub)
    assert types.info("math/sub").outputs == (
        OutputField("difference", "What is left"),
        OutputField("sign", ""),
    )


# --- doors ----------------------------------------------------------------------------------------


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with an integration `sms`, whose step is a module of its own."""
    (tmp_path / "sms_plugin.py").write_text(
        "from permaflow.integration import Action, Credential, Integration\n"
        "sms = Integration(type='sms', label='SMS', description='Send SMS messages',\n"
        "    icon='message-square', form_fields=(Credential('apiKey', 'API Key'),),\n"
        "    actions=(Action('send', 'Send SMS', step='sms_steps:send'),\n"
        "             Action('lost', 'Lost', step='sms_steps:nowhere')))\n"
    )
    (tmp_path / "sms_steps.py").write_text(
        "from permaflow.declare import task_type\n"
        "async def send(input: dict) -> dict:\n"
        "    '''Send an SMS message to a phone number.'''\n"
        "    return {'success': True, 'messageId': 'm1', 'given': input}\n"
        "@task_type('other/thing')\n"
        "async def thing(input: dict) -> dict: ...\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "sms_plugin", raising=False)
    monkeypatch.delitem(sys.modules, "sms_steps", raising=False)
    return tmp_path


@pytest.mark.parametrize("setting", ["sms_plugin", "sms_plugin:sms"])
async def test_an_integration_is_found_by_a_setting_and_its_step_imported_when_it_is_needed(
    plugin: Path, setting: str
) -> None:
    types = TaskTypeRegistry(integrations=[setting])
    assert {"sms/send", "sms/lost"} <= set(types.names())
    assert types.integrations()[0].labels == {"sms/send": "Send SMS", "sms/lost": "Lost"}
    assert "sms_steps" not in sys.modules
    send = types.get("sms/send")
    assert "sms_steps" in sys.modules
    assert (send.label, send.category, send.icon) == ("Send SMS", "SMS", "message-square")
    assert send.doc == "Send an SMS message to a phone number."
    assert isinstance(await run(send, {"phoneNumber": "+49"}), Done)


def test_a_broken_step_breaks_its_action_alone(plugin: Path) -> None:
    types = TaskTypeRegistry(integrations=["sms_plugin"])
    with pytest.raises(ContractError, match=r"sms_steps:nowhere.*sms/lost"):
        types.get("sms/lost")
    assert types.get("sms/send").name == "sms/send"
    (problem,) = types.config_problems("sms/lost", {})
    assert problem.code == "contract"
    assert [str(e) for e in types.load() if "sms/lost" in str(e)]


def test_a_name_is_kept_by_whoever_has_it_and_the_other_is_told_of(plugin: Path) -> None:
    types = TaskTypeRegistry(integrations=["sms_plugin"])
    mine = task_type("sms/send")(types_of_the_test)
    types.add(mine)
    assert types.get("sms/send") is mine
    (told,) = [str(error) for error in types.load() if "exists already" in str(error)]
    assert "the integration sms offers the task type 'sms/send'" in told


async def types_of_the_test(given: dict[str, Json]) -> Json:
    """Nothing."""


def test_an_integration_is_found_by_an_entry_point(plugin: Path) -> None:
    info = plugin / "sms_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: sms-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[permaflow.integrations]\nsms = sms_plugin:sms\n")
    assert TaskTypeRegistry().get("sms/send").label == "Send SMS"


def test_the_task_types_of_a_module_are_found_without_a_list_of_them(plugin: Path) -> None:
    types = TaskTypeRegistry(modules=["sms_steps"])
    assert types.get("other/thing").name == "other/thing"
    with pytest.raises(NotFoundError):
        types.get("sms/send")


def test_the_category_of_an_action_is_the_label_of_its_integration() -> None:
    with pytest.raises(ContractError, match="it must be 'SMS'"):
        Integration("sms", "SMS", actions=(Action("send", "Send", step=add, category="Text"),))
    mathematics = Integration("math", "Numbers", actions=(Action("add", "Add", step=add),))
    with pytest.raises(ContractError, match="it must be 'Numbers'"):
        mathematics.load("math/add")


def test_an_action_is_named_after_its_integration() -> None:
    odd = Integration("sums", "Math", actions=(Action("add", "Add", step=add),))
    with pytest.raises(ContractError, match="calls itself 'math/add'"):
        odd.load("sums/add")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Integration("S M S", "SMS"), "no type"),
        (lambda: Integration("sms", ""), "needs a label"),
        (lambda: Integration("sms", "SMS", actions=(Action("a b", "A", add),)), "no slug"),
        (lambda: Integration("sms", "SMS", actions=(Action("a", "A", add),) * 2), "two actions"),
        (lambda: Integration("sms", "SMS", form_fields=(Credential("k", "K"),) * 2), "same id"),
    ],
)
def test_an_unsound_integration_is_refused(make: Any, said: str) -> None:
    with pytest.raises(ContractError, match=said):
        make()


# --- elsewhere ------------------------------------------------------------------------------------

SCHEMA = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "times": {"type": "integer", "minimum": 1}},
    "required": ["text"],
    "additionalProperties": False,
}


def test_documents_are_checked_against_the_schema_of_a_remote_type() -> None:
    types = TaskTypeRegistry()
    types.add(remote_task_type("node/shout", stage="node", config=SCHEMA))

    def pointers(config: Json) -> list[str]:
        return [problem.pointer for problem in types.config_problems("node/shout", config)]

    assert pointers({"text": "hello", "times": 2}) == []
    assert pointers({}) == ["/text"]
    assert pointers({"text": 7, "times": 0}) == ["/text", "/times"]
    assert pointers({"text": "{{trigger.word}}", "times": "{{trigger.n}}"}) == []
    assert types.info("node/shout").remote
    assert plain(types.info("node/shout").config) == SCHEMA


def test_a_remote_type_needs_a_json_schema() -> None:
    with pytest.raises(ContractError, match="no JSON Schema"):
        remote_task_type("node/shout", stage="node", config={"type": "objekt"})
