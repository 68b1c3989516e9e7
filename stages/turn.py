"""`action_turn`: whose turn it is, one after the other, for as long as there is somebody."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from permaflow.errors import PermaflowError
from permaflow.plan import Json
from permaflow.task import Done, Reject, TaskContext, TaskType, Verdict, failure

ROTATIONS = "Rotation"
"""The object whose records count the turns."""

MAX_AMONG = 10_000
_PAGE = 1_000


class Config(BaseModel):
    """`rotation` is what the turns are counted under: workflows that name the same share it.

    They go round `among`, or the ids of the records of `object`, in their order.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rotation: Annotated[str, Field(min_length=1, max_length=400)]
    among: Annotated[list[Json], Field(min_length=1, max_length=MAX_AMONG)] | None = None
    object: Annotated[str, Field(min_length=1, max_length=200)] | None = None

    @model_validator(mode="after")
    def _one_of_them(self) -> Config:
        if (self.among is None) == (self.object is None):
            raise ValueError("give either among or object")
        return self


class Result(BaseModel):
    """`chosen` is whose turn it is, `number` how many turns there were before."""

    chosen: Json
    number: int


async def run(config: Config, ctx: TaskContext) -> Verdict:
    """A step that is tried again gets the same turn: it is kept under the step's key."""
    try:
        among = config.among if config.among is not None else await _ids(config.object or "", ctx)
        if not among:
            return Reject(f"Nobody can take a turn: there is no {config.object}.", code="nobody")
        number = await ctx.records.turn(ROTATIONS, config.rotation, ctx.step_key)
    except PermaflowError as error:
        return failure(error)
    return Done({"chosen": among[number % len(among)], "number": number})


async def _ids(name: str, ctx: TaskContext) -> list[Json]:
    found: list[Json] = []
    while len(found) < MAX_AMONG:
        page = await ctx.records.find(name, after=str(found[-1]) if found else "", limit=_PAGE)
        found += [record["id"] for record in page]
        if len(page) < _PAGE:
            break
    return found


task_type = TaskType(
    name="action_turn",
    stage="record",
    config=Config,
    result=Result,
    run=run,
    doc="Choose one of several in turn: round robin.",
    label="Take turns",
    category="Actions",
    icon="rotate-cw",
)
