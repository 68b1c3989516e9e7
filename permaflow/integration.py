"""Integrations: an outside system with its credentials and its actions, as one plug-in.

::

    integration = Integration(
        type="sms",
        label="SMS",
        description="Send SMS messages",
        icon="message-square",
        form_fields=(Credential("apiKey", "API Key", placeholder="Your SMS provider API key"),),
        actions=(Action("send", "Send SMS", step="permaflow_sms.steps:send"),),
    )

An action is the task type `<type>/<slug>`. Its step is imported when it is first asked for, so that
a catalogue can be listed and an installation started without the libraries of every integration.
Integrations are named by the setting PERMAFLOW_PLUGINS or by entry points of the group
`permaflow.integrations`; importing one registers nothing.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from permaflow.declare import DEFAULT_STAGE, DEFAULT_TIMEOUT, Outputs, output_fields, task_type
from permaflow.errors import ContractError
from permaflow.task import TaskType

GROUP = "permaflow.integrations"

_type = re.compile(r"[a-z][a-z0-9_-]{0,63}")
_slug = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


@dataclass(frozen=True, slots=True)
class Credential:
    """A field of the form in which somebody connects to the system. `config_key` is the name under
    which what is entered is kept; it is `id` unless it is given."""

    id: str
    label: str
    type: str = "password"
    placeholder: str = ""
    config_key: str = ""

    @property
    def key(self) -> str:
        return self.config_key or self.id


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that an integration can do.

    `step` is a `TaskType`, a coroutine function, or `"module:name"` of one, imported when needed.
    What is left out here is taken from the task type; of a plain coroutine function, `config` and
    `result` are its models. `category` is the integration's label; another one is refused.
    """

    slug: str
    label: str
    step: Any
    description: str = ""
    category: str = ""
    icon: str = ""
    stage: str = ""
    config: Any = None
    result: Any = None
    outputs: Outputs = ()
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Integration:
    """See the module. No `form_fields` means that no credentials are needed."""

    type: str
    label: str
    description: str = ""
    icon: str = ""
    form_fields: Sequence[Credential] = ()
    actions: Sequence[Action] = ()
    by_id: Mapping[str, Action] = field(init=False, repr=False)
    """Action id (`<type>/<slug>`) → action."""

    def __post_init__(self) -> None:
        if not _type.fullmatch(self.type):
            raise ContractError(
                f"{self.type!r} is no type of an integration; use a-z, 0-9, - and _."
            )
        if not self.label:
            raise ContractError(f"The integration {self.type!r} needs a label.")
        by_id: dict[str, Action] = {}
        for action in self.actions:
            name = f"{self.type}/{action.slug}"
            if not _slug.fullmatch(action.slug):
                raise ContractError(f"{action.slug!r} is no slug of an action of {self.type!r}.")
            if name in by_id:
                raise ContractError(
                    f"The integration {self.type!r} has two actions {action.slug!r}."
                )
            self._check_category(name, action.category)
            by_id[name] = action
        ids = [each.id for each in self.form_fields]
        if len(set(ids)) != len(ids):
            raise ContractError(f"Two form fields of {self.type!r} have the same id.")
        object.__setattr__(self, "by_id", by_id)

    @property
    def labels(self) -> Mapping[str, str]:
        """Action id → label; imports nothing."""
        return {name: action.label for name, action in self.by_id.items()}

    def load(self, name: str) -> TaskType:
        """The task type of an action, by its id; imports its step. Raises `ContractError`."""
        action = self.by_id[name]
        step = _imported(action.step, name)
        if not isinstance(step, TaskType):
            step = task_type(
                name,
                stage=action.stage or DEFAULT_STAGE,
                config=action.config,
                result=action.result,
                timeout=action.timeout or DEFAULT_TIMEOUT,
            )(step)
        if step.name != name:
            raise ContractError(
                f"The step of {name!r} is a task type that calls itself {step.name!r}."
            )
        self._check_category(name, step.category)
        return replace(
            step,
            label=action.label or step.label,
            doc=action.description or step.doc,
            category=self.label,
            icon=action.icon or step.icon or self.icon,
            stage=action.stage or step.stage,
            timeout=action.timeout or step.timeout,
            outputs=output_fields(action.outputs) or step.outputs,
        )

    def _check_category(self, name: str, category: str) -> None:
        if category and category != self.label:
            raise ContractError(
                f"The category of {name!r} is {category!r}; it must be {self.label!r}, the label "
                "of its integration."
            )


def accept_integration(thing: object) -> Integration:
    """`thing` if it is an integration; else a `ContractError`."""
    if not isinstance(thing, Integration):
        raise ContractError(f"Expected an Integration, got {type(thing).__name__}.")
    return thing


def _imported(step: Any, name: str) -> Any:
    if not isinstance(step, str):
        return step
    module, _, attribute = step.partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except Exception as error:  # whatever a plug-in raises while it is imported
        raise ContractError(
            f"The step {step} of {name!r} cannot be imported: {type(error).__name__}: {error}"
        ) from error
