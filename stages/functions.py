"""Functions that come in the box: harmless, and useful to try things with."""

from __future__ import annotations

from permaflow.functions import function
from permaflow.plan import Json


@function("noop")
async def noop(given: Json) -> Json:
    """Give back what came in."""
    return given


@function("echo")
async def echo(given: Json) -> Json:
    """Give back what came in, under `echo`."""
    return {"echo": given}
