"""Everything that a workflow may be made of: triggers, logic, and the task types installed here."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from permaflow.config_fields import config_fields
from permaflow.errors import ContractError, NotFoundError
from permaflow.integration import Integration
from permaflow.plan import Json
from permaflow.task import OutputField
from permaflow.task_types import TaskTypeInfo, TaskTypeRegistry
from specs.described import SHAPES, Shape
from specs.triggers import KINDS
from specs.work import INLINE

Kind = Literal["trigger", "logic", "task"]

_CATEGORIES = {"action": "Actions", "code": "Code", "logic": "Logic", "meta": "Workflows"}


@dataclass(frozen=True, slots=True)
class Block:
    """One type of node. `config` and `result` are JSON Schemas; a task may also be left by `error`.

    `stage` is empty for what no runner does. `timeout` is in seconds.
    """

    name: str
    kind: Kind
    label: str
    category: str
    description: str
    icon: str
    stage: str
    timeout: float | None
    remote: bool
    ports: tuple[str, ...]
    open_ports: bool
    outputs: tuple[OutputField, ...]
    config: Mapping[str, Json]
    result: Mapping[str, Json]

    @property
    def fields(self) -> list[dict[str, Json]]:
        """The config as fields of a form."""
        return config_fields(self.config)


class Catalogue:
    """The blocks of one installation, by name."""

    def __init__(self, types: TaskTypeRegistry) -> None:
        self._types = types

    def names(self) -> tuple[str, ...]:
        """Triggers first, then logic, then tasks."""
        tasks = [name for name in self._types.names() if name not in SHAPES]
        return (*sorted(KINDS), *sorted(INLINE), *tasks)

    def get(self, name: str) -> Block:
        """Raises `NotFoundError`, and `ContractError` when the plug-in is broken."""
        if name in KINDS or name in INLINE:
            return _inline(name, SHAPES.get(name) or _unnamed(name))
        return _task(self._types.info(name))

    def blocks(self) -> Iterator[Block]:
        """Every sound one. Imports all plug-ins."""
        for name in self.names():
            try:
                yield self.get(name)
            except (ContractError, NotFoundError):
                continue

    def broken(self) -> tuple[ContractError, ...]:
        """What is wrong with plug-ins that cannot be shown."""
        return self._types.load()

    def integrations(self) -> tuple[Integration, ...]:
        return self._types.integrations()

    def config_model(self, name: str) -> Any:
        """What the config of a block is validated by. Raises like `get`."""
        if name in KINDS or name in INLINE:
            return (SHAPES.get(name) or _unnamed(name)).config
        return self._types.get(name).config


def _inline(name: str, shape: Shape) -> Block:
    return Block(
        name=name,
        kind="trigger" if name in KINDS else "logic",
        label=shape.label,
        category=shape.category,
        description=shape.description,
        icon=shape.icon,
        stage="",
        timeout=None,
        remote=False,
        ports=shape.ports,
        open_ports=shape.open_ports,
        outputs=shape.outputs,
        config=shape.config.model_json_schema(),
        result={},
    )


def _task(info: TaskTypeInfo) -> Block:
    return Block(
        name=info.name,
        kind="task",
        label=info.label or spoken(info.name),
        category=info.category or _category(info.name),
        description=info.doc,
        icon=info.icon or "box",
        stage=info.stage,
        timeout=info.timeout.total_seconds(),
        remote=info.remote,
        ports=("error",),
        open_ports=True,
        outputs=info.outputs,
        config=info.config,
        result=info.result,
    )


def _unnamed(name: str) -> Shape:
    return Shape(spoken(name), _category(name), "", "box")


def _category(name: str) -> str:
    family = re.split(r"[_/]", name, maxsplit=1)[0]
    return _CATEGORIES.get(family, spoken(family) if "/" in name else "Other")


def spoken(name: str) -> str:
    """A name as a label: `action_http` is "Http"."""
    last = re.sub(r"^(trigger|action|logic|code|meta)_", "", name.rpartition("/")[2])
    words = re.sub(r"[_.\-]+", " ", last).strip()
    return words[:1].upper() + words[1:]
