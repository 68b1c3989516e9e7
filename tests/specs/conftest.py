from __future__ import annotations

from collections.abc import Sequence

import pytest

from permaflow.plan import Json, Problem


class FewTypes:
    """Implements `permaflow.plan.TaskTypes` for a handful of types; `action_http` needs a url."""

    def __init__(self, *more: str) -> None:
        self._names = (
            "action_http",
            "action_integration",
            "action_record",
            "action_turn",
            "code_function",
            *more,
        )

    def names(self) -> Sequence[str]:
        return self._names

    def stage(self, type_name: str) -> str:
        assert type_name in self._names
        return type_name.split("_")[1]

    def verbatim(self, type_name: str) -> tuple[str, ...]:
        return ()

    def config_problems(self, type_name: str, config: Json) -> Sequence[Problem]:
        assert type_name in self._names
        if type_name == "action_http" and "url" not in config:
            return [Problem("/url", "missing_field", "`url` is missing.")]
        if type_name == "action_http" and not isinstance(config["url"], str):
            return [Problem("/url", "wrong_type", "`url` must be a string.")]
        return []


@pytest.fixture
def types() -> FewTypes:
    return FewTypes()


@pytest.fixture
def types_with_notices() -> FewTypes:
    return FewTypes("action_notification")
