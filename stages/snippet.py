"""`code_snippet`: run a piece of JavaScript or Python in a jail; what it returns is the output."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, RootModel, model_validator

from permaflow.errors import PermaflowError, SnippetError
from permaflow.plan import Json
from permaflow.task import Done, Reject, Retry, TaskContext, TaskType, Verdict, failure

_MEGABYTE = 1 << 20


class Config(BaseModel):
    """`code` is the body of a function of `input`; it may `await`, and `return` gives the output.

    It is taken as it stands: templates go into `input`, never into the code. `engine` is for
    JavaScript: `quickjs` is always there, `v8` computes faster and has to be installed, and so has
    Python, of which there is a subset.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    language: Literal["javascript", "python"] = "javascript"
    engine: Literal["quickjs", "v8"] | None = None
    code: str = Field(min_length=1, max_length=200_000)
    input: Json = None
    timeout_seconds: float = Field(5.0, gt=0, le=300)
    memory_mb: int = Field(64, ge=8, le=4_096)

    @model_validator(mode="after")
    def _one_engine(self) -> Self:
        if self.language == "python" and self.engine is not None:
            raise ValueError("engine is for JavaScript; leave it out for Python")
        return self


class Result(RootModel[Any]):
    """Whatever the code returned, as JSON."""


async def run(config: Config, ctx: TaskContext) -> Verdict:
    if ctx.snippets is None:
        return Reject("Code steps do not run here: there is no jail.", code="no_jail")
    engine = "monty" if config.language == "python" else config.engine or "quickjs"
    try:
        output = await ctx.snippets.run(
            engine,
            config.code,
            config.input,
            timeout=timedelta(seconds=config.timeout_seconds),
            memory=config.memory_mb * _MEGABYTE,
            log=ctx.log,
        )
    except SnippetError as error:
        return judge(error)
    except PermaflowError as error:
        return failure(error)
    return Done(output)


def judge(error: SnippetError) -> Verdict:
    """Code that failed would fail alike; only one that took too long may have been unlucky."""
    place = {"line": error.line, "column": error.column, "name": error.name or None}
    details = {name: value for name, value in place.items() if value is not None} or None
    where = f" (line {error.line})" if error.line is not None else ""
    message = f"{error}{where}"
    if error.retryable:
        return Retry(message, code=error.code, details=details)
    return Reject(message, code=error.code, details=details)


task_type = TaskType(
    name="code_snippet",
    stage="code",
    config=Config,
    result=Result,
    run=run,
    timeout=timedelta(seconds=310),
    batch=16,
    doc="Run JavaScript or Python in a jail.",
    label="Code",
    category="Code",
    icon="code",
    verbatim=("code",),
)
