"""`code_function`: call a registered Python function; what it returns is the step's output."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel

from permaflow.errors import ContractError, PermaflowError
from permaflow.plan import Json
from permaflow.task import Reject, Retry, TaskContext, TaskType, Verdict, failure
from permaflow.verdicts import verdict_of


class Config(BaseModel):
    """Which function, and what it gets. Without `input` it gets an empty object."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    function_slug: str = Field(min_length=1, max_length=100)
    input: Json = Field(default_factory=dict)


class Result(RootModel[Any]):
    """Whatever the function returned, as JSON."""


async def run(config: Config, ctx: TaskContext) -> Verdict:
    try:
        target = ctx.functions.get(config.function_slug)
    except ContractError as error:
        return Reject(str(error), code=error.code)
    if target is None:
        return Reject(
            f"There is no function {config.function_slug!r}. Mark it with @function and name its "
            "module in PERMAFLOW_FUNCTIONS.",
            code="unknown_function",
        )
    returned = await _call(target, config.input, ctx)
    if isinstance(returned, BaseException):
        return judge_error(returned)
    return verdict_of(returned)


def judge_error(error: BaseException) -> Verdict:
    """An exception of the function is a failure that may pass, unless it says otherwise."""
    if isinstance(error, PermaflowError):
        return failure(error)
    return Retry(f"{type(error).__name__}: {error}", code="function_raised")


async def _call(target: Callable[..., Any], given: Json, ctx: TaskContext) -> Any:
    """What the function returns, or the exception it raises; only cancellation escapes."""
    is_async, wants_context = _shape(target)
    arguments = (given, ctx) if wants_context else (given,)
    try:
        if is_async:
            return await target(*arguments)
        # Caught inside the thread, too: a StopIteration cannot cross a future.
        returned = await asyncio.to_thread(_caught, target, arguments)
        return await returned if inspect.isawaitable(returned) else returned
    except (Exception, SystemExit) as error:
        return error


def _caught(target: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        return target(*arguments)
    except (Exception, SystemExit) as error:
        return error


@lru_cache(maxsize=4096)
def _shape(target: Callable[..., Any]) -> tuple[bool, bool]:
    """Whether it is async, and whether it takes a second argument."""
    is_async = inspect.iscoroutinefunction(target)
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return is_async, False
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    second = positional[1] if len(positional) > 1 else None
    return is_async, second is not None and (
        second.name == "ctx" or second.default is inspect.Parameter.empty
    )


task_type = TaskType(
    name="code_function",
    stage="code",
    config=Config,
    result=Result,
    run=run,
    batch=64,
    doc="Call a registered Python function.",
    label="Function",
    category="Code",
    icon="square-function",
)
