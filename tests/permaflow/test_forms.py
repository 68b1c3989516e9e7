"""Forms: every kind of field, what is hidden, and what may stand in composite fields."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jsonschema_rs
import pytest
from pydantic import BaseModel, SecretStr, ValidationError

from permaflow import field
from permaflow.errors import ContractError
from permaflow.forms import KEYWORD, Form, Option, options_of
from permaflow.plan import Json
from permaflow.task import Done, TaskContext, TaskType
from permaflow.task_types import TaskTypeRegistry

TEMPLATE = "{{trigger.record.id}}"


class Everything(Form):
    to: str = field.template_input("To", required=True, placeholder="+1234567890")
    message: str = field.template_textarea("Message", rows=3)
    note: str = field.text("Note")
    key: SecretStr | None = field.password("Key", default=None)
    times: int = field.number("Times", min=1, default=1)
    priority: str | None = field.select("Priority", options=["high", "low"])
    colour: str | None = field.combobox(
        "Colour", options=[("r", "Red"), ("g", "Green")], search_placeholder="Search colours"
    )
    datasourceId: str | None = field.combobox("Data source", options_source="datasources")
    attribute: str | None = field.combobox(
        "Attribute", get_options=field.attributes_of(), depends_on=["datasourceId"]
    )
    match: dict[str, Json] = field.match_builder("Match", datasource="datasourceId")
    select: list[str] = field.multi_select(
        "Fields",
        get_options=field.attributes_of(),
        depends_on=["datasourceId"],
        placeholder="Select fields to return (empty = all)",
    )
    shape: Json = field.schema_builder("Shape")


class Update(Form):
    datasourceId: str = field.combobox("Data source", options_source="datasources", required=True)
    row: dict[str, Json] = field.single_row_update("Record to update", required=True)


class Insert(Form):
    datasourceId: str | None = field.combobox("Data source", options_source="datasources")
    rows: list[dict[str, Json]] = field.single_row_update("Record", mode="insert", required=True)


class Delete(Form):
    datasourceId: str | None = field.combobox("Data source", options_source="datasources")
    rows: list[dict[str, Json]] = field.single_row_update("Record", mode="delete", required=True)


class Notify(Form):
    """The last example of the custom fields in the guide to plug-ins."""

    notificationType: str = field.select(
        "Type", options=[("email", "Email"), ("sms", "SMS")], required=True
    )
    emailAddress: str | None = field.template_input(
        "Email Address", required=True, show_when=("notificationType", "email")
    )
    phoneNumber: str | None = field.template_input(
        "Phone Number", required=True, show_when=("notificationType", "sms"), min_length=5
    )


class Shop:
    """Data sources made by hand. Implements `DataSources`."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def datasources(self) -> Sequence[Option]:
        return (Option("orders", "Orders"), Option("people"))

    async def attributes(self, datasource: str) -> Sequence[Option]:
        self.asked.append(datasource)
        if datasource != "orders":
            return ()
        return (Option("id", "Id", primary_key=True), Option("status", "Status"))


async def _never(config: Any, ctx: TaskContext) -> Done:
    raise AssertionError("not run")


def problems(model: Any, config: Json) -> dict[str, str]:
    types = TaskTypeRegistry()
    types.add(TaskType("a_form", "code", model, BaseModel, _never))
    return {p.pointer: p.message for p in types.config_problems("a_form", config)}


def hint(model: type[BaseModel], key: str) -> Any:
    return model.model_json_schema()["properties"][key][KEYWORD]


def test_the_schema_names_the_kind_of_every_field() -> None:
    kinds = {key: hint(Everything, key)["type"] for key in Everything.model_fields}
    assert kinds == {
        "to": "template-input",
        "message": "template-textarea",
        "note": "text",
        "key": "password",
        "times": "number",
        "priority": "select",
        "colour": "combobox",
        "datasourceId": "combobox",
        "attribute": "combobox",
        "match": "match-builder",
        "select": "multi-select",
        "shape": "schema-builder",
    }
    assert hint(Update, "row")["type"] == "single-row-update"


def test_the_schema_says_in_standard_words_what_can_be_said_so() -> None:
    schema = Everything.model_json_schema()
    jsonschema_rs.meta.validate(schema)
    assert schema["required"] == ["to"]
    assert schema["properties"]["to"]["title"] == "To"
    assert schema["properties"]["times"]["minimum"] == 1
    assert schema["properties"]["key"]["writeOnly"] is True


def test_the_hints_of_a_field_stand_under_one_keyword() -> None:
    assert hint(Everything, "to")["placeholder"] == "+1234567890"
    assert hint(Everything, "message")["rows"] == 3
    assert hint(Everything, "colour") == {
        "type": "combobox",
        "searchPlaceholder": "Search colours",
        "options": [{"value": "r", "label": "Red"}, {"value": "g", "label": "Green"}],
    }
    assert hint(Everything, "datasourceId")["optionsSource"] == "datasources"
    assert hint(Everything, "select")["optionsDependencyKeys"] == ["datasourceId"]
    assert hint(Everything, "select")["dynamicOptions"] is True


def test_a_form_with_only_what_is_required_is_complete() -> None:
    made = Everything.model_validate({"to": "+49123"})
    assert made.message == ""
    assert made.times == 1
    assert made.match == {}
    assert list(made.select) == []
    assert made.attribute is None


@pytest.mark.parametrize("value", [None, ""])
def test_a_required_field_that_is_empty_is_missing(value: Json) -> None:
    assert problems(Everything, {"to": value}) == {"/to": "The field `to` is missing."}
    assert problems(Everything, {}) == {"/to": "The field `to` is missing."}


def test_text_takes_the_numbers_that_templates_give() -> None:
    made = Everything.model_validate({"to": 49123, "message": True})
    assert (made.to, made.message) == ("49123", "true")


def test_a_number_has_a_minimum_and_may_be_a_template() -> None:
    assert set(problems(Everything, {"to": "x", "times": 0})) == {"/times"}
    assert problems(Everything, {"to": "x", "times": TEMPLATE}) == {}


def test_a_value_that_is_no_option_is_a_problem_and_a_template_is_none() -> None:
    found = problems(Everything, {"to": "x", "priority": "urgent", "colour": "b", "times": 0})
    assert set(found) == {"/times", "/priority", "/colour"}
    assert found["/priority"] == "Choose one of high, low."
    assert problems(Everything, {"to": "x", "priority": TEMPLATE}) == {}


# --- what is hidden -------------------------------------------------------------------------------


def test_a_hidden_required_field_does_not_block_saving() -> None:
    config = {"notificationType": "email", "emailAddress": "a@b.example"}
    assert problems(Notify, config) == {}
    assert Notify.model_validate(config).phoneNumber is None


def test_a_shown_required_field_does() -> None:
    assert problems(Notify, {"notificationType": "sms"}) == {
        "/phoneNumber": "The field `phoneNumber` is missing."
    }


def test_what_is_left_in_a_hidden_field_blocks_nothing_and_reaches_no_task() -> None:
    config = {"notificationType": "email", "emailAddress": "a@b.example", "phoneNumber": "1"}
    assert problems(Notify, config) == {}
    assert Notify.model_validate(config).phoneNumber is None
    assert set(problems(Notify, {**config, "notificationType": "sms"})) == {"/phoneNumber"}


def test_what_is_shown_cannot_be_known_while_a_template_decides() -> None:
    assert problems(Notify, {"notificationType": TEMPLATE}) == {}
    with pytest.raises(ValidationError, match="emailAddress"):
        Notify.model_validate({"notificationType": "email"})


@pytest.mark.parametrize(
    "config",
    [
        {"notificationType": "email"},
        {"notificationType": "email", "emailAddress": "a@b.example"},
        {"notificationType": "sms", "emailAddress": "a@b.example"},
        {"notificationType": "sms", "phoneNumber": "+4912"},
        {},
    ],
)
def test_the_schema_and_the_form_agree_on_what_is_required(config: dict[str, Json]) -> None:
    valid = jsonschema_rs.validator_for(Notify.model_json_schema()).is_valid(config)
    assert valid == (problems(Notify, config) == {})


def test_true_is_not_one() -> None:
    class Flagged(Form):
        times: int | bool = field.number("Times", default=0)
        why: str | None = field.text("Why", required=True, show_when=("times", 1))

    assert problems(Flagged, {"times": True}) == {}
    assert set(problems(Flagged, {"times": 1})) == {"/why"}


# --- records --------------------------------------------------------------------------------------


def test_an_update_is_one_object_with_its_status() -> None:
    row = {"id": TEMPLATE, "status": "paid"}
    config = {"datasourceId": "orders", "row": {**row, "_status": "U"}}
    assert problems(Update, config) == {}
    assert Update.model_validate(config).row == {**row, "_status": "U"}
    assert Update.model_validate({"datasourceId": "orders", "row": row}).row["_status"] == "U"
    assert hint(Update, "row")["datasourceKey"] == "datasourceId"


@pytest.mark.parametrize(("form", "status"), [(Insert, "I"), (Delete, "D")])
def test_an_insert_or_a_delete_is_an_array_of_one_row_that_gets_its_status(
    form: Any, status: str
) -> None:
    config = {"datasourceId": "orders", "rows": [{"id": 7}]}
    assert problems(form, config) == {}
    assert form.model_validate(config).rows == [{"id": 7, "_status": status}]
    stored = {**config, "rows": json.dumps(config["rows"])}
    assert form.model_validate(stored).rows == [{"id": 7, "_status": status}]


@pytest.mark.parametrize(
    "rows", [[], [{"id": 1}, {"id": 2}], {"id": 1}, [{}], [{"id": 1, "_status": "U"}], "[1"]
)
def test_other_rows_are_refused(rows: Json) -> None:
    assert set(problems(Insert, {"datasourceId": "orders", "rows": rows})) >= {"/rows"}


def test_a_record_needs_a_data_source() -> None:
    found = problems(Insert, {"rows": [{"id": 7}]})
    assert found == {"/rows": "Choose a data source in `datasourceId` first."}
    assert problems(Insert, {"rows": [{"id": 7}], "datasourceId": TEMPLATE}) == {}


def test_a_template_inside_of_json_text_is_refused_as_its_value_could_add_members() -> None:
    text = '{"id": "{{trigger.record.id}}"}'
    found = problems(Update, {"datasourceId": "orders", "row": text})
    assert set(found) == {"/row"}
    assert "could add members" in found["/row"]
    assert problems(Update, {"datasourceId": "orders", "row": TEMPLATE}) == {}


def test_a_match_is_one_object_whose_values_may_be_templates() -> None:
    config = {"to": "x", "match": {"id": TEMPLATE}}
    assert problems(Everything, config) == {}
    assert Everything.model_validate({"to": "x", "match": '{"id": 7}'}).match == {"id": 7}
    assert set(problems(Everything, {"to": "x", "match": [1]})) == {"/match"}


def test_a_selection_is_a_json_array_in_text_and_empty_means_all() -> None:
    made = Everything.model_validate({"to": "x", "select": '["id", "status"]'})
    assert made.select == ["id", "status"]
    assert Everything.model_validate({"to": "x", "select": ""}).select == []
    assert set(problems(Everything, {"to": "x", "select": '["id", "id"]'})) == {"/select"}
    assert set(problems(Everything, {"to": "x", "select": '{"a": 1}'})) == {"/select"}


@pytest.mark.parametrize("shape", [{"type": "object"}, '{"type": "object"}'])
def test_a_schema_is_an_object_or_such_in_text(shape: Json) -> None:
    made = Everything.model_validate({"to": "x", "shape": shape})
    assert made.shape == {"type": "object"}
    assert set(problems(Everything, {"to": "x", "shape": "[1]"})) == {"/shape"}


# --- options --------------------------------------------------------------------------------------


async def values_of(model: Any, key: str, config: Json, shop: Shop | None = None) -> list[Json]:
    return [o.value for o in await options_of(model, key, config, shop or Shop())]


async def test_options_are_fixed_or_from_a_source_or_made_of_other_values() -> None:
    assert await values_of(Everything, "colour", {}) == ["r", "g"]
    assert await values_of(Everything, "datasourceId", {}) == ["orders", "people"]
    chosen = {"datasourceId": "orders"}
    for key in ("attribute", "select", "match"):
        assert await values_of(Everything, key, chosen) == ["id", "status"]


async def test_there_are_no_options_while_what_they_depend_on_is_unset() -> None:
    shop = Shop()
    for config in ({}, {"datasourceId": ""}, {"datasourceId": None}):
        assert await values_of(Everything, "attribute", config, shop) == []
        assert await values_of(Update, "row", config, shop) == []
    assert shop.asked == []


async def test_a_delete_asks_for_the_primary_key_only() -> None:
    chosen = {"datasourceId": "orders"}
    assert await values_of(Update, "row", chosen) == ["id", "status"]
    assert await values_of(Delete, "rows", chosen) == ["id"]


# --- promises of a form ---------------------------------------------------------------------------


def test_a_form_that_names_a_field_it_does_not_have_is_refused() -> None:
    with pytest.raises(ContractError, match="names `colour`"):

        class Unknown(Form):
            a: str | None = field.text("A", show_when=("colour", "red"))


def test_a_field_that_may_be_hidden_must_be_able_to_be_none() -> None:
    with pytest.raises(ContractError, match=r"… \| None"):

        class NeverNone(Form):
            a: str = field.text("A")
            b: str = field.text("B", show_when=("a", "x"))


def test_a_record_without_a_data_source_in_the_form_is_refused() -> None:
    with pytest.raises(ContractError, match="needs a data source"):

        class Nowhere(Form):
            row: dict[str, Json] = field.single_row_update("Record")


def test_the_keys_of_a_record_are_row_and_rows() -> None:
    with pytest.raises(ContractError, match="must be named `rows`"):

        class Misnamed(Form):
            datasourceId: str = field.combobox("Source", options_source="datasources")
            row: list[Json] = field.single_row_update("Record", mode="insert")


def test_options_are_given_in_one_way() -> None:
    with pytest.raises(ContractError, match="in one way"):
        field.combobox("A", options=["a"], options_source="datasources")
    with pytest.raises(ContractError, match="datasources"):
        field.combobox("A", options_source="stars")
