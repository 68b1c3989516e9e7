"""The sources of changes that the settings ask for, as ingest reads them.

The engine's own database is always read: its table of built-in records, the tables that
`cdc_tables` names and, where that holds `auto`, every table that an active trigger names.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable
from dataclasses import replace

from connectors.postgres_cdc import Batch, PostgresSource
from permaflow.changes import ChangeRecord
from permaflow.errors import ConnectorError
from pipeline import telemetry
from pipeline.ingest import Changes, Source
from pipeline.settings import Settings, split
from pipeline.store.database import Connection, Database
from pipeline.telemetry import log

AUTO = "auto"
ENGINE_SCHEMA = "permaflow"
RECORD_TABLE = f"{ENGINE_SCHEMA}.record"
RECORDS = "records"
_LOOK_AGAIN = 2.0


async def open_sources(settings: Settings, database: Database) -> list[Source]:
    """The sources, not yet reading."""
    sources: list[Source] = [PostgresChanges(settings)]
    if settings.kafka_topics:
        from pipeline.kafka_source import KafkaChanges

        sources.append(KafkaChanges(settings, database))
    return sources


def record_shape(change: ChangeRecord) -> ChangeRecord:
    """A change of the table of built-in records as a change of the record that it holds."""
    if f"{change.namespace}.{change.object}" != RECORD_TABLE:
        return change
    row = change.record
    before = change.before
    return replace(
        change,
        namespace=RECORDS,
        object=row["object"],
        key=row["id"],
        org=row["org_id"].replace("-", ""),
        record=_document(row),
        before=_document(before) if before is not None else None,
    )


def _document(row: object) -> dict[str, object]:
    assert isinstance(row, dict)
    data = row.get("data")
    return {**(data if isinstance(data, dict) else {}), "id": row.get("id")}


class PostgresChanges:
    """The engine's database as a source. The slot keeps the position."""

    kind = "postgres"

    def __init__(self, settings: Settings) -> None:
        self._source = PostgresSource(
            settings.database_url,
            name="permaflow",
            slot=settings.cdc_slot,
            publication=settings.cdc_slot,
            private=[ENGINE_SCHEMA],
            shape=record_shape,
            on_trouble=_report,
        )
        named = split(settings.cdc_tables)
        self._auto = AUTO in named
        self._named = frozenset(named) - {AUTO}
        self._wanted: frozenset[str] = frozenset()
        self._looking: asyncio.Task[None] | None = None

    async def watch(self, objects: Iterable[str]) -> None:
        wanted = self._named | {RECORD_TABLE}
        if self._auto:
            # A trigger must not have the engine's own tables, which hold every organisation's data.
            wanted |= {name for name in objects if not name.startswith(f"{ENGINE_SCHEMA}.")}
        if wanted == self._wanted:
            return
        self._wanted = wanted
        if self._looking is not None:
            self._looking.cancel()
        self._looking = asyncio.create_task(self._look())
        await asyncio.wait({self._looking}, timeout=_LOOK_AGAIN)

    async def _look(self) -> None:
        """Publish the wanted tables; look again for those that do not exist yet."""
        while True:
            try:
                unknown = await self._source.ensure_publication(self._wanted)
            except ConnectorError as error:
                log.warning(telemetry.SOURCE_FAILED, source=self.kind, error=str(error))
                unknown = ("?",)
            if not unknown:
                return
            await asyncio.sleep(_LOOK_AGAIN)

    async def batches(self) -> AsyncGenerator[Batch, None]:
        async with contextlib.aclosing(self._source.batches()) as batches:
            async for batch in batches:
                yield batch

    async def keep_position(self, connection: Connection, batch: Changes) -> None:
        """Nothing to keep: the server's slot is moved by `confirm`."""

    async def confirm(self, batch: Changes) -> None:
        assert isinstance(batch, Batch)
        await self._source.confirm(batch.position)

    async def close(self) -> None:
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking


def _report(error: Exception, delay: float) -> None:
    log.warning(telemetry.SOURCE_FAILED, source="postgres", error=f"{error} (again in {delay:g} s)")
