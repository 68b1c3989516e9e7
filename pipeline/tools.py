"""What a runner gives to its tasks: HTTP, tables, records, functions, and the store behind them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import lru_cache
from uuid import UUID

from connectors.http_transport import GuardedHttp
from connectors.postgres_tables import PostgresTables, parse_sources
from pipeline import builtins
from pipeline.attempt import Services
from pipeline.runner import LEASE_FOR, Lease, RunnerStore
from pipeline.settings import Settings, split
from pipeline.store import leases, payloads
from pipeline.store.database import Database
from pipeline.store.records import RecordStore


async def open_services(settings: Settings, database: Database, stack: AsyncExitStack) -> Services:
    """Opens what tasks may use; it is closed with `stack`."""
    http = await stack.enter_async_context(
        GuardedHttp(allow=split(settings.http_allow), max_bytes=settings.max_output_bytes)
    )
    tables = await stack.enter_async_context(PostgresTables(parse_sources(settings.sources)))
    return Services(
        http,
        tables,
        builtins.functions(settings),
        lru_cache(maxsize=1_000)(lambda org: RecordStore(database, UUID(org))),
    )


def runner_store(database: Database) -> RunnerStore:
    """The store as a runner sees it."""
    return _Store(database)


class _Store:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def put_payload(self, ref: UUID, org: UUID, run_id: UUID, body: bytes) -> None:
        await self._database.run(payloads.put, [payloads.Payload(ref, org, body, run_id)])

    async def get_payload(self, ref: UUID) -> bytes | None:
        return (await self._database.run(payloads.get, [ref])).get(ref)

    async def renew(self, holder: str, held: Sequence[Lease]) -> None:
        steps = [
            leases.HeldStep(
                each.run_id, each.step, each.attempt, each.org, timedelta(seconds=each.deadline)
            )
            for each in held
        ]
        await self._database.run(leases.renew, holder, steps, timedelta(seconds=LEASE_FOR))

    async def release(self, holder: str, held: Sequence[Lease]) -> None:
        steps = [(each.run_id, each.step, each.attempt) for each in held]
        await self._database.run(leases.drop, holder, steps)
