"""The data sources of an organisation, as forms offer them.

A data source is an object of the built-in records, named by its name (`order`), or a table of a
configured database, named `<source>:<schema>.<table>` (`shop:public.orders`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from connectors.postgres_tables import PostgresTables, parse_sources
from permaflow.errors import ConnectorError, InputError
from permaflow.forms import Option
from pipeline.gateway.shared_pool import SharedPool
from pipeline.store import orgs, records
from pipeline.tenancy import EVERYBODY

PATIENCE = timedelta(seconds=2)
"""How long one database may take; a form waits for the slowest."""

RECORD_ID = "id"


class SourceTables:
    """The configured databases, by organisation; opened when they are first asked about."""

    def __init__(self, pool: SharedPool, setting: str) -> None:
        """Raises `SettingsError` for a setting that is none."""
        self._pool = pool
        self._urls = parse_sources(setting)
        self._opened: dict[UUID, PostgresTables] = {}

    async def of(self, org: UUID) -> PostgresTables:
        """Those that the organisation may use."""
        found = self._opened.get(org)
        if found is None:
            urls = dict(self._urls.get(EVERYBODY, {}))
            for slug, mine in self._urls.items():
                named = None if slug == EVERYBODY else await self._pool.run(orgs.by_slug, slug)
                if named is not None and named.id == org:
                    urls |= mine
            found = self._opened.setdefault(
                org, PostgresTables(urls, statement_timeout=PATIENCE, connections=1)
            )
        return found

    async def aclose(self) -> None:
        for tables in self._opened.values():
            await tables.aclose()


class OrgDataSources:
    """Implements `permaflow.forms.DataSources` for one organisation."""

    def __init__(self, org: UUID, pool: SharedPool, tables: PostgresTables) -> None:
        self._org = org
        self._pool = pool
        self._tables = tables

    async def datasources(self) -> Sequence[Option]:
        """A database that cannot be reached is left out: what else there is can still be chosen."""
        objects = await self._pool.run_as(self._org, records.objects, self._org)
        found = [Option(name, name) for name in objects]
        for options in await asyncio.gather(*map(self._of_source, self._tables.sources)):
            found += options
        return found

    async def attributes(self, datasource: str) -> Sequence[Option]:
        source, colon, table = datasource.partition(":")
        if colon:
            try:
                columns = await self._tables.columns(source, table)
            except InputError:
                return ()
            return [Option(name, name, primary_key=is_key) for name, is_key in columns]
        names = await self._pool.run_as(self._org, records.attributes, self._org, datasource)
        if not names:
            return ()
        others = [Option(name, name) for name in names if name != RECORD_ID]
        return [Option(RECORD_ID, RECORD_ID, primary_key=True), *others]

    async def _of_source(self, source: str) -> list[Option]:
        try:
            names = await self._tables.tables(source)
        except ConnectorError:
            return []
        return [Option(f"{source}:{name}", f"{name} ({source})") for name in names]
