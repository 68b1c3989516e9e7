"""Fields of a form, by the way they are filled in: each gives a pydantic field with its hint.

::

    class SendSms(Form):
        phoneNumber: str = field.template_input("Phone number", required=True)
        message: str = field.template_textarea("Message", rows=3, required=True)

`label` is what a person reads; `description` explains; `show_when=("kind", "sms")` shows the field
only while the field `kind` is `"sms"` (write its type as `… | None` then). Further keywords such as
`min_length`, `pattern` or `alias` go to pydantic. A field that is not required and has no `default`
is empty text, nothing selected, or None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BeforeValidator, Field

from permaflow.errors import ContractError
from permaflow.forms import GetOptions, Hint, Kind, Option, RowMode, ShowWhen
from permaflow.plan import Json
from permaflow.rows import read_match, read_row, read_schema, read_selection

DATASOURCE = "datasourceId"
"""The key under which a form has its data source, unless it says otherwise."""

Options = Iterable[Option | str | tuple[str, str] | Mapping[str, Json]]
When = tuple[str, Json] | ShowWhen | None

_NOT_GIVEN: Any = object()


def template_input(label: str, **more: Any) -> Any:
    """One line of text that may hold `{{templates}}`."""
    return _field("template-input", label, "", _as_text, **more)


def template_textarea(label: str, *, rows: int | None = None, **more: Any) -> Any:
    """Several lines of text that may hold `{{templates}}`."""
    return _field("template-textarea", label, "", _as_text, rows=rows, **more)


def text(label: str, **more: Any) -> Any:
    """One line of text."""
    return _field("text", label, "", _as_text, **more)


def password(label: str, **more: Any) -> Any:
    """A secret: shown to nobody while and after it is entered. Use `SecretStr` as its type."""
    more.setdefault("json_schema", {"writeOnly": True, "format": "password"})
    return _field("password", label, "", **more)


def number(label: str, *, min: float | None = None, **more: Any) -> Any:  # noqa: A002
    """A number, `min` or more."""
    if min is not None:
        more["ge"] = min
    return _field("number", label, None, **more)


def select(label: str, *, options: Options = (), **more: Any) -> Any:
    """One of a few fixed values."""
    return _field("select", label, None, options=options, **more)


def combobox(
    label: str,
    *,
    options: Options = (),
    options_source: str = "",
    get_options: GetOptions | None = None,
    depends_on: Iterable[str] = (),
    search_placeholder: str = "",
    **more: Any,
) -> Any:
    """One of many values, with a search.

    The options are fixed, come from a source (`"datasources"`), or from a coroutine that gets the
    values of the other fields. `depends_on` names the fields whose change brings other options:
    without them there are none.
    """
    _one_way(label, options, options_source, get_options)
    return _field(
        "combobox",
        label,
        None,
        options=options,
        options_source=options_source,
        get_options=get_options,
        depends_on=depends_on,
        search_placeholder=search_placeholder,
        **more,
    )


def multi_select(
    label: str,
    *,
    options: Options = (),
    get_options: GetOptions | None = None,
    depends_on: Iterable[str] = (),
    search_placeholder: str = "",
    **more: Any,
) -> Any:
    """Any number of values, stored as a JSON array in text; the task gets a list. Empty: all."""
    _one_way(label, options, "", get_options)
    return _field(
        "multi-select",
        label,
        (),
        BeforeValidator(read_selection, json_schema_input_type=str | list[Json]),
        options=options,
        get_options=get_options,
        depends_on=depends_on,
        search_placeholder=search_placeholder,
        **more,
    )


def schema_builder(label: str, **more: Any) -> Any:
    """A JSON Schema, for the shape of structured output."""
    reader = BeforeValidator(read_schema, json_schema_input_type=str | dict[str, Json] | bool)
    return _field("schema-builder", label, None, reader, **more)


def single_row_update(
    label: str, *, mode: RowMode = "update", datasource: str = DATASOURCE, **more: Any
) -> Any:
    """A record to update, insert or delete: its primary key, then attributes and values.

    Under the key `row` an update is one object with `_status: "U"`; under the key `rows` an insert
    or a delete is an array of one row, which gets its `_status` (I, D) on the way to the task.
    `datasource` is the key of the field that says where the record is.
    """
    shape: Any = dict[str, Json] if mode == "update" else list[dict[str, Json]]
    reader = BeforeValidator(read_row(mode), json_schema_input_type=str | shape)
    return _field(
        "single-row-update", label, None, reader, row_mode=mode, datasource=datasource, **more
    )


def match_builder(
    label: str,
    *,
    get_options: GetOptions | None = None,
    datasource: str = "",
    depends_on: Iterable[str] = (),
    **more: Any,
) -> Any:
    """Attributes and the values that they must have, as one JSON object."""
    reader = BeforeValidator(read_match, json_schema_input_type=str | dict[str, Json])
    return _field(
        "match-builder",
        label,
        {},
        reader,
        get_options=get_options,
        datasource=datasource,
        depends_on=depends_on,
        **more,
    )


def attributes_of(datasource: str = DATASOURCE) -> GetOptions:
    """Options that are the attributes of the data source chosen in the field `datasource`."""

    async def attributes(values: Mapping[str, Json], sources: Any) -> tuple[Option, ...]:
        chosen = values.get(datasource)
        return tuple(await sources.attributes(str(chosen))) if chosen else ()

    return attributes


def _text(value: Any) -> Any:
    """Templates give numbers and booleans where text is meant."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
    return value


_as_text = BeforeValidator(_text)


def _field(
    kind: Kind,
    label: str,
    empty: Json,
    reader: Any = None,
    *,
    required: bool = False,
    default: Any = _NOT_GIVEN,
    description: str | None = None,
    options: Options = (),
    depends_on: Iterable[str] = (),
    show_when: When = None,
    json_schema: Mapping[str, Json] | None = None,
    placeholder: str = "",
    search_placeholder: str = "",
    rows: int | None = None,
    options_source: str = "",
    get_options: GetOptions | None = None,
    row_mode: RowMode | None = None,
    datasource: str = "",
    **pydantic: Any,
) -> Any:
    hint = Hint(
        kind,
        required=required,
        placeholder=placeholder,
        search_placeholder=search_placeholder,
        rows=rows,
        options=tuple(_option(each) for each in options),
        options_source=options_source,
        get_options=get_options,
        depends_on=tuple(depends_on),
        row_mode=row_mode,
        datasource=datasource,
        show_when=_when(show_when),
    )
    if options_source not in ("", "datasources"):
        raise ContractError(f"{label!r}: the one source of options is 'datasources'.")
    extra: dict[str, Any] = {**(json_schema or {}), "x-permaflow": hint.json()}
    shown: dict[str, Any] = {"title": label, "description": description}
    shown |= {"json_schema_extra": extra, **pydantic}
    if required:
        made = Field(**shown)
    elif default is not _NOT_GIVEN:
        made = Field(default, **shown)
    else:
        unset = None if show_when is not None else empty
        factory: Callable[[], Any] = (lambda: dict(unset)) if unset == {} else (lambda: unset)
        made = Field(default_factory=factory, **shown)
    # Metadata is what `Annotated[…]` would add; a plain assignment reads better.
    made.metadata.extend(each for each in (reader, hint) if each is not None)
    return made


def _option(given: Option | str | tuple[str, str] | Mapping[str, Json]) -> Option:
    match given:
        case Option():
            return given
        case (value, label):
            return Option(value, label)
        case Mapping():
            return Option(given["value"], str(given.get("label", "")))
    return Option(given)


def _when(given: When) -> ShowWhen | None:
    return ShowWhen(*given) if isinstance(given, tuple) else given


def _one_way(label: str, *ways: Any) -> None:
    if sum(bool(each) for each in ways) > 1:
        raise ContractError(
            f"{label!r}: give the options in one way: options, options_source or get_options."
        )
