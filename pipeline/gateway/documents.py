"""Documents of workflows at the door: compiled, checked, and warned about.

A large document is compiled in another thread, so that webhooks do not wait for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from uuid import UUID

import orjson

from connectors.webhook_signatures import UNSIGNED, read_verification
from permaflow.errors import InputError
from permaflow.plan import Compiled, Json, Problem, TaskTypes, TriggerSpec
from pipeline.core.program import Program
from pipeline.gateway.input_schemas import compile_schema
from pipeline.gateway.problems import Refusal, within
from pipeline.gateway.requesters import nobody_asks
from pipeline.gateway.shared_pool import SharedPool
from pipeline.store import versions
from specs.dialects import DIALECTS, compile_document
from specs.limits import HIGHEST_LIMITS, Limits

LARGE = 16_000
"""Bytes from which on a document is compiled in a thread."""

MOST_PROGRAMS = 200
WEBHOOK = "webhook"


@dataclass(frozen=True, slots=True)
class Checked:
    """What a document came to. `problems` and `warnings` point into the document."""

    dialect: str
    compiled: Compiled
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]

    @property
    def triggers(self) -> Sequence[TriggerSpec]:
        return self.compiled.triggers


class Documents:
    """Compiles documents against the task types of this installation."""

    def __init__(self, types: TaskTypes, pool: SharedPool, limits: Limits = HIGHEST_LIMITS) -> None:
        self._types = types
        self._pool = pool
        self._limits = limits
        self._programs: OrderedDict[tuple[UUID, int], Program] = OrderedDict()

    async def check(self, document: Json, size: int) -> Checked:
        """Everything that can be said about a document whose text has `size` bytes."""
        if size < LARGE:
            return check_document(document, self._types, self._limits)
        return await asyncio.to_thread(check_document, document, self._types, self._limits)

    async def accept(self, document: Json, size: int, pointer: str) -> Checked:
        """The same, but a document with problems is refused with all of them."""
        checked = await self.check(document, size)
        if checked.problems:
            count = len(checked.problems)
            raise Refusal(
                422,
                "invalid_document",
                f"The document has {count} problem{'s' * (count != 1)}.",
                errors=within(pointer, checked.problems),
            )
        return checked

    async def program(self, org: UUID, workflow_id: UUID, version: int) -> Program | None:
        """The program of a version; None if it does not compile here.

        Only for a workflow that the organisation is known to own.
        """
        key = (workflow_id, version)
        program = self._programs.get(key)
        if program is None:
            found = await self._pool.run_as(org, versions.document, workflow_id, version)
            document = orjson.loads(found.document)
            plan = (await self.check(document, len(found.document))).compiled.plan
            if plan is None:
                return None
            program = self._programs[key] = Program(plan)
            if len(self._programs) > MOST_PROGRAMS:
                self._programs.popitem(last=False)
        else:
            self._programs.move_to_end(key)
        return program


def check_document(document: Json, types: TaskTypes, limits: Limits = HIGHEST_LIMITS) -> Checked:
    """Everything that can be said about a document. Never raises."""
    compiled = compile_document(document, types)
    dialect = next((each.name for each in DIALECTS if each.recognises(document)), "")
    problems, warnings = _look_at_triggers(document)
    told = {problem.pointer for problem in compiled.problems}
    further = [problem for problem in problems if problem.pointer not in told]
    every = (*compiled.problems, *limits.problems(compiled), *further)
    return Checked(dialect, compiled, every, (*warnings, *nobody_asks(document, compiled)))


def is_signed(trigger: TriggerSpec) -> bool:
    """Whether senders to this trigger must sign."""
    return (
        trigger.kind == WEBHOOK
        and read_verification(trigger.settings.get("verification")).scheme != UNSIGNED
    )


def _look_at_triggers(document: Json) -> tuple[list[Problem], list[Problem]]:
    """Problems and warnings that need more than a dialect knows: signatures and schemas."""
    problems: list[Problem] = []
    warnings: list[Problem] = []
    for place, type_name, config in _triggers(document):
        try:
            compile_schema(config.get("input_schema"))
        except InputError as error:
            problems.append(Problem(f"{place}/input_schema", "bad_schema", str(error)))
        if type_name != "trigger_webhook":
            continue
        place += "/verification"
        try:
            verification = read_verification(config.get("verification"))
        except InputError as error:
            problems.append(Problem(place + error.pointer, "bad_verification", str(error)))
            continue
        if verification.scheme == UNSIGNED and "verification" not in config:
            warnings.append(Problem(place, "unsigned_webhook", _OPEN))
    return problems, warnings


_OPEN = (
    "Whoever knows the address can start this workflow. Let the sender sign: "
    '`"verification": {"scheme": "hmac"}` (or github, stripe, slack, shopify, standard). To keep '
    'it open, write `"verification": "none"`.'
)


def _triggers(document: Json) -> Iterator[tuple[str, str, dict[str, Json]]]:
    """Where the config of each trigger stands, its type, and the config: as written, whether the
    document compiles or not."""
    for name in ("nodes", "triggers"):
        listed = document.get(name) if isinstance(document, dict) else None
        for index, each in enumerate(listed if isinstance(listed, list) else ()):
            match each:
                case {"type": str(type_name)} if type_name.startswith("trigger_"):
                    config = each.get("config")
                    if config is None or isinstance(config, dict):
                        yield f"/{name}/{index}/config", type_name, config or {}
