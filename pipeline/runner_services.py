"""What a runner gives to its tasks: HTTP, tables, records, functions, and the store behind them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import lru_cache
from uuid import UUID

from connectors.http_transport import GuardedHttp
from connectors.postgres_tables import PostgresTables, parse_sources
from permaflow.errors import PermaflowError, SettingsError
from permaflow.task import Mail, Tables
from pipeline import builtins, telemetry
from pipeline.attempt import Services
from pipeline.bus.subjects import notice
from pipeline.holding import LEASE_FOR, Lease, RunnerStore
from pipeline.jailed import open_snippets
from pipeline.settings import Settings, split
from pipeline.store import leases, payloads
from pipeline.store.database import Database
from pipeline.store.documents import DocumentStore
from pipeline.store.named_secrets import StoredSecrets
from pipeline.store.notifications import NotificationStore
from pipeline.store.records import RecordStore
from pipeline.store.secrets import open_box
from pipeline.telemetry import log
from pipeline.tenancy import EVERYBODY, named_org
from pipeline.wire import Dispatch, Noticed, encode

PRUNE_EVERY = 3_600.0

_org = lru_cache(maxsize=10_000)(UUID)
"""The id of an organisation out of its text: once for all the steps that come with it."""


def _nobody_listens(_subject: str, _data: bytes) -> None:
    return


async def open_services(
    settings: Settings,
    database: Database,
    stack: AsyncExitStack,
    stages: Sequence[str] = (),
    ring: Callable[[str, bytes], None] = _nobody_listens,
) -> Services:
    """Opens what tasks of these stages may use; it is closed with `stack`.

    `ring` rings a doorbell of the bus. Raises `SettingsError` when the jail is not as the settings
    demand.
    """
    http = await stack.enter_async_context(
        GuardedHttp(allow=split(settings.http_allow), max_bytes=settings.max_output_bytes)
    )
    provider = builtins.integrations(settings)
    box = open_box(settings.encryption_keys.get_secret_value())
    address = settings.public_url.rstrip("/")

    @lru_cache(maxsize=1_000)
    def bell(org: str) -> Callable[[list[str]], None]:
        subject = notice(_org(org).hex)
        return lambda users: ring(subject, encode(Noticed(users)))

    return Services(
        http,
        await _open_tables(settings, database, stack),
        builtins.functions(settings),
        lambda org, run_id: RecordStore(database, _org(org), run_id),
        lambda org, run_id: DocumentStore(database, _org(org), run_id, address),
        lambda org, run_id: NotificationStore(database, _org(org), run_id, bell(org)),
        lambda org: StoredSecrets(database, box, _org(org)),
        await _open_mail(settings, stack),
        lru_cache(maxsize=1_000)(lambda org: provider(org, http) if provider else None),
        await open_snippets(settings, stack, warm="code" in stages),
    )


async def _open_tables(
    settings: Settings, database: Database, stack: AsyncExitStack
) -> Callable[[str], Tables]:
    """The tables that an organisation may use; none where the settings name none for it."""
    sources = parse_sources(settings.sources)
    shared = sources.pop(EVERYBODY, {})
    opened: dict[UUID, PostgresTables] = {}
    for slug, urls in sources.items():
        org = await named_org(database, slug, "PERMAFLOW_SOURCES")
        opened[org.id] = await stack.enter_async_context(PostgresTables(shared | urls))
    others = await stack.enter_async_context(PostgresTables(shared))
    if settings.sources:
        pruning = asyncio.create_task(_prune((*opened.values(), others), settings))
        stack.callback(pruning.cancel)
    return lambda org: opened.get(_org(org), others)


async def _prune(opened: Sequence[PostgresTables], settings: Settings) -> None:
    """Forget the keys of old writes now and then, as those of old trigger events are forgotten."""
    while True:
        for tables in opened:
            try:
                await tables.prune(timedelta(days=settings.key_retention_days))
            except PermaflowError as error:
                log.warning(telemetry.SOURCE_FAILED, source="tables", error=str(error))
        await asyncio.sleep(PRUNE_EVERY)


async def _open_mail(settings: Settings, stack: AsyncExitStack) -> Mail | None:
    url = settings.smtp_url.get_secret_value()
    if not url:
        return None
    try:
        from connectors.smtp import SmtpMail, parse_server
    except ImportError:
        raise SettingsError("Mail needs `pip install permaflow[email]`.") from None
    mail = SmtpMail(parse_server(url), settings.smtp_sender, ca_file=settings.smtp_ca_file)
    return await stack.enter_async_context(mail)


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

    async def claim(self, holder: str, token: UUID, org: UUID, dispatch: Dispatch) -> leases.Claim:
        where = (dispatch.run_id, dispatch.scope, dispatch.node, dispatch.attempt)
        return await self._database.run(leases.claim, holder, token, org, *where)

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
