"""What comes in the box: one line each. Nothing named here is imported before it is used."""

from __future__ import annotations

from permaflow.functions import FunctionRegistry
from permaflow.task_types import TaskTypeRegistry
from pipeline.settings import Settings, split

TASK_TYPES = {
    "action_http": "stages.http:task_type",
    "action_record": "stages.record:task_type",
    "code_function": "stages.code:task_type",
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
