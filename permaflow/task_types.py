"""The task types of this installation, and what their schemas say about a config."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any

from pydantic import ValidationError

from permaflow.errors import ContractError, InputError, NotFoundError
from permaflow.integration import GROUP as INTEGRATIONS
from permaflow.integration import Integration, accept_integration
from permaflow.plan import Json, Problem
from permaflow.registry import Registry
from permaflow.rows import text_problems
from permaflow.task import OutputField, TaskType
from permaflow.values import escape

GROUP = "permaflow.task_types"
"""Entry points: the name is the task type's name, the value is `module:task_type`."""

_template = re.compile(r"\{\{.*?\}\}", re.DOTALL)
_name = re.compile(r"[A-Za-z][A-Za-z0-9_.\-]{0,99}(/[A-Za-z0-9_.\-]{1,99})?")
_stage = re.compile(r"[a-z][a-z0-9_-]{0,31}")


@dataclass(frozen=True, slots=True)
class TaskTypeInfo:
    """What a catalogue shows of a task type; the schemas are JSON Schemas."""

    name: str
    stage: str
    doc: str
    timeout: timedelta
    config: Mapping[str, Json]
    result: Mapping[str, Json]
    label: str = ""
    category: str = ""
    icon: str = ""
    outputs: tuple[OutputField, ...] = ()
    remote: bool = False


class TaskTypeRegistry:
    """Task types by name. Implements `permaflow.plan.TaskTypes`.

    `modules` hold task types and `integrations` integrations, whose actions are task types, too:
    `module` or `module:attribute`. Entry points offer both.
    """

    def __init__(
        self,
        builtins: Mapping[str, str] | None = None,
        *,
        modules: Sequence[str] = (),
        integrations: Sequence[str] = (),
    ) -> None:
        self._integrations = Registry[Integration](
            "integration",
            accept=accept_integration,
            name_of=lambda found: found.type,
            attribute="integration",
            group=INTEGRATIONS,
            modules=integrations,
            instances=Integration,
        )
        self._offered = False
        self._types = Registry[TaskType](
            "task type",
            accept=accept_task_type,
            name_of=lambda task_type: task_type.name,
            attribute="task_type",
            group=GROUP,
            builtins=builtins,
            modules=modules,
            instances=TaskType,
        )

    def add(self, task_type: TaskType) -> None:
        """Take one in by hand. Raises `ContractError` if it is unsound or its name is taken."""
        self._types.add(accept_task_type(task_type))

    def names(self) -> Sequence[str]:
        self._offer_actions()
        return self._types.names()

    def get(self, name: str) -> TaskType:
        """Raises `NotFoundError`, and `ContractError` when the plug-in is broken."""
        if not self._offered and "/" in name:
            self._offer_actions()
        return self._types.get(name)

    def load(self) -> tuple[ContractError, ...]:
        """Import all of them now; what is broken is returned, not raised."""
        broken = self._integrations.load()
        self._offer_actions()
        return (*broken, *self._types.load())

    def integrations(self) -> tuple[Integration, ...]:
        """Every sound integration, by its type."""
        found = []
        for name in self._integrations.names():
            try:
                found.append(self._integrations.get(name))
            except ContractError:
                continue
        return tuple(found)

    def _offer_actions(self) -> None:
        if self._offered:
            return
        self._offered = True
        for found in self.integrations():
            for name in found.by_id:
                origin = f"the integration {found.type}"
                self._types.offer(name, partial(found.load, name), origin)

    def stage(self, type_name: str) -> str:
        return self.get(type_name).stage

    def verbatim(self, type_name: str) -> Sequence[str]:
        """See `permaflow.plan.TaskTypes`. An unknown or broken type has none."""
        try:
            return self.get(type_name).verbatim
        except (NotFoundError, ContractError):
            return ()

    def stages(self) -> tuple[str, ...]:
        """Every stage that a sound task type names."""
        return tuple(sorted({task_type.stage for task_type in self._sound()}))

    def config_problems(self, type_name: str, config: Json) -> Sequence[Problem]:
        """See `permaflow.plan.TaskTypes`. An unknown or broken type is a problem, too."""
        try:
            model = self.get(type_name).config
        except (NotFoundError, ContractError) as error:
            return (Problem("", error.code, str(error)),)
        try:
            inside = text_problems(model, config)
            if inside:
                return inside
            model.model_validate(config)
        except ValidationError as error:
            return _problems(error, config)
        except Exception as error:  # whatever a plug-in raises while it looks at a config
            message = f"The schema of {type_name} failed: {type(error).__name__}: {error}"
            return (Problem("", ContractError.code, message),)
        return ()

    def info(self, name: str) -> TaskTypeInfo:
        """What a catalogue shows. Raises like `get`."""
        task_type = self.get(name)
        return TaskTypeInfo(
            name=task_type.name,
            stage=task_type.stage,
            doc=task_type.doc,
            timeout=task_type.timeout,
            config=task_type.config.model_json_schema(),
            result=task_type.result.model_json_schema(mode="serialization"),
            label=task_type.label,
            category=task_type.category,
            icon=task_type.icon,
            outputs=task_type.outputs or _members(task_type),
            remote=task_type.remote,
        )

    def _sound(self) -> Iterator[TaskType]:
        for name in self.names():
            try:
                yield self.get(name)
            except ContractError:
                continue


def accept_task_type(thing: object) -> TaskType:
    """`thing` if it keeps the promises of a task type; a `ContractError` says which it breaks."""
    if not isinstance(thing, TaskType):
        raise ContractError(f"Expected a TaskType, got {type(thing).__name__}.")
    if not _name.fullmatch(thing.name):
        raise ContractError(f"{thing.name!r} is no name for a task type.")
    if not _stage.fullmatch(thing.stage):
        raise ContractError(
            f"The task type {thing.name!r} names the stage {thing.stage!r}; a stage is a short "
            "lower-case word."
        )
    for schema in (thing.config, thing.result):
        if not all(hasattr(schema, m) for m in ("model_validate", "model_json_schema")):
            raise ContractError(
                f"The schemas of {thing.name!r} must be pydantic models (or have "
                "model_validate and model_json_schema)."
            )
    if not callable(thing.run) or thing.batch < 1 or thing.timeout <= timedelta(0):
        raise ContractError(
            f"The task type {thing.name!r} needs a coroutine, batch ≥ 1 and a timeout above 0."
        )
    return thing


def _members(task_type: TaskType) -> tuple[OutputField, ...]:
    """The members of the result, with the first sentence that is said of each."""
    schema = task_type.result.model_json_schema(mode="serialization")
    return tuple(
        OutputField(name, str(part.get("description", "")).partition("\n\n")[0])
        for name, part in schema.get("properties", {}).items()
        if isinstance(part, Mapping)
    )


def parse_config(task_type: TaskType, config: Json) -> Any:
    """A rendered config as `run` wants it. Raises `InputError` that names the first problem."""
    try:
        return task_type.config.model_validate(config)
    except ValidationError as error:
        problems = _problems(error, config, templates=False)
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise InputError(
            f"The config of {task_type.name} is wrong at {first.pointer or '/'}: "
            f"{first.message}{more}",
            pointer=first.pointer,
        ) from None


def _problems(
    error: ValidationError, config: Json, *, templates: bool = True
) -> tuple[Problem, ...]:
    """One problem per place; none where a template stands, whose value is not known yet.

    A model of which one field is a template never reaches its `mode="after"` validators: these
    speak when the rendered config is parsed.
    """
    found: dict[str, Problem] = {}
    for item in error.errors(include_url=False, include_input=False):
        pointer, known_yet = _locate(item["loc"], config, missing=item["type"] == "missing")
        if templates and not known_yet:
            continue
        match item["type"]:
            case "extra_forbidden":
                message = f"There is no field `{item['loc'][-1]}` here"
            case "missing":
                message = f"The field `{item['loc'][-1]}` is missing"
            case _:
                message = item["msg"].removeprefix("Value error, ")
        problem = Problem(pointer, "invalid_config", message[:1].upper() + message[1:] + ".")
        known = found.get(pointer)
        if known is None:
            found[pointer] = problem
        elif problem.message not in known.message:
            found[pointer] = Problem(pointer, known.code, f"{known.message} Or: {problem.message}")
    return tuple(found.values())


def _locate(loc: tuple[str | int, ...], config: Json, *, missing: bool) -> tuple[str, bool]:
    """The JSON pointer of pydantic's location, and whether no template stands on the way.

    Parts that the document does not have are the names of union members, except for the last one
    of a missing field.
    """
    pointer, here = "", config
    for index, part in enumerate(loc):
        if _is_template(here):
            return pointer, False
        if _has(here, part):
            here = here[part]
        elif not (missing and index == len(loc) - 1):
            continue
        pointer += "/" + escape(str(part))
    return pointer, missing or not _is_template(here)


def _has(value: Json, part: str | int) -> bool:
    if isinstance(value, list):
        return isinstance(part, int) and part < len(value)
    return isinstance(value, Mapping) and part in value


def _is_template(value: object) -> bool:
    return isinstance(value, str) and _template.search(value) is not None
