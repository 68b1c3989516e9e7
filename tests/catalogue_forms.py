"""An integration for tests of the catalogue: a form with options of every kind."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from permaflow import field
from permaflow.declare import task_type
from permaflow.forms import DataSources, Form, Option
from permaflow.integration import Action, Credential, Integration
from permaflow.plan import Json
from permaflow.task import TaskContext


async def _cities(values: Mapping[str, Json], sources: DataSources) -> Sequence[Option]:
    return [Option(f"{values['country']}-1", "The first")]


BLOCKED = threading.Event()
"""A plug-in that blocks goes on once this is set."""


async def _blocking(values: Mapping[str, Json], sources: DataSources) -> Sequence[Option]:
    BLOCKED.wait(60)
    return [Option("free")]


async def _places(values: Mapping[str, Json], sources: DataSources) -> Sequence[Option]:
    return [Option(f"at {source.value}") for source in await sources.datasources()]


async def _broken(values: Mapping[str, Json], sources: DataSources) -> Sequence[Option]:
    raise RuntimeError("secret words of a plug-in")


class Sync(Form):
    """Where to, and what."""

    country: str = field.select("Country", options=["de", "fr"], required=True)
    city: str | None = field.combobox("City", get_options=_cities, depends_on=["country"])
    broken: str | None = field.combobox("Broken", get_options=_broken)
    blocking: str | None = field.combobox("Blocking", get_options=_blocking)
    place: str | None = field.combobox("Place", get_options=_places)
    datasourceId: str | None = field.combobox("Data source", options_source="datasources")
    row: dict[str, Json] | None = field.single_row_update("Record")
    match: dict[str, Json] = field.match_builder("Match", datasource="datasourceId")


@task_type("geo/sync", config=Sync)
async def sync(config: Sync, ctx: TaskContext) -> Json:
    """Bring places together."""
    return {"success": True}


integration = Integration(
    type="geo",
    label="Geo",
    description="Places",
    icon="map",
    form_fields=(Credential("apiKey", "API Key", placeholder="your key", config_key="key"),),
    actions=(
        Action("sync", "Sync places", step="tests.catalogue_forms:sync"),
        Action("lost", "Lost", step="tests.catalogue_forms:nowhere"),
    ),
)
