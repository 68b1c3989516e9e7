"""Changes that nobody can use: put aside with the reason, and what follows goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import orjson
import pytest

from permaflow.changes import CREATED, ChangeRecord, Rejected
from pipeline.bus.jetstream import JetStreamBus, connect
from pipeline.ingest import Changes, Ingest
from pipeline.settings import load_settings
from pipeline.store import runs
from pipeline.store.database import Connection, Database
from tests.fix_engine import task
from tests.fix_site import RunningSite, Send, Sites

LETTERS = "select source, position, reason, raw from permaflow.dead_letter order by position"
MOST = 10_000

# What stands in the topic, and what the letter says of it.
BAD: list[tuple[bytes, str]] = [
    (b"no json", "invalid literal"),
    (b'{"id": 1', "unexpected end of data"),
    (b"\x00\x00\x00\x00\x01\x02", "Avro"),
    (b"[1, 2]", "its payload is list, not an object"),
    (b'"text"', "its payload is str, not an object"),
    (b'{"op": "x", "after": {"id": 1}, "source": {"table": "orders"}}', "op"),
    (b'{"op": "c", "after": 5, "source": {"table": "orders"}}', "a row is int, not an object"),
    (rb'{"id": 1, "a": "\u0000", "__op": "c"}', "NUL"),
    (rb'{"id": 1, "a": "\ud800", "__op": "c"}', "surrogate"),
    (b'{"id": 1, "a": NaN}', "unexpected character"),
    (b'{"id": 1, "a": ' + b"[" * 100 + b"]" * 100 + b"}", "nested deeper than 64 levels"),
    (b"[" * 100_000, "depth limit"),
    (b'{"id": 1, "a": "\xff", "__op": "c"}', "not valid UTF-8"),
]


def record_workflow() -> dict[str, Any]:
    """Starts with a new row of `orders`."""
    trigger = {"object": "orders", "event": "created"}
    nodes = [{"id": "t", "type": "trigger_record", "config": trigger}, task("a")]
    edges = [{"source": "t", "target": "a"}]
    return {"name": "Orders", "definition": {"nodes": nodes, "edges": edges}}


async def read_letters(site: RunningSite) -> dict[int, tuple[str, str, bytes]]:
    """Offset → source, reason and bytes. Behind some places stands the id of the topic."""
    rows = await site.sql(LETTERS)
    return {
        int(position.rpartition(":")[2].partition("@")[0]): (source, reason, bytes(raw))
        for source, position, reason, raw in rows
    }


async def test_bad_messages_are_put_aside_and_the_good_ones_between_them_start_runs(
    sites: Sites, kafka_bootstrap: str, topic: str, send: Send
) -> None:
    flags = {"kafka_bootstrap": kafka_bootstrap, "kafka_topics": topic, "kafka_group": topic}
    async with sites(**flags) as site:
        workflow_id = (await site.active(record_workflow()))["id"]
        for number, (raw, _) in enumerate(BAD):
            await send(raw, {"id": number, "__op": "c"})
        found = await site.ended(workflow_id, len(BAD))
        assert len(found) == len(BAD)
        letters = await read_letters(site)
        assert set(letters) == {2 * index for index in range(len(BAD))}
        for index, (raw, said) in enumerate(BAD):
            source, reason, kept = letters[2 * index]
            assert (source, kept) == ("kafka", raw)
            assert said in reason, (raw[:60], reason)


async def test_a_change_above_the_limit_of_inputs_is_put_aside(
    sites: Sites, kafka_bootstrap: str, topic: str, send: Send
) -> None:
    flags = {"kafka_bootstrap": kafka_bootstrap, "kafka_topics": topic, "kafka_group": topic}
    async with sites(**flags, max_input_bytes=MOST, inline_bytes=500) as site:
        workflow_id = (await site.active(record_workflow()))["id"]
        await send({"id": 0, "a": "", "__op": "c"})
        (first,) = await site.ended(workflow_id, 1)
        shown = (await site.door.get(f"/workflows/v1/runs/{first['id']}")).json()
        around = len(orjson.dumps(shown["trigger_data"]))
        for number, size in enumerate((MOST - 1, MOST, MOST + 1), 1):
            await send({"id": number, "a": "x" * (size - around), "__op": "c"})
        await send({"id": 9, "a": "", "__op": "c"})
        found = await site.ended(workflow_id, 4)
        assert len(found) == 4
        ((source, reason, kept),) = (await read_letters(site)).values()
        assert source == "kafka"
        assert "takes 10,001 bytes as the input of a run; at most 10,000 are allowed" in reason
        assert orjson.loads(kept)["record"]["id"] == 3
        inputs = await site.sql("select input is null, input_ref is null from permaflow.run")
        assert sorted(inputs) == [(False, True), (False, True), (True, False), (True, False)]


# --- what no real source makes --------------------------------------------------------------------


@dataclass(frozen=True)
class Together:
    records: Sequence[ChangeRecord | Rejected]


class Given:
    """A source that has one batch, and remembers what was confirmed."""

    kind = "given"

    def __init__(self, *records: ChangeRecord, fails: Exception | None = None) -> None:
        self._batch = Together(records)
        self._fails = fails
        self.confirmed = asyncio.Event()

    async def watch(self, objects: Iterable[str]) -> None: ...

    async def batches(self) -> AsyncGenerator[Changes, None]:
        if self._fails is not None:
            raise self._fails
        yield self._batch

    async def keep_position(self, connection: Connection, batch: Changes) -> None: ...

    async def confirm(self, batch: Changes) -> None:
        self.confirmed.set()

    async def close(self) -> None: ...


@pytest.fixture
async def bus(nats_url: str) -> AsyncIterator[JetStreamBus]:
    found = await connect(nats_url, name="test")
    yield found
    await found.close()


def change(number: int, key: str = "", **more: Any) -> ChangeRecord:
    record = {"id": number, "amount": 150, **more}
    return ChangeRecord("given", f"e{number}", "orders", CREATED, record, key=key or str(number))


async def test_a_change_that_the_store_refuses_holds_up_no_other(
    bus: JetStreamBus, store: Database, org: UUID, workflow: UUID
) -> None:
    bad = [change(2, key="a\0b"), change(3, n=2**70), change(4, a="\ud800")]
    source = Given(change(1), *bad, change(5))
    ingest = Ingest(bus, store, [source], load_settings())
    running = asyncio.create_task(ingest.run())
    async with asyncio.timeout(20):
        await source.confirmed.wait()
        await ingest.stop()
        await running
    assert sorted(run.resource_id for run in await store.run(runs.find, org)) == ["1", "5"]

    async def letters(connection: Connection) -> list[Any]:
        return await (await connection.execute(LETTERS)).fetchall()

    found = await store.run(letters)
    assert [(kind, position) for kind, position, _, _ in found] == [
        ("given", "e2"),
        ("given", "e3"),
        ("given", "e4"),
    ]
    assert orjson.loads(found[0][3])["record"] == {"id": 2, "amount": 150}
    assert b"1180591620717411303424" in found[1][3]


async def test_a_bug_in_a_source_ends_the_process_instead_of_the_source_in_silence(
    bus: JetStreamBus, store: Database
) -> None:
    ingest = Ingest(bus, store, [Given(fails=ZeroDivisionError("a bug"))], load_settings())
    async with asyncio.timeout(20):
        with pytest.raises(ZeroDivisionError):
            await ingest.run()
