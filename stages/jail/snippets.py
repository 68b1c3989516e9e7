"""The port `permaflow.task.Snippets` over a pool of cells."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta

import msgspec
import orjson

from permaflow.errors import InputError, SnippetError
from permaflow.plan import Json
from stages.jail.cell import Job
from stages.jail.engines import MONTY
from stages.jail.engines import engine as engine_of
from stages.jail.pool import Pool

_HALF = re.compile(rb"(?<!\\)((?:\\\\)*)\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
"""Half a surrogate pair: JavaScript writes it so in JSON, and whole ones as they are."""


class JailedSnippets:
    """The snippets of one organisation. `output` is the most that one may give back, in bytes."""

    __slots__ = ("_most_memory", "_org", "_output", "_pool")

    def __init__(self, pool: Pool, org: str, *, output: int, memory: int) -> None:
        self._pool = pool
        self._org = org
        self._output = output
        self._most_memory = memory

    async def run(
        self,
        engine: str,
        code: str,
        given: Json,
        *,
        timeout: timedelta,
        memory: int,
        log: Callable[[str], None],
    ) -> Json:
        """See `permaflow.task.Snippets`."""
        try:
            job = Job(
                code.encode(),
                orjson.dumps(given),
                timeout.total_seconds(),
                min(memory, self._most_memory),
                self._output,
                log,
            )
        except (TypeError, ValueError) as error:
            raise InputError(f"The code or its input cannot be handed on: {error}") from error
        output = await self._pool.run(self._org, engine_of(engine), job)
        # Numbers of JavaScript are doubles, also where they are written as many digits.
        decode = msgspec.json.decode if engine == MONTY.name else orjson.loads
        try:
            return decode(output)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            whole, halves = _HALF.subn("\\1\ufffd".encode(), output)
            if halves:
                with suppress(ValueError):
                    return decode(whole)
            raise SnippetError(f"The output is not JSON: {error}") from error
