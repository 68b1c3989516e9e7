"""What the handlers of the gateway reach the world through."""

from __future__ import annotations

from dataclasses import dataclass

from permaflow.task_types import TaskTypeRegistry
from pipeline.bus.port import Bus
from pipeline.catalogue import Catalogue
from pipeline.gateway.datasources import SourceTables
from pipeline.gateway.documents import Documents
from pipeline.gateway.entrances import Entrances
from pipeline.gateway.rates import Rates
from pipeline.gateway.shared_pool import SharedPool
from pipeline.gateway.starts import StartBatcher
from pipeline.gateway.turns import Turns
from pipeline.settings import Settings
from pipeline.store.database import Database
from pipeline.store.secrets import SecretBox, open_box


@dataclass(frozen=True, slots=True)
class Ports:
    """The store, the bus, and what is kept in memory of them."""

    bus: Bus
    pool: SharedPool
    settings: Settings
    box: SecretBox
    documents: Documents
    entrances: Entrances
    starts: StartBatcher
    rates: Rates
    catalogue: Catalogue
    tables: SourceTables
    turns: Turns


def open_ports(bus: Bus, database: Database, types: TaskTypeRegistry, settings: Settings) -> Ports:
    """Raises `SettingsError` for encryption keys or sources that are none."""
    pool = SharedPool(database, settings.database_pool - 1)
    box = open_box(settings.encryption_keys.get_secret_value())
    return Ports(
        bus=bus,
        pool=pool,
        settings=settings,
        box=box,
        documents=Documents(types, pool, settings.limits),
        entrances=Entrances(pool, box),
        starts=StartBatcher(database, bus, settings.inline_bytes),
        rates=Rates(settings.webhook_rate),
        catalogue=Catalogue(types),
        tables=SourceTables(pool, settings.sources),
        turns=Turns(),
    )
