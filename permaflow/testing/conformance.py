"""What every task type promises, checked by running it against ports that answer, fail and hang.

::

    async def test_it_keeps_the_promises_of_a_task_type() -> None:
        await check_conformance(
            send,
            sound={"phoneNumber": "+4912345", "message": "hello"},
            unsound={"message": "hello"},
            answers=[Answer(200, body=b'{"id": "m1"}')],
        )

What is checked, each by a function of its own:

* the schemas are JSON Schemas, and say of every field how it is filled in;
* the sound config is accepted, the unsound one and nonsense are not;
* the answer is a verdict, and an output is JSON that fits the result's schema;
* both attempts of a step send the same idempotency key with whatever changes something outside;
* a port that fails gives a verdict or an error of `permaflow.errors`, never anything else;
* a step that is cancelled, because its time is up, ends at once;
* what was entered in password fields stands in no verdict, no error and no log line.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, is_dataclass
from typing import Any

import jsonschema_rs

from permaflow.errors import ConnectorTimeoutError, PermaflowError, UnreachableError
from permaflow.forms import KEYWORD, hinted
from permaflow.plan import Json
from permaflow.task import Done, HttpResponse, Park, Reject, Retry, TaskContext, TaskType
from permaflow.task_types import parse_config
from permaflow.testing.task import Answer, ScriptedHttp, check_task_type, make_context
from permaflow.values import plain

CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})
AT_ONCE = 2.0
"""Seconds in which a step that is cancelled has to end."""

_MARK = "s3cret-\N{LATIN SMALL LETTER O WITH DIAERESIS}-entered"

Answers = Sequence[HttpResponse | Exception]
Make = Callable[..., TaskContext]


async def check_conformance(
    task_type: TaskType,
    *,
    sound: Json,
    unsound: Json,
    answers: Answers = (),
    context: Make = make_context,
    sends_key: bool = True,
) -> None:
    """Every check of this module. Raises `AssertionError` that says what is wrong.

    `answers` are what HTTP answers to a sound config, in order. `context` makes the context of one
    attempt out of the keywords of `make_context`; give one with further ports if the task needs
    them. Pass `sends_key=False` if the other side knows no idempotency key: then a step that is
    done twice has its effect twice, and your documentation says so.
    """
    check_schemas(task_type)
    check_task_type(task_type, sound=sound, unsound=unsound)
    await check_output(task_type, sound, answers, context)
    if sends_key:
        await check_keys(task_type, sound, answers, context)
    await check_failures(task_type, sound, context)
    await check_cancelling(task_type, sound, context)
    await check_secrets(task_type, sound, answers, context)


def check_schemas(task_type: TaskType) -> None:
    """The schemas are sound, and every field of a form has a kind, a label and known options."""
    for schema in (
        task_type.config.model_json_schema(),
        task_type.result.model_json_schema(mode="serialization"),
    ):
        try:
            jsonschema_rs.meta.validate(schema)
            jsonschema_rs.validator_for(schema, offline=True)
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise AssertionError(f"{task_type.name} has a schema that is none: {error}") from None
    properties = task_type.config.model_json_schema().get("properties", {})
    for key, info, _ in hinted(task_type.config):
        assert info.title, f"The field {key} of {task_type.name} needs a label"
        assert properties[key].get(KEYWORD, {}).get("type"), f"The field {key} says no kind"


async def check_output(
    task_type: TaskType, sound: Json, answers: Answers, context: Make = make_context
) -> None:
    """A sound config leads to `Done` with an output that is JSON and fits the result."""
    verdict = await _run(task_type, sound, _context(context, answers))
    assert isinstance(verdict, Done), f"{task_type.name} answers a sound config with {verdict!r}"
    output = plain(verdict.output)
    schema = task_type.result.model_json_schema(mode="serialization")
    for error in jsonschema_rs.validator_for(schema, offline=True).iter_errors(output):
        raise AssertionError(f"The output of {task_type.name} is not its result: {error.message}")


async def check_keys(
    task_type: TaskType, sound: Json, answers: Answers, context: Make = make_context
) -> None:
    """Requests that change something carry the step's key, the same for every attempt."""
    for attempt in (1, 2):
        http = ScriptedHttp(*answers)
        made = context(http=http, attempt=attempt)
        await _run(task_type, sound, made)
        for asked in http.asked:
            if asked.method.upper() in CHANGING:
                told = [*asked.headers.values(), asked.url, (asked.body or b"").decode()]
                assert any(made.step_key in text for text in told), (
                    f"{task_type.name} sends {asked.method} {asked.url} without ctx.step_key: a "
                    "step that is done twice would have its effect twice"
                )


async def check_failures(task_type: TaskType, sound: Json, context: Make = make_context) -> None:
    """Whatever HTTP answers, there is a verdict, or an error of ours; nothing else escapes."""
    for trouble in _troubles():
        made = context(http=ScriptedHttp(trouble))
        try:
            verdict = await _run(task_type, sound, made)
        except PermaflowError:
            continue
        except Exception as error:
            raise AssertionError(
                f"{task_type.name} lets {type(error).__name__} escape when HTTP gives {trouble!r}"
            ) from error
        assert isinstance(verdict, Done | Retry | Reject | Park), verdict


def _troubles() -> Iterator[HttpResponse | Exception]:
    yield UnreachableError()
    yield ConnectorTimeoutError()
    for status in (204, 302, 400, 404, 429, 500, 503):
        yield Answer(status)
    yield Answer(200, body=b"<html>not what was asked for</html>")
    yield Answer(200, body=b"[1, 2]", headers={"content-type": "application/json"})


class HangingHttp:
    """Answers never. Implements `permaflow.task.Http`; `reached` is set once it is asked."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def request(self, method: str, url: str, **more: Any) -> HttpResponse:
        self.reached.set()
        await asyncio.Event().wait()
        raise AssertionError("unreachable")


async def check_cancelling(task_type: TaskType, sound: Json, context: Make = make_context) -> None:
    """A step that waits for the outside and is cancelled ends at once, by being cancelled."""
    http = HangingHttp()
    task = asyncio.ensure_future(_run(task_type, sound, context(http=http)))
    reached = asyncio.ensure_future(http.reached.wait())
    await asyncio.wait({task, reached}, timeout=AT_ONCE, return_when=asyncio.FIRST_COMPLETED)
    reached.cancel()
    if task.done():
        return  # it asks nobody over HTTP
    task.cancel()
    await asyncio.wait({task}, timeout=AT_ONCE)
    assert task.done(), f"{task_type.name} goes on after it was cancelled"
    assert task.cancelled(), f"{task_type.name} keeps its cancellation to itself"


async def check_secrets(
    task_type: TaskType, sound: Json, answers: Answers, context: Make = make_context
) -> None:
    """What stands in a password field is told to nobody but the other side."""
    keys = [key for key, _, hint in hinted(task_type.config) if hint.kind == "password"]
    if not keys or not isinstance(sound, dict):
        return
    config = {**sound, **dict.fromkeys(keys, _MARK)}
    for answer in (*answers, *_troubles()):
        lines: list[str] = []
        http = ScriptedHttp(answer)
        try:
            verdict = await _run(task_type, config, context(http=http, log=lines.append))
            told = json.dumps(asdict(verdict), default=str, ensure_ascii=False)
        except PermaflowError as error:
            told = str(error)
        for text in (told, *lines):
            assert _MARK not in text, f"{task_type.name} tells what a password field holds: {text}"
    told = ""
    try:
        parse_config(task_type, {**config, "no_such_field_": 1, keys[0]: [_MARK]})
    except PermaflowError as error:
        told = str(error)
    assert _MARK not in told, f"The schema of {task_type.name} tells what a password holds: {told}"


def _context(context: Make, answers: Answers) -> TaskContext:
    return context(http=ScriptedHttp(*answers)) if answers else context()


async def _run(task_type: TaskType, config: Json, ctx: TaskContext) -> Any:
    verdict = await task_type.run(task_type.config.model_validate(config), ctx)
    assert is_dataclass(verdict), f"{task_type.name} gives back {verdict!r}, which is no verdict"
    return verdict
