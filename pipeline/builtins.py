"""What comes in the box: one line each. Nothing named here is imported before it is used."""

from __future__ import annotations

import importlib

from permaflow.errors import SettingsError
from permaflow.functions import FunctionRegistry
from permaflow.ports import IntegrationProvider
from permaflow.task_types import TaskTypeRegistry
from pipeline.settings import Settings, split

TASK_TYPES = {
    "action_email": "stages.email:task_type",
    "action_http": "stages.http:task_type",
    "action_integration": "stages.integration:task_type",
    "action_notification": "stages.notification:task_type",
    "action_record": "stages.record:task_type",
    "action_turn": "stages.turn:task_type",
    "action_report": "stages.report:task_type",
    "code_function": "stages.code:task_type",
    "code_snippet": "stages.snippet:task_type",
}

FUNCTIONS = ("stages.functions",)


def task_types(settings: Settings) -> TaskTypeRegistry:
    """The built-in task types, those of the settings and those of installed packages."""
    return TaskTypeRegistry(
        TASK_TYPES,
        modules=split(settings.task_types),
        integrations=split(settings.plugins),
    )


def functions(settings: Settings) -> FunctionRegistry:
    """The built-in functions, those of the settings and those of installed packages."""
    return FunctionRegistry((*FUNCTIONS, *split(settings.functions)))


def integrations(settings: Settings) -> IntegrationProvider | None:
    """The provider that the settings name, or None. Raises `SettingsError` if it is not there."""
    if not settings.integrations:
        return None
    module, _, name = settings.integrations.partition(":")
    try:
        provider: IntegrationProvider = getattr(importlib.import_module(module), name)
    except Exception as error:  # whatever a plug-in raises while it is imported
        raise SettingsError(
            f"PERMAFLOW_INTEGRATIONS: {settings.integrations!r} cannot be loaded: "
            f"{type(error).__name__}: {error}"
        ) from error
    if not callable(provider):
        raise SettingsError(
            f"PERMAFLOW_INTEGRATIONS: {settings.integrations!r} is not callable; see "
            "permaflow.ports.IntegrationProvider."
        )
    return provider
