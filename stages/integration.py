"""`action_integration`: carry out an action of a connected service."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel

from permaflow.errors import InputError, PermaflowError
from permaflow.plan import Json
from permaflow.task import Done, Reject, TaskContext, TaskType, Verdict, failure
from permaflow.values import plain


class Config(BaseModel):
    """Which action of which connection, and what it gets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connection_id: str = Field(
        min_length=1, max_length=200, description="The connection: whose account is used."
    )
    action_key: str = Field(
        min_length=1, max_length=200, description="The action, as the service's catalogue names it."
    )
    params: dict[str, Json] = Field({}, description="What the action needs.")


class Result(RootModel[Any]):
    """Whatever the action gave back, as JSON."""


async def run(config: Config, ctx: TaskContext) -> Verdict:
    if ctx.integrations is None:
        return Reject(
            "No integrations are set up here. Name their provider in PERMAFLOW_INTEGRATIONS.",
            code="not_configured",
        )
    try:
        given = await ctx.integrations.execute(
            config.connection_id,
            config.action_key,
            config.params,
            key=ctx.step_key,
            timeout=ctx.timeout,
        )
    except PermaflowError as error:
        return failure(error)
    return judge(given)


def judge(given: Any) -> Verdict:
    """What an action gave back is the output, if it is JSON."""
    try:
        return Done(plain(given))
    except InputError as error:
        where = f" at {error.pointer}" if error.pointer else ""
        return Reject(f"The action's result is not JSON{where}: {error}", code="bad_result")


task_type = TaskType(
    name="action_integration",
    stage="integration",
    config=Config,
    result=Result,
    run=run,
    doc="Carry out an action of a connected service.",
    label="Integration",
    category="Actions",
    icon="plug",
)
