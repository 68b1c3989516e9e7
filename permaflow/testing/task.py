"""What a test of a task type needs: a context, and a check of the promises a task type makes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from permaflow.errors import ConnectorError, NotFoundError
from permaflow.functions import FunctionRegistry
from permaflow.plan import Json
from permaflow.task import HttpResponse, TaskContext, TaskType
from permaflow.task_types import accept_task_type


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer made by hand. Implements `permaflow.task.HttpResponse`."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request that a `ScriptedHttp` was asked for."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None
    timeout: timedelta | None


class ScriptedHttp:
    """Gives the prepared answers in order, raises those that are exceptions, keeps what was asked.

    Implements `permaflow.task.Http`; it reaches no network at all.
    """

    def __init__(self, *answers: HttpResponse | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[Asked] = []

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: timedelta | None = None,
        max_bytes: int | None = None,
        follow_redirects: bool = True,
    ) -> HttpResponse:
        self.asked.append(Asked(method, url, dict(headers or {}), body, timeout))
        if not self._answers:
            raise ConnectorError("No answer was prepared for this request.")
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class GivenSecrets:
    """Secrets made by hand. Implements `permaflow.ports.Secrets`."""

    def __init__(self, **secrets: str) -> None:
        self._secrets = {name.replace("_", "-"): text for name, text in secrets.items()}

    async def get(self, name: str) -> str:
        found = self._secrets.get(name)
        if found is None:
            raise NotFoundError(f"There is no secret {name!r}.")
        return found


class _Absent:
    """Stands for a port that the test did not give; any use of it names what is missing."""

    def __init__(self, port: str) -> None:
        self._port = port

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"The task used ctx.{self._port}.{name}; give make_context a port.")


def make_context(
    *,
    functions: Sequence[Callable[..., Any]] | Mapping[str, Callable[..., Any]] = (),
    **overrides: Any,
) -> TaskContext:
    """A context for one call. `functions` are marked functions, or a mapping of slugs."""
    registry = FunctionRegistry(installed=False)
    if isinstance(functions, Mapping):
        for slug, target in functions.items():
            registry.add(target, slug)
    else:
        for target in functions:
            registry.add(target)
    run_id = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
    values: dict[str, Any] = {
        "org": "acme",
        "run_id": run_id,
        "node": "step",
        "scope": "",
        "attempt": 1,
        "visit": 0,
        "timeout": timedelta(seconds=30),
        "http": _Absent("http"),
        "records": _Absent("records"),
        "tables": _Absent("tables"),
        "functions": registry,
        "secrets": _Absent("secrets"),
        "documents": _Absent("documents"),
        "notifications": _Absent("notifications"),
        "mail": None,
        "integrations": None,
        "snippets": None,
        "log": lambda text: None,
    }
    return TaskContext(**(values | overrides))


def check_task_type(task_type: TaskType, *, sound: Json, unsound: Json) -> None:
    """Asserts what the engine and its catalogue rely on.

    `sound` is a config that must be accepted, `unsound` one that must not be.
    """
    accept_task_type(task_type)
    assert task_type.doc, f"{task_type.name} needs a sentence in doc"
    assert isinstance(task_type.config.model_json_schema(), dict)
    assert isinstance(task_type.result.model_json_schema(mode="serialization"), dict)
    task_type.config.model_validate(sound)
    refused: tuple[Json, ...] = (unsound, None, [], "text", {"no_such_field_": 1})
    for config in refused:
        try:
            task_type.config.model_validate(config)
        except ValueError:
            continue
        raise AssertionError(f"{task_type.name} accepts the config {config!r}")


def config_of(task_type: TaskType, **values: Json) -> Any:
    """A config as `run` wants it."""
    return task_type.config.model_validate(values)
