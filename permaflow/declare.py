"""A task type out of one coroutine.

::

    @task_type("sms/send", label="Send SMS", stage="http", category="SMS", icon="message-square")
    async def send(config: SendSms, ctx: TaskContext) -> SmsSent | Reject:
        \"\"\"Send an SMS message to a phone number.\"\"\"
        ...

The coroutine gets the config, and the context if it has a second parameter. It gives back a
verdict, a model, or a plain object: `{"success": false, "error": "…"}` is a failed step. Where the
coroutine stood there is now the `TaskType`; the decorator registers nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import timedelta
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, RootModel

from permaflow.errors import ContractError
from permaflow.plan import Json
from permaflow.remote import JsonSchema, run_elsewhere
from permaflow.task import OutputField, Run, TaskContext, TaskType, Verdict
from permaflow.verdicts import verdict_of

Step = Callable[..., Awaitable[Any]]
Outputs = Iterable[OutputField | tuple[str, str] | Mapping[str, str]]

DEFAULT_TIMEOUT = timedelta(seconds=60)
DEFAULT_STAGE = "code"


class AnyConfig(RootModel[dict[str, Json]]):
    """Any object."""


class AnyResult(RootModel[Any]):
    """Any JSON value."""


def task_type(
    name: str,
    *,
    label: str = "",
    description: str = "",
    category: str = "",
    icon: str = "",
    stage: str = DEFAULT_STAGE,
    config: Any = None,
    result: Any = None,
    outputs: Outputs = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
    batch: int = 1,
) -> Callable[[Step], TaskType]:
    """Make a task type of the coroutine function that follows.

    The models of config and result are those of its annotations unless they are given; a coroutine
    whose first parameter is no model gets the config as a plain object. The description is the
    first line of its docstring unless it is given. Raises `ContractError` for what cannot be one.
    """

    def make(step: Step) -> TaskType:
        if not inspect.iscoroutinefunction(step):
            raise ContractError(f"The step of {name!r} must be a coroutine function (`async def`).")
        hints = _hints(step, name) if config is None or result is None else {}
        given, wants_context = _parameters(step, name)
        model = config or _model(hints.get(given)) or AnyConfig
        return TaskType(
            name=name,
            stage=stage,
            config=model,
            result=result or _model(hints.get("return")) or AnyResult,
            run=_runner(step, wants_context, as_model=_takes_model(step, given)),
            timeout=timeout,
            batch=batch,
            doc=description or (inspect.getdoc(step) or "").partition("\n")[0],
            label=label,
            category=category,
            icon=icon,
            outputs=output_fields(outputs),
        )

    return make


def remote_task_type(
    name: str,
    *,
    stage: str,
    config: Mapping[str, Json] | type[BaseModel],
    result: Mapping[str, Json] | type[BaseModel] | None = None,
    label: str = "",
    description: str = "",
    category: str = "",
    icon: str = "",
    outputs: Outputs = (),
    timeout: timedelta = DEFAULT_TIMEOUT,
    batch: int = 1,
) -> TaskType:
    """A task type that workers in another language serve over NATS.

    The schemas are JSON Schemas or models; with them documents are checked when they are saved.
    """
    return TaskType(
        name=name,
        stage=stage,
        config=JsonSchema(config) if isinstance(config, Mapping) else config,
        result=JsonSchema(result) if isinstance(result, Mapping) else result or AnyResult,
        run=run_elsewhere,
        timeout=timeout,
        batch=batch,
        doc=description,
        label=label,
        category=category,
        icon=icon,
        outputs=output_fields(outputs),
        remote=True,
    )


def output_fields(given: Outputs) -> tuple[OutputField, ...]:
    """Output fields, however they are written."""
    return tuple(
        each
        if isinstance(each, OutputField)
        else OutputField(each["field"], each.get("description", ""))
        if isinstance(each, Mapping)
        else OutputField(*each)
        for each in given
    )


def _runner(step: Step, wants_context: bool, *, as_model: bool) -> Run:
    async def run(config: Any, ctx: TaskContext) -> Verdict:
        given = config if as_model else _plain(config)
        returned = await (step(given, ctx) if wants_context else step(given))
        return verdict_of(returned, who="step")

    return run


def _plain(config: Any) -> Any:
    return (
        config.model_dump(mode="json", by_alias=True) if isinstance(config, BaseModel) else config
    )


def _parameters(step: Step, name: str) -> tuple[str, bool]:
    """The name of the parameter that the config is given to, and whether the context is wanted."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    given = [p for p in inspect.signature(step).parameters.values() if p.kind in kinds]
    needed = [p for p in given if p.default is inspect.Parameter.empty]
    if not given or len(needed) > 2:
        raise ContractError(
            f"The step of {name!r} takes the config and, if it likes, the context; it has "
            f"{len(needed)} parameters."
        )
    return given[0].name, len(given) > 1


def _takes_model(step: Step, parameter: str) -> bool:
    """A step annotated with a plain object, or not at all, gets no model."""
    annotation = inspect.signature(step).parameters[parameter].annotation
    if annotation is inspect.Parameter.empty:
        return False
    if isinstance(annotation, str):
        annotation = _hints(step, step.__name__).get(parameter)
    return _model(annotation) is not None


def _hints(step: Step, name: str) -> dict[str, Any]:
    try:
        return get_type_hints(step)
    except NameError as error:
        raise ContractError(
            f"The annotations of the step of {name!r} cannot be read: {error}. Import their types "
            "outside of TYPE_CHECKING, or give config= and result=."
        ) from error


def _model(annotation: Any) -> type[BaseModel] | None:
    """The one model of an annotation; verdicts may stand beside it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) in (Union, UnionType):
        found = [model for each in get_args(annotation) if (model := _model(each)) is not None]
        return found[0] if len(found) == 1 else None
    return None
