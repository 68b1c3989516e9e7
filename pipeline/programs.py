"""Compiled workflows, kept by version. A version never changes, so an entry never grows stale."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from uuid import UUID

from permaflow.errors import DocumentError
from permaflow.plan import Json, TaskTypes
from pipeline.core.program import Program
from specs.dialects import compile_document
from specs.limits import HIGHEST_LIMITS, Limits

Documents = Callable[[UUID, int], Awaitable[Json]]
"""(workflow, version) → the document as it was written. Raises `NotFoundError`."""


class Programs:
    """Version → program, the most recently used ones."""

    def __init__(
        self,
        documents: Documents,
        types: TaskTypes,
        limits: Limits = HIGHEST_LIMITS,
        size: int = 2_000,
    ) -> None:
        self._documents = documents
        self._types = types
        self._limits = limits
        self._size = size
        self._kept: OrderedDict[tuple[UUID, int], Program] = OrderedDict()

    async def get(self, workflow_id: UUID, version: int) -> Program:
        """The program of a version.

        Raises `NotFoundError`, and `DocumentError` when a stored document no longer compiles (a
        task type that it needs is not installed here).
        """
        key = (workflow_id, version)
        program = self._kept.get(key)
        if program is None:
            compiled = compile_document(await self._documents(workflow_id, version), self._types)
            if compiled.plan is None:
                raise DocumentError(compiled.problems)
            program = self._kept[key] = Program(self._limits.hold(compiled.plan))
            if len(self._kept) > self._size:
                self._kept.popitem(last=False)
        else:
            self._kept.move_to_end(key)
        return program
