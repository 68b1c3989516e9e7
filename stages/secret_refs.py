"""Texts that may be secrets: written out, or by the name of the secret that holds them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from permaflow.task import TaskContext


class SecretRef(BaseModel):
    """The name of a secret. It is resolved when the step runs, and stands in no journal."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    secret: str = Field(min_length=1, max_length=100, description="The name of the secret.")


async def resolved(value: str | SecretRef, ctx: TaskContext) -> str:
    """The text that is meant. Raises `NotFoundError` for a secret that is not there."""
    return await ctx.secrets.get(value.secret) if isinstance(value, SecretRef) else value
