"""The config of a task type as a form: a pydantic model that says how a person fills it in.

A `Form` is validated like any pydantic model, with what a form adds to it:

* A field with `show_when` is looked at only while the other field has that value. A hidden field
  is `None`, whatever the document holds, and blocks nothing, even if it is required.
* A required field that is null or empty text is missing.
* A value must be among the options of its field, where these are fixed.
* A record can be entered only where a data source is chosen.

Its JSON Schema says the same in standard keywords where there are any (`title` is the label,
`required`, `minimum`, `if`/`then` for what is hidden); the keyword `x-permaflow` holds the rest in
the words of `Hint.json`. Unknown keywords are ignored by every validator, so the schema stays one.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Any, Literal, Protocol, Self, Union, get_args, get_origin

from pydantic import (
    BaseModel,
    ConfigDict,
    GetJsonSchemaHandler,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, InitErrorDetails, PydanticCustomError

from permaflow.errors import ContractError
from permaflow.plan import Json

KEYWORD = "x-permaflow"

Kind = Literal[
    "template-input",
    "template-textarea",
    "text",
    "password",
    "number",
    "select",
    "combobox",
    "schema-builder",
    "single-row-update",
    "match-builder",
    "multi-select",
]
RowMode = Literal["update", "insert", "delete"]
ROW_KEYS: dict[RowMode, str] = {"update": "row", "insert": "rows", "delete": "rows"}
"""The key that a `single-row-update` has."""


@dataclass(frozen=True, slots=True)
class Option:
    """Something to choose; without a label it is shown as it is."""

    value: Json
    label: str = ""
    primary_key: bool = False


class DataSources(Protocol):
    """What options may be made of: the records and tables that the organisation has."""

    async def datasources(self) -> Sequence[Option]:
        """Every data source; its value is its id."""
        ...

    async def attributes(self, datasource: str) -> Sequence[Option]:
        """The attributes of one, those of its primary key first; none if there is no such one."""
        ...


GetOptions = Callable[[Mapping[str, Json], DataSources], Awaitable[Sequence[Option]]]


@dataclass(frozen=True, slots=True)
class ShowWhen:
    """The field is shown while the other field (by its key) equals this value."""

    field: str
    equals: Json


@dataclass(frozen=True, slots=True)
class Hint:
    """How a field is filled in. `permaflow.field` makes them."""

    kind: Kind
    required: bool = False
    placeholder: str = ""
    search_placeholder: str = ""
    rows: int | None = None
    options: tuple[Option, ...] = ()
    options_source: str = ""
    get_options: GetOptions | None = None
    depends_on: tuple[str, ...] = ()
    row_mode: RowMode | None = None
    datasource: str = ""
    show_when: ShowWhen | None = None

    def json(self) -> dict[str, Json]:
        """What stands under `x-permaflow`; what is not set is left out."""
        dynamic = self.get_options is not None or bool(self.options_source or self.datasource)
        shown: dict[str, Json] = {
            "type": self.kind,
            "placeholder": self.placeholder,
            "searchPlaceholder": self.search_placeholder,
            "rows": self.rows,
            "options": [{"value": o.value, "label": o.label or str(o.value)} for o in self.options],
            "optionsSource": self.options_source,
            "dynamicOptions": dynamic,
            "optionsDependencyKeys": list(self.depends_on),
            "singleRowMode": self.row_mode,
            "datasourceKey": self.datasource,
            "showWhen": self.show_when
            and {"field": self.show_when.field, "equals": self.show_when.equals},
        }
        return {name: value for name, value in shown.items() if value not in (None, "", [], False)}


class Form(BaseModel):
    """The base of configs that are forms."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        _check_form(cls)

    @model_validator(mode="wrap")
    @classmethod
    def _as_a_form(cls, value: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        if not isinstance(value, Mapping):
            return handler(value)
        shown, faults = _settle(cls, value)
        try:
            made = handler(shown)
        except ValidationError as error:
            raise _together(cls, error, faults) from None
        if faults:
            raise ValidationError.from_exception_data(cls.__name__, faults)
        return made

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        found = handler(core_schema)
        schema = handler.resolve_ref_schema(found)
        if handler.mode == "validation":
            _name_options(cls, schema)
            _require_what_is_shown(cls, schema)
        return found


def hinted(model: object) -> Iterator[tuple[str, FieldInfo, Hint]]:
    """The key, the field and the hint of every field that has one."""
    if not (isinstance(model, type) and issubclass(model, BaseModel)):
        return
    for name, info in model.model_fields.items():
        for each in info.metadata:
            if isinstance(each, Hint):
                yield info.alias or name, info, each


def is_shown(hint: Hint, values: Mapping[str, Json]) -> bool:
    """Whether the field is shown to somebody who has entered these values."""
    when = hint.show_when
    return when is None or (when.field in values and _same(values[when.field], when.equals))


async def options_of(
    model: object, key: str, values: Mapping[str, Json], sources: DataSources
) -> tuple[Option, ...]:
    """What may be chosen in a field, given the values of the others.

    Raises `KeyError` for a field that is not there. As long as a field that the options depend on
    is unset, there are none.
    """
    hint = {name: hint for name, _, hint in hinted(model)}[key]
    needed = {*hint.depends_on, *([hint.datasource] if hint.datasource else [])}
    if any(values.get(name) in (None, "") for name in needed):
        return ()
    if hint.get_options is not None:
        return tuple(await hint.get_options(values, sources))
    if hint.options_source:
        return tuple(await sources.datasources())
    if hint.datasource:
        found = await sources.attributes(str(values[hint.datasource]))
        return tuple(o for o in found if hint.row_mode != "delete" or o.primary_key)
    return hint.options


def _settle(
    form: type[Form], given: Mapping[str, Json]
) -> tuple[dict[str, Json], list[InitErrorDetails]]:
    """The values without those of hidden fields, and what a form has to say of the others."""
    values = dict(given)
    faults: list[InitErrorDetails] = []
    for key, _, hint in hinted(form):
        if not is_shown(hint, given):
            values[key] = None
        elif hint.required and values.get(key) in (None, ""):
            values.pop(key, None)
        elif values.get(key) not in (None, ""):
            message = _fault(hint, values[key], given)
            if message:
                kind = PydanticCustomError("form", "{message}", {"message": message})
                faults.append({"type": kind, "loc": (key,), "input": values[key]})
    return values, faults


def _fault(hint: Hint, value: Json, values: Mapping[str, Json]) -> str:
    if hint.kind == "single-row-update" and values.get(hint.datasource) in (None, ""):
        return f"Choose a data source in `{hint.datasource}` first"
    if hint.kind in ("select", "combobox") and hint.options:
        known = [option.value for option in hint.options]
        wanted = value if isinstance(value, list) else [value]
        if not all(any(_same(one, each) for each in known) for one in wanted):
            return f"Choose one of {', '.join(map(str, known))}"
    return ""


def _same(one: Json, other: Json) -> bool:
    """Equal as JSON values: `true` is not 1."""
    return bool(one == other and isinstance(one, bool) == isinstance(other, bool))


def _together(
    form: type[Form], error: ValidationError, faults: list[InitErrorDetails]
) -> ValidationError:
    told: list[InitErrorDetails] = []
    for item in error.errors(include_url=False):
        kind = PydanticCustomError(item["type"], "{message}", {"message": item["msg"]})
        told.append({"type": kind, "loc": item["loc"], "input": item["input"]})
    return ValidationError.from_exception_data(form.__name__, [*told, *faults])


def _name_options(form: type[Form], schema: dict[str, Any]) -> None:
    """The fixed options of text are an enumeration."""
    for key, _, hint in hinted(form):
        if hint.kind not in ("select", "combobox") or not hint.options:
            continue
        values = [option.value for option in hint.options]
        part = schema["properties"].get(key, {})
        for choice in [part, *part.get("anyOf", ())]:
            if choice.get("type") == "string" and "enum" not in choice:
                choice["enum"] = values


def _require_what_is_shown(form: type[Form], schema: dict[str, Any]) -> None:
    """A field that may be hidden is required only while its condition holds."""
    conditions: list[dict[str, Json]] = []
    for key, _, hint in hinted(form):
        when = hint.show_when
        if when is None or key not in schema.get("required", ()):
            continue
        schema["required"].remove(key)
        shown = {"properties": {when.field: {"const": when.equals}}, "required": [when.field]}
        conditions.append({"if": shown, "then": {"required": [key]}})
    if conditions:
        schema["allOf"] = [*schema.get("allOf", ()), *conditions]
    if not schema.get("required", True):
        del schema["required"]


def _check_form(form: type[Form]) -> None:
    """What a form promises of itself; a `ContractError` says what it breaks."""
    keys = {info.alias or name for name, info in form.model_fields.items()}
    sources = {key for key, _, hint in hinted(form) if hint.options_source == "datasources"}
    for key, info, hint in hinted(form):
        where = f"The field `{key}` of {form.__name__}"
        named = {*hint.depends_on, *([hint.show_when.field] if hint.show_when else [])}
        if unknown := sorted(named - keys):
            raise ContractError(f"{where} names `{unknown[0]}`, which the form does not have.")
        if hint.show_when is not None and not _may_be_none(info.annotation):
            raise ContractError(
                f"{where} may be hidden, and is None then: write its type as `… | None`."
            )
        if hint.row_mode is not None and key != ROW_KEYS[hint.row_mode]:
            raise ContractError(f"{where} must be named `{ROW_KEYS[hint.row_mode]}`.")
        if hint.row_mode is not None and hint.datasource not in sources:
            raise ContractError(
                f"{where} needs a data source: add a combobox `{hint.datasource}` with "
                '`options_source="datasources"`.'
            )


def _may_be_none(annotation: object) -> bool:
    if get_origin(annotation) in (Union, UnionType):
        return any(_may_be_none(each) for each in get_args(annotation))
    return annotation in (Any, NoneType, None, Json)
