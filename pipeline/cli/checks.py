"""What `permaflow doctor` looks at: each check gives lines of ok, warn or fail, and what to do."""

from __future__ import annotations

import asyncio
import platform
import shutil
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from permaflow.errors import PermaflowError
from pipeline.settings import Settings, unknown_variables

if TYPE_CHECKING:
    from permaflow.plan import Problem
    from permaflow.task_types import TaskTypeRegistry
    from pipeline.store.server import Slot
    from pipeline.store.versions import InUse

OK, WARN, FAIL = "ok", "warn", "fail"

PATIENCE = 10.0
"""Seconds that one check may take."""

MOST_VERSIONS = 2_000
COMPILING = PATIENCE / 2
"""Versions of workflows that are compiled, and seconds that it may take."""

MOST_LINES = 20
"""Versions that are named."""

_MEGABYTE = 1024 * 1024
_LITTLE_DISK, _NO_DISK = 2_000 * _MEGABYTE, 200 * _MEGABYTE
_LONG_LAG = 256 * _MEGABYTE
_CLOCK_OFFSET = 0.5
_NATS = (2, 12)


@dataclass(frozen=True, slots=True)
class Line:
    """One finding. `advice` says what to do about it."""

    check: str
    state: str
    message: str
    advice: str = ""


Check = Callable[[Settings], AsyncIterator[Line]]


async def run(settings: Settings) -> list[Line]:
    """Every check, side by side; the lines come in a fixed order."""
    checks = {
        "python": python,
        "settings": variables,
        "servers": executables,
        "disk": disk,
        "postgres": postgres,
        "nats": nats,
        "kafka": kafka,
        "redis": redis,
        "jail": jail,
        "plug-ins": plugins,
        "workflows": workflows,
        "gateway": gateway,
    }
    found = await asyncio.gather(*(_lines(name, check, settings) for name, check in checks.items()))
    return [line for lines in found for line in lines]


async def _lines(name: str, check: Check, settings: Settings) -> list[Line]:
    lines: list[Line] = []
    try:
        async with asyncio.timeout(PATIENCE):
            async for line in check(settings):
                lines.append(line)  # noqa: PERF401 - what was found before a failure counts
    except TimeoutError:
        lines.append(Line(name, FAIL, f"No answer within {PATIENCE:g} s.", "Is it overloaded?"))
    except PermaflowError as error:
        lines.append(Line(name, FAIL, str(error)))
    except Exception as error:  # whatever a driver raises is what the doctor is asked to tell
        lines.append(Line(name, FAIL, f"{type(error).__name__}: {error}"))
    return lines


async def python(settings: Settings) -> AsyncIterator[Line]:
    from pipeline.cli.main import version

    where = f"{platform.system()} {platform.machine()}"
    yield Line("python", OK, f"{platform.python_version()} on {where}, permaflow {version()}")


async def variables(settings: Settings) -> AsyncIterator[Line]:
    """Whether every PERMAFLOW_ variable is one that somebody reads."""
    unknown = unknown_variables()
    for each in unknown:
        said = f"there is no setting {each.name}"
        advice = f"Did you mean {each.nearest}?" if each.nearest else "Remove it."
        yield Line("settings", WARN, said, advice)
    if not unknown:
        yield Line("settings", OK, "every PERMAFLOW_ variable is known")


async def executables(settings: Settings) -> AsyncIterator[Line]:
    """What `up` would start, unless a URL is set; and libraries that are asked for."""
    from pipeline.embedded.binaries import find_binary

    servers = {
        "postgres": settings.database_url,
        "nats-server": settings.nats_url,
        "tansu": settings.kafka_bootstrap,
        "valkey-server": settings.redis_url,
    }
    for name, url in servers.items():
        try:
            path = find_binary(name)
        except PermaflowError as error:
            state = OK if url else WARN
            said = f"{name}: not here, and not needed: a URL is set" if url else str(error)
            yield Line("servers", state, said)
        else:
            yield Line("servers", OK, f"{name}: {path}")
    if settings.kafka_topics and find_spec("aiokafka") is None:
        advice = "pip install 'permaflow[kafka]'"
        yield Line("servers", FAIL, "PERMAFLOW_KAFKA_TOPICS needs the library aiokafka.", advice)


async def disk(settings: Settings) -> AsyncIterator[Line]:
    place = settings.data_dir.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    said = f"{free / 1e9:.1f} GB free for {settings.data_dir}"
    if free < _NO_DISK:
        yield Line("disk", FAIL, said, "Free some space: PostgreSQL stops when there is none.")
    elif free < _LITTLE_DISK:
        yield Line("disk", WARN, said, "Free some space, or lower PERMAFLOW_RETENTION_DAYS.")
    else:
        yield Line("disk", OK, said)


async def postgres(settings: Settings) -> AsyncIterator[Line]:
    if not settings.database_url:
        yield _not_running("postgres", "PERMAFLOW_DATABASE_URL", settings)
        return
    import psycopg

    from pipeline.store import migrate, server

    try:
        opened = await psycopg.AsyncConnection.connect(
            settings.database_url, autocommit=True, connect_timeout=5
        )
    except psycopg.Error as error:
        advice = "Start it, or set PERMAFLOW_DATABASE_URL to where it is."
        yield Line("postgres", FAIL, " ".join(str(error).split()), advice)
        return
    async with opened as connection:
        before = time.time()
        found = await server.settings(connection)
        offset = found.clock - (before + time.time()) / 2
        if found.version_number < server.OLDEST:
            yield Line("postgres", FAIL, f"PostgreSQL {found.version}", "Upgrade to 15 or newer.")
        else:
            yield Line("postgres", OK, f"PostgreSQL {found.version}")
        for name, wanted, advice in (
            ("wal_level", "logical", "Set wal_level = logical and restart it: CDC needs it."),
            ("fsync", "on", "Set fsync = on: without it a crash loses committed runs."),
            ("full_page_writes", "on", "Set full_page_writes = on, or a crash may ruin pages."),
        ):
            value = getattr(found, name)
            right = value == wanted
            yield Line(
                "postgres", OK if right else FAIL, f"{name} = {value}", "" if right else advice
            )
        late = abs(offset) > _CLOCK_OFFSET
        advice = "Run NTP on both machines: timers and lags go by both clocks." if late else ""
        said = f"its clock differs by {offset * 1000:+.0f} ms"
        yield Line("postgres", WARN if late else OK, said, advice)
        status = await migrate.status(settings.database_url)
        if status.pending:
            said = f"{len(status.pending)} migrations are pending: {', '.join(status.pending)}"
            yield Line("postgres", FAIL, said, "Run `permaflow db migrate`.")
        else:
            yield Line("postgres", OK, f"the schema is at head, {status.applied[-1]}")
        for slot in await server.slots(connection):
            yield _slot(slot)


def _slot(slot: Slot) -> Line:
    said = f"replication slot {slot.name}: {slot.lag_bytes / 1e6:.1f} MB behind"
    if slot.wal_status in ("lost", "unreserved"):
        advice = (
            "Its reader misses changes. Drop it with pg_drop_replication_slot, start ingest anew, "
            "and look at what changed meanwhile; a larger max_slot_wal_keep_size prevents it."
        )
        return Line("postgres", FAIL, f"{said}, {slot.wal_status}", advice)
    if slot.lag_bytes > _LONG_LAG:
        return Line("postgres", WARN, said, "Is `permaflow serve ingest` running and keeping up?")
    if not slot.active:
        advice = "Nobody reads it. If that is meant to stay so, drop the slot: it keeps WAL."
        return Line("postgres", WARN, said, advice)
    return Line("postgres", OK, said)


async def nats(settings: Settings) -> AsyncIterator[Line]:
    if not settings.nats_url:
        yield _not_running("nats", "PERMAFLOW_NATS_URL", settings)
        return
    import nats as library
    from nats.js.errors import NotFoundError

    from pipeline.bus.subjects import STREAMS

    servers = [url.strip() for url in settings.nats_url.split(",")]
    try:
        client = await library.connect(
            servers,
            allow_reconnect=False,
            connect_timeout=3,
            max_reconnect_attempts=1,
            reconnect_time_wait=0.1,
            error_cb=_ignore,
        )
    except (library.errors.Error, OSError) as error:
        where = ", ".join(url.rpartition("@")[2] for url in servers)
        advice = "Start it, or set PERMAFLOW_NATS_URL to where it is."
        yield Line("nats", FAIL, f"{where} cannot be reached: {error}", advice)
        return
    try:
        version = client.connected_server_version
        said = f"NATS {version.major}.{version.minor}.{version.patch}"
        if (version.major, version.minor) < _NATS:
            yield Line("nats", FAIL, said, "Upgrade to 2.12 or newer.")
        else:
            yield Line("nats", OK, said)
        jetstream = client.jetstream(timeout=3)
        await jetstream.account_info()
        for name in STREAMS:
            try:
                info = await jetstream.stream_info(name)
            except NotFoundError:
                advice = "A vertex makes it when it starts; is one running?"
                yield Line("nats", WARN, f"stream {name} is not there", advice)
            else:
                held = max(0, info.state.messages - 1)  # one is the anchor
                yield Line("nats", OK, f"stream {name}: {held} messages")
    finally:
        await client.close()


async def kafka(settings: Settings) -> AsyncIterator[Line]:
    if not settings.kafka_bootstrap:
        if settings.kafka_topics:
            advice = "Set PERMAFLOW_KAFKA_BOOTSTRAP, or start `permaflow up`."
            yield Line("kafka", FAIL, "PERMAFLOW_KAFKA_TOPICS is set, but no broker.", advice)
        return
    if find_spec("aiokafka") is None:
        advice = "pip install 'permaflow[kafka]' to look closer."
        yield Line("kafka", OK, f"set to {settings.kafka_bootstrap}; not looked at", advice)
        return
    from connectors.kafka import cluster_id

    cluster = await cluster_id(settings.kafka_bootstrap)
    yield Line("kafka", OK, f"cluster {cluster or 'without a name'}")


async def redis(settings: Settings) -> AsyncIterator[Line]:
    if not settings.redis_url:
        return
    from redis.asyncio import Redis
    from redis.exceptions import RedisError

    try:
        async with Redis.from_url(settings.redis_url, socket_connect_timeout=3) as client:
            info = await client.info("server")
    except (RedisError, OSError) as error:
        advice = "Everything works without it, more slowly."
        yield Line("redis", WARN, f"It cannot be reached: {error}", advice)
        return
    name = "Valkey" if "valkey_version" in info else "Redis"
    yield Line("redis", OK, f"{name} {info.get('valkey_version') or info.get('redis_version')}")


async def jail(settings: Settings) -> AsyncIterator[Line]:
    """What code steps would be kept in by a runner of this machine and this user."""
    from pipeline.jailed import limits_of
    from stages.jail import engines
    from stages.jail.pool import Pool

    for engine in engines.ENGINES.values():
        if engines.installed(engine):
            yield Line("jail", OK, f"engine {engine.name} is installed")
    async with Pool(limits_of(settings)) as pool:
        cell = await pool.warm()
    yield Line("jail", OK, f"code steps are kept in by {', '.join(cell.layers)}")
    for layer, reason in cell.missing.items():
        advice = "See docs/how-to/run-code.md."
        yield Line("jail", WARN, f"the layer {layer} is missing: {reason}", advice)


async def plugins(settings: Settings) -> AsyncIterator[Line]:
    """Whether all task types and integrations can be loaded."""
    from pipeline import builtins

    types = builtins.task_types(settings)
    broken = await asyncio.to_thread(types.load)
    for error in broken:
        yield Line(
            "plug-ins", FAIL, str(error), "Mend or remove the package, or correct the setting."
        )
    if not broken:
        yield Line("plug-ins", OK, f"{len(types.names())} task types can be loaded")


async def workflows(settings: Settings) -> AsyncIterator[Line]:
    """Whether what runs go by compiles here: a task type may be gone, a check stricter than it was.

    Of a database that is not there, or without our tables, the check of PostgreSQL tells.
    """
    if not settings.database_url:
        return
    import psycopg

    from pipeline import builtins
    from pipeline.store import versions

    try:
        opened = await psycopg.AsyncConnection.connect(settings.database_url, connect_timeout=5)
    except psycopg.Error:
        return
    async with opened as connection:
        try:
            found = await versions.in_use(connection, MOST_VERSIONS)
        except psycopg.errors.UndefinedTable:
            return
    types = builtins.task_types(settings)
    looked, unsound = await asyncio.to_thread(_unsound, found, types, time.monotonic() + COMPILING)
    advice = (
        "Install what it needs. If a check is stricter than it was, save a version that passes it "
        "and run `permaflow workflow migrate-runs` with the Permaflow that you had: here its runs "
        "fail as `unrunnable` when they go on."
    )
    for version, problem in unsound[:MOST_LINES]:
        said = (
            f"version {version.version} of {version.name!r} does not compile "
            f"(open runs: {version.open_runs:,}): {problem.message} (at {problem.pointer})"
        )
        yield Line("workflows", FAIL, said, advice)
    if (more := len(unsound) - MOST_LINES) > 0:
        yield Line("workflows", FAIL, f"versions that do not compile, not shown: {more:,}", advice)
    total = found[0].total if found else 0
    if total > looked:
        said = f"versions in use: {total:,}; only the {looked:,} most used were looked at"
        yield Line("workflows", WARN, said)
    if not unsound:
        yield Line("workflows", OK, f"versions in use that compile: {looked:,}")


def _unsound(
    found: Sequence[InUse], types: TaskTypeRegistry, until: float
) -> tuple[int, list[tuple[InUse, Problem]]]:
    """How many were looked at until that moment, and the first problem of each that has some."""
    import orjson

    from specs.dialects import compile_document

    unsound: list[tuple[InUse, Problem]] = []
    for looked, version in enumerate(found):
        if time.monotonic() > until:
            return looked, unsound
        compiled = compile_document(orjson.loads(version.document), types)
        if compiled.plan is None:
            unsound.append((version, compiled.problems[0]))
    return len(found), unsound


async def gateway(settings: Settings) -> AsyncIterator[Line]:
    import httpx

    from pipeline.cli.client import DEFINITIONS
    from pipeline.cli.main import version

    url = settings.api_url.rstrip("/")
    key = settings.api_key.get_secret_value()
    async with httpx.AsyncClient(base_url=url, timeout=5, trust_env=False) as client:
        try:
            answer = await client.get("/readyz")
            theirs = (await client.get("/version")).json()["version"]
        except httpx.HTTPError as error:
            advice = "Start it with `permaflow up`, or set PERMAFLOW_API_URL."
            yield Line("gateway", WARN, f"{url} cannot be reached: {error}", advice)
            return
        if answer.status_code == 200:
            yield Line("gateway", OK, f"{url} is ready")
        else:
            yield Line("gateway", FAIL, f"{url} is not ready: {answer.text}")
        if theirs != version():
            advice = "Install the same version on both sides."
            yield Line("gateway", WARN, f"It is {theirs}, this is {version()}.", advice)
        if not key:
            advice = "Set PERMAFLOW_API_KEY."
            yield Line("gateway", WARN, "There is no API key to ask with.", advice)
            return
        headers = {"authorization": f"Bearer {key}"}
        asked = await client.get(DEFINITIONS, params={"limit": 1}, headers=headers)
        if asked.status_code == 200:
            yield Line("gateway", OK, "the API key is known")
        else:
            advice = "Set PERMAFLOW_API_KEY to one that it knows."
            yield Line("gateway", FAIL, f"It refuses the API key ({asked.status_code}).", advice)


def _not_running(check: str, setting: str, settings: Settings) -> Line:
    where = settings.data_dir.absolute()
    return Line(
        check,
        WARN,
        f"not looked at: no server is set, and no `permaflow up` runs in {where}",
        f"Start `permaflow up`, or set {setting}, or PERMAFLOW_DATA_DIR to where it runs.",
    )


async def _ignore(_error: Exception) -> None:
    """The connection raises by itself what the doctor wants to know."""


def settings_of(data_dir: Path | None) -> Settings:
    """The settings, and what a running `up` adds to them."""
    from pipeline.endpoints import located
    from pipeline.settings import load_settings

    return located(load_settings(data_dir=data_dir))
