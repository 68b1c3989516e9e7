"""The sources of changes that the settings ask for, as ingest reads them.

The engine's own database is always read: its table of built-in records, the tables that
`cdc_tables` names and, where that holds `auto`, every table that an active trigger names.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import replace
from uuid import UUID

from connectors.postgres_catalog import SlotLostError
from connectors.postgres_cdc import Batch, PostgresSource
from connectors.postgres_rows import Row
from permaflow.changes import UPDATED, ChangeRecord
from permaflow.errors import ConnectorError, StoreError
from pipeline import telemetry
from pipeline.ingest import Changes, Source
from pipeline.settings import Settings, split
from pipeline.store import dead_letters, waits
from pipeline.store.database import Connection, Database
from pipeline.store.waits import Begun
from pipeline.telemetry import log
from pipeline.tenancy import EVERYBODY, named_org

AUTO = "auto"
ENGINE_SCHEMA = "permaflow"
RECORD_TABLE = f"{ENGINE_SCHEMA}.record"
RECORDS = "records"
_LOOK_AGAIN = 2.0


async def open_sources(settings: Settings, database: Database) -> list[Source]:
    """The sources, not yet reading."""
    org = await _owner(settings, database)
    sources: list[Source] = [PostgresChanges(settings, database, org)]
    if settings.kafka_topics:
        from pipeline.kafka_source import KafkaChanges

        sources.append(KafkaChanges(settings, database, org))
    return sources


async def _owner(settings: Settings, database: Database) -> str:
    """The organisation whose triggers changes of tables and topics may fire; "" for all."""
    if settings.cdc_org == EVERYBODY:
        return ""
    return (await named_org(database, settings.cdc_org, "PERMAFLOW_CDC_ORG")).id.hex


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
    can_look = True

    def __init__(self, settings: Settings, database: Database, org: str = "") -> None:
        self._database = database
        self._org = org
        self._source = PostgresSource(
            settings.database_url,
            name="permaflow",
            slot=settings.cdc_slot,
            publication=settings.cdc_slot,
            private=[ENGINE_SCHEMA],
            shape=record_shape,
            org=org,
            on_trouble=_report,
        )
        named = split(settings.cdc_tables)
        self._auto = AUTO in named
        self._named = frozenset(named) - {AUTO}
        self._wanted: frozenset[str] = frozenset()
        self._looking: asyncio.Task[None] | None = None
        self._looked = asyncio.Event()

    async def watch(self, objects: Iterable[str]) -> bool:
        wanted = self._named | {RECORD_TABLE}
        if self._auto:
            # A trigger must not have the engine's own tables, which hold every organisation's data.
            wanted |= set(filter(_is_theirs, objects))
        if wanted != self._wanted:
            self._wanted = wanted
            if self._looking is not None:
                self._looking.cancel()
            self._looked = asyncio.Event()
            self._looking = asyncio.create_task(self._look(self._looked))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AGAIN):
                    await self._looked.wait()
        return self._looked.is_set()

    async def _look(self, looked: asyncio.Event) -> None:
        """Publish the wanted tables; look again for those that do not exist yet."""
        while True:
            try:
                unknown = await self._source.ensure_publication(self._names)
                unknown = tuple(self._wanted.intersection(unknown))
            except ConnectorError as error:
                log.warning(telemetry.SOURCE_FAILED, source=self.kind, error=str(error))
                unknown = ("?",)
            else:
                looked.set()
            if not unknown:
                return
            await asyncio.sleep(_LOOK_AGAIN)

    async def _names(self) -> frozenset[str]:
        """What triggers want, and what runs wait for now."""
        if not self._auto:
            return self._wanted
        try:
            waited = await self._database.run(waits.objects)
        except StoreError as error:
            raise ConnectorError(f"What runs wait for cannot be read: {error}") from error
        return self._wanted.union(filter(_is_theirs, waited))

    async def look(self, wanted: Sequence[Begun]) -> Mapping[UUID, ChangeRecord]:
        """Rows of tables as they are. With `auto`, tables that nobody watched are watched now. Of
        an object that has built-in records there is no table.
        """
        keys: dict[str, set[str]] = {}
        for wait in wanted:
            if wait.record is None and self._org in ("", wait.org.hex) and _is_theirs(wait.object):
                keys.setdefault(wait.object, set()).add(wait.record_id)
        if not keys:
            return {}
        rows: dict[tuple[str, str], ChangeRecord] = {}
        for row in await self._source.look(keys, add=self._auto):
            if row.namespace == ENGINE_SCHEMA:
                continue  # it holds every organisation's data
            change = self._as_change(row)
            for name in (row.table, f"{row.namespace}.{row.table}"):
                rows[name, row.key] = change
        return {
            wait.question_id: rows[wait.object, wait.record_id]
            for wait in wanted
            if (wait.object, wait.record_id) in rows and wait.record_id in keys.get(wait.object, ())
        }

    def _as_change(self, row: Row) -> ChangeRecord:
        return ChangeRecord(
            ENGINE_SCHEMA,
            "",
            row.table,
            UPDATED,
            row.values,
            namespace=row.namespace,
            key=row.key,
            org=self._org,
        )

    async def batches(self) -> AsyncGenerator[Batch, None]:
        while True:
            try:
                async with contextlib.aclosing(self._source.batches()) as batches:
                    async for batch in batches:
                        yield batch
            except SlotLostError as error:
                await self._tell_of_gap(str(error))
                await self._source.begin_anew()
                await self._look_at_all()
            else:
                return

    async def _tell_of_gap(self, reason: str) -> None:
        """Changes are lost. A dead letter says so before a new slot hides it."""
        log.error(telemetry.CHANGES_LOST, source=self.kind, error=reason)
        telemetry.SOURCE_GAPS.labels(self.kind).inc()
        said = f"{reason} A new slot was made: changes from before this moment start no runs."
        letter = dead_letters.Unreadable(self.kind, "gap", said, b"")
        try:
            await self._database.run(dead_letters.add, [letter])
        except StoreError as error:
            raise ConnectorError(f"The gap cannot be noted: {error}") from error

    async def _look_at_all(self) -> None:
        """What runs wait for may have happened in the gap."""
        try:
            await self._database.run(waits.look_at_all)
        except StoreError as error:
            raise ConnectorError(f"What runs wait for cannot be read: {error}") from error

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


def _is_theirs(name: str) -> bool:
    """Whether workflows may see a table of this name."""
    return not name.startswith(f"{ENGINE_SCHEMA}.")


def _report(error: Exception, delay: float) -> None:
    log.warning(telemetry.SOURCE_FAILED, source="postgres", error=f"{error} (again in {delay:g} s)")
