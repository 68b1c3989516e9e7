"""Watching a run: nothing is missed, nothing comes twice, and the end is the end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from uuid_utils.compat import uuid7

from pipeline import builtins
from pipeline.bus.jetstream import JetStreamBus
from pipeline.bus.subjects import live
from pipeline.gateway import event_stream, feed
from pipeline.gateway.server import Gateway
from pipeline.ops import Ops
from pipeline.settings import Settings
from pipeline.store import keys
from pipeline.store.database import Database
from pipeline.wire import Live, encode
from tests.fix_gateway import RUNS
from tests.fix_store import append, finish, start

WITHIN = 20.0


@dataclass(frozen=True)
class Event:
    id: str
    name: str
    data: dict[str, Any]


@dataclass
class Site:
    """A gateway on a port of its own, and a run in its store."""

    client: httpx.AsyncClient
    gateway: Gateway
    store: Database
    bus: JetStreamBus
    org: UUID
    run_id: UUID
    key_id: str

    @property
    def path(self) -> str:
        return f"{RUNS}/{self.run_id}/stream"

    async def write(self, seq: int, *entries: list[Any], ring: bool = True) -> None:
        """What an orchestrator does: a row, then a ring."""
        await append(self.store, self.org, self.run_id, seq, orjson.dumps(entries).decode())
        if entries[-1][0] == "finished":
            await finish(self.store, self.run_id, entries[-1][1])
        if ring:
            self.bus.ring(live(self.org.hex), encode(Live([(self.run_id, seq)])))

    async def events(self, last: str | None = None) -> AsyncIterator[Event]:
        headers = {"last-event-id": last} if last else {}
        async with self.client.stream("GET", self.path, headers=headers) as answer:
            assert answer.status_code == 200
            assert answer.headers["content-type"].startswith("text/event-stream")
            assert answer.headers["cache-control"] == "no-store"
            assert answer.headers["x-accel-buffering"] == "no"
            fields: dict[str, str] = {}
            async for line in answer.aiter_lines():
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "event" in fields:
                    yield Event(fields["id"], fields["event"], orjson.loads(fields["data"]))
                    fields = {}

    async def all_events(self, last: str | None = None) -> list[Event]:
        async with asyncio.timeout(WITHIN):
            return [event async for event in self.events(last)]


@pytest.fixture
async def site(
    gateway: Database,
    store: Database,
    nats_bus: JetStreamBus,
    gateway_settings: Settings,
    org: UUID,
    workflow: UUID,
) -> AsyncIterator[Site]:
    types = builtins.task_types(gateway_settings)
    served = Gateway(nats_bus, gateway, types, gateway_settings, Ops({}))
    serving = asyncio.create_task(served.run())
    key, text = await store.run(keys.create, org, "watcher", ["runs:read"])
    run_id = await start(store, org, workflow)
    async with httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{served.port}",
        headers={"authorization": f"Bearer {text}"},
        timeout=WITHIN,
    ) as client:
        yield Site(client, served, store, nats_bus, org, run_id, key.id)
    await served.stop()
    await asyncio.wait_for(serving, WITHIN)


def names(events: list[Event]) -> list[str]:
    return [event.name for event in events]


FIRST: list[list[Any]] = [["started", "hook"], ["dispatched", "", "call", 1]]
LAST: list[list[Any]] = [["succeeded", "", "call", 1, {"ok": True}], ["finished", "completed"]]


async def test_a_finished_run_is_told_from_its_journal(site: Site) -> None:
    await site.write(1, *FIRST)
    await site.write(2, *LAST)
    events = await site.all_events()
    assert names(events) == ["run_started", "step_started", "step_completed", "run_completed"]
    assert [event.id for event in events] == ["1.1", "1.2", "2.1", "2.2"]
    assert events[2].data["output"] == {"ok": True}
    assert events[3].data["status"] == "completed"
    assert all(event.data["run_id"] == str(site.run_id) for event in events)


@pytest.mark.parametrize("status", ["failed", "cancelled", "timed_out"])
async def test_every_end_is_run_completed_with_its_status(site: Site, status: str) -> None:
    await site.write(1, *FIRST, ["finished", status, "boom", "It broke.", "call"])
    last = (await site.all_events())[-1]
    assert (last.name, last.data["status"]) == ("run_completed", status)
    assert last.data["error"] == {"code": "boom", "message": "It broke.", "node": "call"}


async def test_what_happens_later_is_told_when_it_happens(site: Site) -> None:
    await site.write(1, *FIRST)
    async with asyncio.timeout(WITHIN), aclosing(site.events()) as events:
        assert [(await anext(events)).name for _ in FIRST] == ["run_started", "step_started"]
        await site.write(2, ["retrying", "", "call", 1, 2.0, "http_503", "busy"])
        retrying = await anext(events)
        assert retrying.name == "step_retrying"
        assert retrying.data["error"] == {"code": "http_503", "message": "busy"}
        await site.write(3, *LAST)
        assert [event.name async for event in events] == ["step_completed", "run_completed"]


async def test_a_client_goes_on_after_its_last_event(site: Site) -> None:
    await site.write(1, *FIRST)
    await site.write(2, *LAST)
    whole = await site.all_events()
    for place, event in enumerate(whole[:-1], start=1):
        assert await site.all_events(event.id) == whole[place:]


async def test_a_client_that_has_everything_is_told_to_stop(site: Site) -> None:
    await site.write(1, *FIRST, *LAST)
    last = (await site.all_events())[-1].id
    answer = await site.client.get(site.path, headers={"last-event-id": last})
    assert answer.status_code == 204


async def test_an_id_that_is_none_of_ours_is_refused(site: Site) -> None:
    for text in ("x", "1", "1.2.3", "-1.1", "9" * 30 + ".1"):
        answer = await site.client.get(site.path, headers={"last-event-id": text})
        assert answer.status_code == 400


async def test_a_lost_ring_delays_and_loses_nothing(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "LOOK_AGAIN", 0.1)
    await site.write(1, *FIRST)
    async with asyncio.timeout(WITHIN), aclosing(site.events()) as events:
        for _ in FIRST:
            await anext(events)
        await site.write(2, *LAST, ring=False)
        assert [event.name async for event in events] == ["step_completed", "run_completed"]


async def test_a_run_that_ended_without_a_word_ends_its_stream(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "LOOK_AGAIN", 0.1)
    await site.write(1, *FIRST)
    await finish(site.store, site.run_id, "failed")
    last = (await site.all_events())[-1]
    assert (last.name, last.data["status"]) == ("run_completed", "failed")


async def test_a_silent_stream_is_kept_open_by_comments(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "HEARTBEAT", 0.05)
    async with asyncio.timeout(WITHIN), site.client.stream("GET", site.path) as answer:
        lines = answer.aiter_lines()
        assert await anext(lines) == "retry: 2000"
        async for line in lines:
            if line == ": ping":
                break


async def test_many_events_come_in_order_and_once(site: Site) -> None:
    for seq in range(1, 601):
        await site.write(seq, ["dispatched", "", "call", seq], ring=False)
    await site.write(601, ["finished", "completed"])
    events = await site.all_events()
    assert [event.data.get("attempt") for event in events] == [*range(1, 601), None]


async def test_when_a_client_leaves_nothing_of_it_stays(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    watching, listen, left = site.gateway.application.feed, site.bus.listen, asyncio.Event()

    async def listen_and_tell(subject: str, answer: Any) -> Any:
        stop = await listen(subject, answer)

        async def stop_and_tell() -> None:
            await stop()
            left.set()

        return stop_and_tell

    monkeypatch.setattr(site.bus, "listen", listen_and_tell)
    await site.write(1, *FIRST)
    async with asyncio.timeout(WITHIN):
        async with aclosing(site.events()) as events:
            await anext(events)
            assert watching._counts[site.org] == 1
            assert list(watching._stops) == [site.org]
        await left.wait()
    assert watching._counts[site.org] == 0
    assert not watching._watchers[site.org]


async def test_too_many_streams_are_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MOST_OF_ONE", 1)
    await site.write(1, *FIRST)
    async with asyncio.timeout(WITHIN), aclosing(site.events()) as events:
        await anext(events)
        answer = await site.client.get(site.path)
        assert answer.status_code == 429
        assert answer.headers["retry-after"] == "5"


async def test_a_process_that_stops_ends_its_streams(site: Site) -> None:
    await site.write(1, *FIRST)
    async with asyncio.timeout(WITHIN), aclosing(site.events()) as events:
        await anext(events)
        await site.gateway.stop()
        assert [event.name async for event in events] == ["step_started"]


async def test_a_revoked_key_ends_its_streams(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "LOOK_AGAIN", 0.05)
    monkeypatch.setattr(event_stream, "CHECK_KEY", 0.05)
    site.gateway.application.guard._callers._seconds = 0.05
    await site.write(1, *FIRST)
    async with asyncio.timeout(WITHIN), aclosing(site.events()) as events:
        await anext(events)
        await site.store.run(keys.revoke, site.org, site.key_id)
        assert [event.name async for event in events] == ["step_started"]
    assert (await site.client.get(site.path)).status_code == 401


async def test_a_run_that_is_not_there_is_a_404(site: Site) -> None:
    assert (await site.client.get(f"{RUNS}/{uuid7()}/stream")).status_code == 404
