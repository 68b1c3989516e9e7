"""The demo: all is started, a shop opens, is watched and closes, and its runs are counted."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
import psycopg
import uvloop

from permaflow.errors import ServerError
from pipeline import telemetry
from pipeline.bus.jetstream import connect
from pipeline.cli.client import DEFINITIONS, Api
from pipeline.cli.show import DONE, FAILED, INTERRUPTED, as_json, console, note, say
from pipeline.demo.receiver import Receiver
from pipeline.demo.shop import Connection, Shop, statement
from pipeline.demo.summary import Runs, Summary, expected, summarise
from pipeline.demo.topic import TOPIC, Payments, create_topic
from pipeline.demo.view import View
from pipeline.demo.watching import OPEN, Watch
from pipeline.forkserver import ForkServer
from pipeline.settings import Settings, load_settings
from pipeline.up import Running, Up

DOCUMENTS = Path(__file__).with_name("workflows")
HOOKS = "https://hooks.example.com"
"""Stands in the documents for the receiver, whose port is not known before it listens."""

WATCHED_WITHIN = 20.0
DRAINED_WITHIN = 30.0
"""Seconds that runs have to end once the shop is closed."""

LOOK = 0.1
SETTLE = 0.5
REFRESH = 0.25
LINE_EVERY = 5.0


def run_demo(
    forks: ForkServer, data_dir: Path, seconds: float | None, rate: float, in_json: bool
) -> int:
    """Run it with embedded servers, whatever the settings say; gives the exit code."""
    telemetry.configure("ERROR", "auto")
    return uvloop.run(_run(forks, data_dir, seconds, rate, in_json))


async def _run(
    forks: ForkServer, data_dir: Path, seconds: float | None, rate: float, in_json: bool
) -> int:
    demo = _Demo(data_dir, seconds, rate, in_json)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, demo.interrupt)
    return await demo.run(forks)


class _Demo:
    def __init__(self, data_dir: Path, seconds: float | None, rate: float, in_json: bool) -> None:
        self._seconds = seconds
        self._rate = rate
        self._in_json = in_json
        self._receiver = Receiver()
        self._settings = _settings(data_dir, self._receiver.address)
        self._ready: asyncio.Future[Running] = asyncio.get_running_loop().create_future()
        self._stopped = asyncio.Event()
        self._closing = asyncio.Event()
        self._hurried = asyncio.Event()

    def interrupt(self) -> None:
        """Once: close the shop and count. Again, or before it is open: stop at once."""
        if not self._ready.done():
            self._stopped.set()
        if self._closing.is_set():
            self._hurried.set()
        self._closing.set()

    async def run(self, forks: ForkServer) -> int:
        """The exit code."""
        self._receiver.start()
        self._say("Starting PostgreSQL, NATS, a Kafka-compatible broker, Valkey and the vertices.")
        supervisor = Up(self._settings, forks, time.monotonic())
        working = asyncio.create_task(
            supervisor.run(self._stopped, self._ready.set_result, _create_sources)
        )
        try:
            first: set[asyncio.Future[Any]] = {working, self._ready}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if not self._ready.done():
                await working
                return INTERRUPTED
            summary = await self._open(self._ready.result())
        finally:
            self._stopped.set()
            await asyncio.wait({working})
            await self._receiver.close()
        if self._in_json:
            as_json(summary.as_json())
        else:
            say(summary.text())
        return FAILED if summary.faults else DONE

    async def _open(self, running: Running) -> Summary:
        async with AsyncExitStack() as stack:
            url = running.env["PERMAFLOW_DATABASE_URL"]
            till, ledger = [await _connection(url, stack) for _ in range(2)]
            bus = await connect(running.env["PERMAFLOW_NATS_URL"], name="permaflow demo")
            stack.push_async_callback(bus.close)
            names = await _apply_workflows(running, self._receiver.address)
            await _until_watched(ledger, self._settings.cdc_slot)
            payments = Payments(running.env["PERMAFLOW_KAFKA_BOOTSTRAP"])
            shop = Shop(till, self._rate, payments.add)
            watch = Watch(
                ledger,
                bus,
                running.processes,
                self._settings.cdc_slot,
                self._settings.stage_names,
            )
            before = await watch.runs()
            view = View(shop, payments, self._receiver, watch, time.monotonic(), _hint(running))
            async with _in_background(watch.run()), self._screen(view):
                await self._trade(shop, payments)
                seconds = time.monotonic() - view.began_at
                runs = await self._drained(watch, shop, payments, names, before)
            return summarise(shop, payments, self._receiver, runs, seconds, running.seconds)

    async def _trade(self, shop: Shop, payments: Payments) -> None:
        """Until the time is over, or Ctrl-C."""
        selling, paying = asyncio.create_task(shop.run()), asyncio.create_task(payments.run())
        closing = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait(
                {selling, paying, closing},
                timeout=self._seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            shop.close()
            await selling
            payments.close()
            await paying
        finally:
            for task in (selling, paying, closing):
                task.cancel()

    async def _drained(
        self,
        watch: Watch,
        shop: Shop,
        payments: Payments,
        names: Mapping[str, str],
        before: Mapping[str, Mapping[str, int]],
    ) -> Runs:
        """The runs of this demo, once all that are due have ended, or it took too long."""
        wanted = expected(shop, payments)
        deadline = time.monotonic() + DRAINED_WITHIN
        settled = False
        while True:
            runs = {
                name: _difference(counts, before.get(workflow_id, {}))
                for workflow_id, counts in (await watch.runs()).items()
                if (name := names.get(workflow_id)) is not None
            }
            complete = all(
                sum(runs.get(name, {}).values()) >= count and not _open(runs.get(name, {}))
                for name, count in wanted.items()
            )
            if settled or self._hurried.is_set() or time.monotonic() > deadline:
                return runs
            # A run too many may still come: look once more when all seems well.
            settled = complete
            await asyncio.sleep(SETTLE if complete else LOOK)

    @asynccontextmanager
    async def _screen(self, view: View) -> AsyncIterator[None]:
        """What is seen meanwhile: a screen, lines where there is none, nothing with --json."""
        if self._in_json:
            yield
            return
        screen = console(stderr=True)
        if not screen.is_terminal:
            async with _in_background(_print_lines(view)):
                yield
            return
        from rich.live import Live

        with Live(view, console=screen, auto_refresh=False, transient=True) as live:

            async def refresh() -> None:
                while True:
                    live.refresh()
                    await asyncio.sleep(REFRESH)

            async with _in_background(refresh()):
                yield

    def _say(self, text: str) -> None:
        if not self._in_json:
            note(text)


def _settings(data_dir: Path, receiver: str) -> Settings:
    return load_settings(
        data_dir=data_dir,
        database_url="",
        nats_url="",
        kafka_bootstrap="",
        redis_url="",
        http_port=0,
        http_allow=receiver,
        functions="pipeline.demo.functions",
        cdc_tables="public.orders",
        kafka_topics=TOPIC,
        log_level="WARNING",
        log_format="json",
    )


async def _create_sources(env: Mapping[str, str]) -> None:
    """The table and the topic are there before anybody looks for them."""
    async with AsyncExitStack() as stack:
        connection = await _connection(env["PERMAFLOW_DATABASE_URL"], stack)
        await connection.execute(statement("create"))
    await create_topic(env["PERMAFLOW_KAFKA_BOOTSTRAP"])


async def _connection(url: str, stack: AsyncExitStack) -> Connection:
    connection = await psycopg.AsyncConnection.connect(
        url, autocommit=True, application_name="permaflow demo"
    )
    stack.push_async_callback(connection.close)
    return connection


async def _apply_workflows(running: Running, receiver: str) -> dict[str, str]:
    """Save and activate the documents; id → name."""
    names = {}
    async with Api(running.api_url, running.api_key) as api:
        for path in sorted(DOCUMENTS.glob("*.json")):
            text = path.read_text(encoding="utf-8").replace(HOOKS, f"http://{receiver}")
            body: dict[str, Any] = {"name": path.stem, "definition": orjson.loads(text)}
            known = await api.named(path.stem)
            if known:
                saved = await api.call("PUT", f"{DEFINITIONS}/{known[0]['id']}", body)
            else:
                saved = await api.call("POST", DEFINITIONS, body)
            await api.call("PATCH", f"{DEFINITIONS}/{saved['id']}/status", {"status": "active"})
            names[saved["id"]] = path.stem
    return names


async def _until_watched(connection: Connection, slot: str) -> None:
    """An order that comes before anybody reads the log would start nothing."""
    deadline = time.monotonic() + WATCHED_WITHIN
    while time.monotonic() < deadline:
        cursor = await connection.execute(statement("watched"), {"slot": slot})
        if (row := await cursor.fetchone()) is not None and row[0]:
            return
        await asyncio.sleep(LOOK)
    raise ServerError(f"Nobody reads the changes of orders after {WATCHED_WITHIN:g} s.")


@asynccontextmanager
async def _in_background(work: Any) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _print_lines(view: View) -> None:
    while True:
        await asyncio.sleep(LINE_EVERY)
        note(view.line())


def _open(counts: Mapping[str, int]) -> int:
    return sum(counts.get(status, 0) for status in (*OPEN, "waiting"))


def _difference(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    found = {status: count - before.get(status, 0) for status, count in now.items()}
    return {status: count for status, count in found.items() if count}


def _hint(running: Running) -> str:
    return f"The API is at {running.api_url}. Ctrl-C closes the shop and counts."
