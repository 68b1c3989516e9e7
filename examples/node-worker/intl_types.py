"""`intl/format` as documents see it: the worker is worker.mjs."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from permaflow import field
from permaflow.declare import remote_task_type
from permaflow.forms import Form


class Format(Form):
    """What is written, and how."""

    value: str | float = field.template_input("Value", required=True)
    kind: Literal["money", "moment"] = field.select(
        "Kind", options=[("money", "Money"), ("moment", "Moment")], required=True
    )
    locale: str = field.text("Language", default="en-US", placeholder="de-DE")
    currency: str | None = field.text("Currency", show_when=("kind", "money"), required=True)
    timeZone: str | None = field.text("Time zone", show_when=("kind", "moment"), default="UTC")


class Formatted(BaseModel):
    """The value as text."""

    text: str = Field(description="As people of the language write it.")


task_types = [
    remote_task_type(
        "intl/format",
        stage="node",
        config=Format,
        result=Formatted,
        label="Format for people",
        description="Write an amount or a moment as people of a language do.",
        category="Text",
        icon="languages",
    )
]
