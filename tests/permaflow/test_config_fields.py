"""A config's JSON Schema as the fields of a form."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import BaseModel, Field

from permaflow import field
from permaflow.config_fields import config_fields
from permaflow.forms import Form


class Colour(StrEnum):
    RED = "red"
    GREEN = "green"


class Plain(BaseModel):
    """A model that says nothing of forms."""

    url: str = Field(title="Address", description="Where to.")
    colour: Colour | None = None
    mode: Literal["a", "b"] = "a"
    times: int = Field(3, ge=1, le=9)
    loud: bool = False
    more: dict[str, Any] = Field(default_factory=dict)


class Filled(Form):
    """A form in every respect."""

    kind: str = field.select("Kind", options=["email", "sms"], required=True)
    message: str = field.template_textarea("Message", rows=3, placeholder="Your message here")
    phone: str | None = field.template_input("Phone", required=True, show_when=("kind", "sms"))


def fields(model: type[BaseModel]) -> dict[str, dict[str, Any]]:
    return {each["key"]: each for each in config_fields(model.model_json_schema())}


def test_the_type_of_a_member_says_how_it_is_filled_in() -> None:
    found = fields(Plain)
    assert {key: each["type"] for key, each in found.items()} == {
        "url": "template-input",
        "colour": "select",
        "mode": "select",
        "times": "number",
        "loud": "select",
        "more": "json",
    }
    assert found["url"] == {
        "key": "url",
        "label": "Address",
        "type": "template-input",
        "required": True,
        "description": "Where to.",
    }
    assert [o["value"] for o in found["colour"]["options"]] == ["red", "green"]
    assert (found["times"]["min"], found["times"]["max"], found["times"]["default"]) == (1, 9, 3)
    assert found["loud"]["options"][0] == {"value": True, "label": "Yes"}


def test_a_hint_says_it_better() -> None:
    found = fields(Filled)
    assert found["message"] == {
        "key": "message",
        "label": "Message",
        "type": "template-textarea",
        "rows": 3,
        "placeholder": "Your message here",
        "required": False,
    }
    assert found["phone"]["required"] is True
    assert found["phone"]["showWhen"] == {"field": "kind", "equals": "sms"}


def test_a_schema_that_is_no_object_has_no_fields() -> None:
    assert config_fields({"oneOf": [{"type": "object"}]}) == []
