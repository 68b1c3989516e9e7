from __future__ import annotations

from collections.abc import Iterator, Sequence

import jsonschema_rs
import pytest

from permaflow.plan import Compiled, Json, Problem, TaskTypes
from permaflow.task_types import TaskTypeRegistry
from pipeline.catalogue import Catalogue
from specs.described import SHAPES
from specs.dialects import DIALECTS
from specs.schemas.documents import schema_of


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


@pytest.fixture(autouse=True, scope="session")
def what_compiles_fits_the_published_schema() -> Iterator[None]:
    """Every document of these tests that compiles is held against the schema of its dialect."""
    validators: dict[tuple[str, int], jsonschema_rs.Validator] = {}
    kept: list[TaskTypes] = []  # so that no id is given to another

    def validator(dialect: str, types: TaskTypes) -> jsonschema_rs.Validator:
        key = (dialect, id(types))
        if key not in validators:
            kept.append(types)
            validators[key] = jsonschema_rs.validator_for(schema_of(dialect, configs_of(types)))
        return validators[key]

    with pytest.MonkeyPatch.context() as patch:
        for dialect in DIALECTS:
            compile_document = dialect.compile

            def checked(
                self: object,
                document: Json,
                types: TaskTypes,
                name: str = dialect.name,
                compile_document: object = compile_document,
            ) -> Compiled:
                compiled: Compiled = compile_document(document, types)  # type: ignore[operator]
                if compiled.plan is not None:
                    validator(name, types).validate(document)
                return compiled

            patch.setattr(type(dialect), "compile", checked)
        yield


def configs_of(types: TaskTypes) -> dict[str, Json]:
    if isinstance(types, TaskTypeRegistry):
        return {block.name: block.config for block in Catalogue(types).blocks()}
    inline = {name: shape.config.model_json_schema() for name, shape in SHAPES.items()}
    return {**inline, **{name: {"type": "object"} for name in types.names()}}


@pytest.fixture
def types() -> FewTypes:
    return FewTypes()


@pytest.fixture
def types_with_notices() -> FewTypes:
    return FewTypes("action_notification")
