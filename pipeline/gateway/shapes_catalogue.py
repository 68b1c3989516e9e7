"""What the doors of the catalogue take and give as JSON."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from pipeline.gateway.shapes import Body, Links, View


class BlockSummary(View):
    """One type of node. What no runner does has no `stage`; a `remote` one is served by workers of
    another kind."""

    name: str
    kind: Literal["trigger", "logic", "task"]
    label: str
    category: str
    description: str
    icon: str
    stage: str
    remote: bool
    links: Links


class OutputView(View):
    """A part of a result that later steps may refer to."""

    field: str
    description: str


class BlockView(BlockSummary):
    """A block with everything that a builder needs. `config` and `result` are JSON Schemas;
    `fields` are the config as a form. With `open_ports` the config may name further ports."""

    timeout_seconds: float | None
    ports: list[str]
    open_ports: bool
    outputs: list[OutputView]
    fields: list[dict[str, Any]]
    config: dict[str, Any]
    result: dict[str, Any]


class CredentialView(View):
    """A field of the form in which somebody connects to an integration."""

    id: str
    label: str
    type: str
    placeholder: str
    config_key: str


class IntegrationView(View):
    """An outside system. `actions` are the labels of its blocks by their names."""

    type: str
    label: str
    description: str
    icon: str
    form_fields: list[CredentialView]
    actions: dict[str, str]


class CatalogueView(View):
    """All that a workflow may be made of here."""

    blocks: list[BlockSummary]
    integrations: list[IntegrationView]


class OptionsBody(Body):
    """The values of the form so far."""

    config: dict[str, Any] = Field(default_factory=dict)


class OptionView(View):
    """Something to choose. `primary_key` tells of attributes that identify a record."""

    value: Any
    label: str
    primary_key: bool


class OptionsView(View):
    """What may be chosen."""

    options: list[OptionView]
