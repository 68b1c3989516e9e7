"""The source of changes and a real PostgreSQL: what SQL does is what it tells, and only that."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from connectors.postgres_catalog import SlotLostError
from connectors.postgres_cdc import Batch, PostgresSource
from permaflow.changes import ChangeRecord, Rejected
from permaflow.errors import ConnectorError
from tests.fix_servers import StackMaker

pytestmark = pytest.mark.service

LIMIT = 20.0
MakeSource = Callable[..., PostgresSource]
Session = psycopg.AsyncConnection[tuple[Any, ...]]


@pytest.fixture
async def database(empty_database_url: str) -> str:
    return empty_database_url


@pytest.fixture
async def session(database: str) -> AsyncIterator[Session]:
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as found:
        yield found


@pytest.fixture
async def make_source(database: str) -> AsyncIterator[MakeSource]:
    """Sources of one slot, which is dropped after the test."""
    slot = f"test_{uuid.uuid4().hex[:12]}"
    async with AsyncExitStack() as on_exit:

        def make(**options: Any) -> PostgresSource:
            return PostgresSource(database, **{"slot": slot, "publication": slot, **options})

        on_exit.push_async_callback(make().drop)
        yield make


@pytest.fixture
async def source(make_source: MakeSource, session: Session) -> PostgresSource:
    """Reads `orders`."""
    await session.execute("create table orders (id bigint primary key, status text, body text)")
    found = make_source()
    await found.ensure_publication(["orders"])
    await found.prepare()
    return found


async def read(source: PostgresSource, count: int, *, confirm: bool = True) -> list[Any]:
    """The next `count` records, and an error if there are more in the same batches."""
    found: list[Any] = []
    async with asyncio.timeout(LIMIT), aclosing(source.batches()) as batches:
        async for batch in batches:
            found += batch.records
            if confirm:
                await source.confirm(batch.position)
            if len(found) >= count:
                break
    assert len(found) == count
    return found


def told(record: ChangeRecord | Rejected) -> tuple[str, dict[str, Any]]:
    assert isinstance(record, ChangeRecord), record
    return record.event, dict(record.record)


async def test_what_sql_does_is_what_the_source_tells(
    source: PostgresSource, session: Session
) -> None:
    await session.execute("insert into orders values (1, 'open', 'x'), (2, null, 'y')")
    await session.execute("update orders set status = 'paid' where id = 1")
    await session.execute("delete from orders where id = 2")
    records = await read(source, 4)
    assert [told(record) for record in records] == [
        ("created", {"id": 1, "status": "open", "body": "x"}),
        ("created", {"id": 2, "status": None, "body": "y"}),
        ("updated", {"id": 1, "status": "paid", "body": "x"}),
        ("deleted", {"id": 2}),
    ]
    assert {(r.source, r.namespace, r.object, r.org) for r in records} == {
        ("postgres", "public", "orders", "")
    }
    assert [record.key for record in records] == ["1", "2", "1", "2"]
    assert records[3].unavailable == {"status", "body"}
    assert len({record.event_id for record in records}) == 4


async def test_the_time_of_a_change_is_that_of_its_commit(
    source: PostgresSource, session: Session
) -> None:
    await session.execute("insert into orders values (1)")
    (now,) = await (
        await session.execute("select extract(epoch from clock_timestamp()) * 1000")
    ).fetchone() or (0,)
    (record,) = await read(source, 1)
    assert abs(record.at - float(now)) < 5_000


async def test_rows_from_before_the_slot_are_no_changes(
    make_source: MakeSource, session: Session
) -> None:
    await session.execute("create table orders (id int primary key)")
    await session.execute("insert into orders values (1)")
    source = make_source()
    await source.ensure_publication(["orders"])
    await source.prepare()
    await session.execute("insert into orders values (2)")
    assert [told(r) for r in await read(source, 1)] == [("created", {"id": 2})]


async def test_a_rolled_back_transaction_tells_nothing(
    source: PostgresSource, session: Session
) -> None:
    async with session.transaction(force_rollback=True):
        await session.execute("insert into orders values (1)")
    await session.execute("insert into orders values (2)")
    assert [r.key for r in await read(source, 1)] == ["2"]


async def test_tables_are_read_as_soon_as_they_are_asked_for(
    source: PostgresSource, session: Session
) -> None:
    await session.execute("create schema crm create table contact (id int primary key)")
    async with asyncio.timeout(LIMIT), aclosing(source.batches()) as batches:
        await session.execute("insert into crm.contact values (1)")
        await session.execute("insert into orders values (1)")
        batch = await anext(batches)
        assert [r.object for r in batch.records if isinstance(r, ChangeRecord)] == ["orders"]
        unknown = await source.ensure_publication(["crm.contact", "nowhere.orders", "pg_class"])
        assert unknown == ("nowhere.orders", "pg_class")
        await session.execute("insert into orders values (2)")
        await session.execute("insert into crm.contact values (2)")
        batch = await anext(batches)
        (record,) = batch.records
        assert isinstance(record, ChangeRecord)
        assert (record.namespace, record.object, record.key) == ("crm", "contact", "2")
    assert await source.ensure_publication([]) == ()
    await session.execute("insert into crm.contact values (3)")
    await source.ensure_publication(["orders"])
    await session.execute("insert into orders values (4)")
    records = await read(source, 3)
    assert [(r.object, r.key) for r in records] == [
        ("orders", "1"),
        ("contact", "2"),
        ("orders", "4"),
    ]


async def test_a_private_schema_is_read_only_by_its_name(
    make_source: MakeSource, session: Session
) -> None:
    await session.execute("create schema inner_rooms create table orders (id int primary key)")
    await session.execute("create table orders (id int primary key)")
    source = make_source(private=["inner_rooms"])
    await source.ensure_publication(["orders"])
    await source.prepare()
    await session.execute("insert into inner_rooms.orders values (1)")
    await session.execute("insert into public.orders values (2)")
    assert [r.key for r in await read(source, 1)] == ["2"]
    assert await source.ensure_publication(["inner_rooms.orders"]) == ()
    await session.execute("insert into inner_rooms.orders values (3)")
    assert [r.key for r in await read(source, 1)] == ["3"]


TYPES: list[tuple[str, str, Any]] = [
    ("smallint", "-1", -1),
    ("integer", "2147483647", 2147483647),
    ("bigint", "9007199254740993", 9007199254740993),
    ("numeric(10,2)", "150.25", 150.25),
    ("numeric(10,2)", "150.00", 150),
    ("numeric", "123456789012345678901234567890", "123456789012345678901234567890"),
    ("numeric", "0.12345678901234567890", "0.12345678901234567890"),
    ("numeric", "'NaN'", "NaN"),
    ("real", "1.1", 1.1),
    ("double precision", "0.1", 0.1),
    ("double precision", "'Infinity'", "Infinity"),
    ("boolean", "true", True),
    ("boolean", "false", False),
    ("text", "E'a\\'b\\n\\U0001F600'", "a'b\n\U0001f600"),
    ("varchar(5)", "'abc'", "abc"),
    ("char(3)", "'a'", "a  "),
    ("json", """'{"b": 1, "a": [1.50]}'""", {"b": 1, "a": [1.5]}),
    ("jsonb", """'{"n": 9007199254740993, "x": null}'""", {"n": 9007199254740993, "x": None}),
    ("jsonb", "'12345678901234567890123'", "12345678901234567890123"),
    ("jsonb", "'null'", None),
    ("date", "'2024-02-29'", "2024-02-29"),
    ("time", "'12:34:56.5'", "12:34:56.5"),
    ("timestamp", "'2024-02-29 12:34:56.123'", "2024-02-29T12:34:56.123"),
    ("timestamptz", "'2024-02-29 12:34:56+02'", "2024-02-29T10:34:56Z"),
    ("timestamptz", "'infinity'", "infinity"),
    ("timestamp", "'0044-03-15 10:00:00 BC'", "0044-03-15 10:00:00 BC"),
    ("interval", "'1 day 2 hours'", "P1DT2H"),
    ("uuid", "'0e8f0b4e-2f5b-4a52-8d0a-5f5f3d8a9b11'", "0e8f0b4e-2f5b-4a52-8d0a-5f5f3d8a9b11"),
    ("bytea", r"'\x0001ff'", "AAH/"),
    ("inet", "'10.0.0.1/8'", "10.0.0.1/8"),
    ("int[]", "'{1,NULL,3}'", [1, None, 3]),
    ("int[]", "'{{1,2},{3,4}}'", [[1, 2], [3, 4]]),
    ("int[]", "'[0:1]={1,2}'", [1, 2]),
    ("int[]", "'{}'", []),
    (
        "text[]",
        r"""array['a,b', 'c"d', 'e\f', '{g}', 'NULL', '', null, 'h;i', 'j k']""",
        ["a,b", 'c"d', "e\\f", "{g}", "NULL", "", None, "h;i", "j k"],
    ),
    ("numeric[]", "'{1.5,2.00}'", [1.5, 2]),
    ("jsonb[]", """array['{"a": [1, "x"]}']::jsonb[]""", [{"a": [1, "x"]}]),
    ("timestamptz[]", "array['2024-02-29 12:00:00+00']::timestamptz[]", ["2024-02-29T12:00:00Z"]),
    ("bytea[]", r"array['\x00']::bytea[]", ["AA=="]),
    ("box[]", "'{(2,2),(1,1);(4,4),(3,3)}'", ["(2,2),(1,1)", "(4,4),(3,3)"]),
    ("int2vector", "'1 2'", "1 2"),
    ("oid", "42", 42),
    ("int4range", "'[1,3)'", "[1,3)"),
    ("money_cents", "12.50", 12.5),
    ("mood", "'happy'", "happy"),
    ("mood[]", "'{happy,sad}'", ["happy", "sad"]),
    ("money_cents[]", "'{12.50}'", [12.5]),
    ("pair", "row(1,'x y')", '(1,"x y")'),
]


async def test_every_type_is_the_json_it_means(make_source: MakeSource, session: Session) -> None:
    await session.execute("create type mood as enum ('happy', 'sad')")
    await session.execute("create domain money_cents as numeric(10,2) check (value >= 0)")
    await session.execute("create type pair as (a int, b text)")
    columns = ", ".join(f"c{n} {name}" for n, (name, _, _) in enumerate(TYPES))
    await session.execute(f"create table every (id int primary key, {columns})".encode())
    source = make_source()
    await source.ensure_publication(["every"])
    await source.prepare()
    values = ", ".join(value for _, value, _ in TYPES)
    await session.execute(f"insert into every values (1, {values})".encode())
    await session.execute("insert into every (id) values (2)")
    full, empty = await read(source, 2)
    for number, (name, value, wanted) in enumerate(TYPES):
        found = full.record[f"c{number}"]
        assert (found, type(found)) == (wanted, type(wanted)), (name, value)
    assert set(empty.record.values()) == {2, None}


async def test_the_session_settings_of_a_role_do_not_change_the_values(
    make_source: MakeSource, session: Session, database: str
) -> None:
    name = psycopg.conninfo.conninfo_to_dict(database)["dbname"]
    for setting in ("timezone = 'Asia/Tokyo'", "datestyle = 'German'", "bytea_output = 'escape'"):
        await session.execute(f"alter database {name} set {setting}".encode())
    await session.execute("create table times (id int primary key, at timestamptz, raw bytea)")
    source = make_source()
    await source.ensure_publication(["times"])
    await source.prepare()
    await session.execute(r"insert into times values (1, '2024-02-29 12:00:00Z', '\x00')")
    (record,) = await read(source, 1)
    assert dict(record.record) == {"id": 1, "at": "2024-02-29T12:00:00Z", "raw": "AA=="}


async def test_an_unchanged_large_value_is_unavailable(
    source: PostgresSource, session: Session
) -> None:
    await session.execute("alter table orders alter column body set storage external")
    await session.execute("insert into orders values (1, 'open', repeat('x', 10000))")
    await session.execute("update orders set status = 'paid'")
    created, updated = await read(source, 2)
    assert len(created.record["body"]) == 10000
    assert told(updated) == ("updated", {"id": 1, "status": "paid"})
    assert (updated.before, updated.unavailable) == (None, {"body"})


async def test_with_replica_identity_full_the_state_before_is_whole(
    source: PostgresSource, session: Session
) -> None:
    await session.execute("alter table orders replica identity full")
    await session.execute("alter table orders alter column body set storage external")
    await session.execute("insert into orders values (1, 'open', repeat('x', 10000))")
    await session.execute("update orders set status = 'paid'")
    await session.execute("delete from orders")
    created, updated, deleted = await read(source, 3)
    body = "x" * 10000
    assert created.before is None
    assert told(updated) == ("updated", {"id": 1, "status": "paid", "body": body})
    assert updated.before == {"id": 1, "status": "open", "body": body}
    assert told(deleted) == ("deleted", {"id": 1, "status": "paid", "body": body})
    assert [r.unavailable for r in (created, updated, deleted)] == [frozenset()] * 3
    assert [r.key for r in (created, updated, deleted)] == ["1", "1", "1"]


async def test_a_changed_key_is_one_update_that_tells_the_old_key(
    source: PostgresSource, session: Session
) -> None:
    await session.execute("insert into orders values (1, 'open')")
    await session.execute("update orders set id = 2")
    _, updated = await read(source, 2)
    assert told(updated) == ("updated", {"id": 2, "status": "open", "body": None})
    assert (updated.before, updated.key) == ({"id": 1}, "2")


async def test_a_key_of_several_columns_is_told_in_order(
    make_source: MakeSource, session: Session
) -> None:
    await session.execute("create table line (b text, a int, primary key (b, a))")
    source = make_source()
    await source.ensure_publication(["line"])
    await source.prepare()
    await session.execute("insert into line values ('x', 1)")
    (record,) = await read(source, 1)
    assert record.key == '["x",1]'


async def test_what_is_not_confirmed_is_told_again_with_the_same_ids(
    make_source: MakeSource, session: Session
) -> None:
    await session.execute("create table orders (id int primary key)")
    await session.execute("create table log (line text)")
    await session.execute("create table whole (id int primary key)")
    await session.execute("alter table whole replica identity full")
    first, second = make_source(), make_source()
    await first.ensure_publication(["orders", "log", "whole"])
    await first.prepare()
    await session.execute("insert into orders select * from generate_series(1, 50)")
    await session.execute("insert into log select 'same' from generate_series(1, 50)")
    await session.execute("insert into whole select * from generate_series(1, 50)")
    await session.execute("update whole set id = id + 100")
    once = await read(first, 200, confirm=False)
    again = await read(second, 200)
    assert once == again
    assert len({record.event_id for record in once}) == 200


async def test_rows_that_share_a_log_position_keep_their_ids_wherever_reading_begins(
    make_source: MakeSource, session: Session
) -> None:
    async def copy() -> None:
        async with session.cursor().copy("copy log from stdin") as lines:
            await lines.write("same\n" * 20)

    await session.execute("create table log (line text)")
    source = make_source()
    await source.ensure_publication(["log"])
    await source.prepare()
    await copy()
    async with asyncio.timeout(LIMIT), aclosing(source.batches()) as batches:
        position = (await anext(batches)).position
    await copy()
    whole = await read(make_source(), 40, confirm=False)
    rest = await read(make_source(position=position), 20)
    assert rest == whole[20:]
    assert len({record.event_id for record in whole}) == 40
    assert len({record.event_id.split("/")[0] for record in whole}) < 40


async def test_reading_goes_on_after_what_was_confirmed(
    make_source: MakeSource, source: PostgresSource, session: Session
) -> None:
    await session.execute("insert into orders values (1)")
    await read(source, 1)
    await session.execute("insert into orders values (2)")
    assert [r.key for r in await read(make_source(), 1)] == ["2"]


async def test_a_position_that_the_caller_kept_counts_even_if_the_server_never_heard_of_it(
    make_source: MakeSource, source: PostgresSource, session: Session
) -> None:
    await session.execute("insert into orders values (1)")
    async with asyncio.timeout(LIMIT), aclosing(source.batches()) as batches:
        position = (await anext(batches)).position
    await session.execute("insert into orders values (2)")
    assert [r.key for r in await read(make_source(position=position), 1)] == ["2"]


async def test_a_large_transaction_comes_in_parts_and_is_confirmed_at_its_end(
    make_source: MakeSource, source: PostgresSource, session: Session
) -> None:
    small = make_source(max_records=100)
    await session.execute("insert into orders values (0)")
    await session.execute("insert into orders select * from generate_series(1, 300)")
    parts: list[Batch] = []
    async with asyncio.timeout(LIMIT), aclosing(small.batches()) as batches:
        async for part in batches:
            parts.append(part)
            await small.confirm(part.position)
            if sum(len(each.records) for each in parts) >= 301 and (
                part.position > parts[0].position
            ):
                break
    assert max(len(part.records) for part in parts) == 100
    assert len({part.position for part in parts[:-1]}) == len(parts) - 1 or all(
        part.position < parts[-1].position for part in parts[:-1]
    )
    await session.execute("insert into orders values (1000)")
    assert [r.key for r in await read(make_source(), 1)] == ["1000"]


async def test_an_unfinished_part_of_a_transaction_is_told_again(
    make_source: MakeSource, source: PostgresSource, session: Session
) -> None:
    small = make_source(max_records=100)
    await session.execute("insert into orders select * from generate_series(1, 300)")
    async with asyncio.timeout(LIMIT), aclosing(small.batches()) as batches:
        part = await anext(batches)
        await small.confirm(part.position)
    assert len(await read(make_source(), 300)) == 300


async def test_small_transactions_come_together(source: PostgresSource, session: Session) -> None:
    for number in range(20):
        await session.execute("insert into orders values (%s)", (number,))
    async with asyncio.timeout(LIMIT), aclosing(source.batches()) as batches:
        sizes = [len((await anext(batches)).records)]
        while sum(sizes) < 20:
            sizes.append(len((await anext(batches)).records))
    assert len(sizes) < 20


async def test_a_truncation_is_counted_and_no_change(
    source: PostgresSource, session: Session
) -> None:
    await session.execute("truncate orders")
    await session.execute("insert into orders values (1)")
    ignored = 0
    async with asyncio.timeout(LIMIT), aclosing(source.batches()) as batches:
        batch = await anext(batches)
        ignored = batch.ignored.get("truncate", 0)
    assert (len(batch.records), ignored) == (1, 1)


async def test_what_does_not_concern_us_is_confirmed_in_passing(
    make_source: MakeSource, source: PostgresSource, session: Session
) -> None:
    quick = make_source(status_interval=0.2)
    await session.execute("create table other (id int)")
    async with asyncio.timeout(LIMIT), aclosing(quick.batches()) as batches:
        waiting = asyncio.ensure_future(anext(batches))
        await session.execute("insert into other select * from generate_series(1, 1000)")
        row = await (
            await session.execute("select pg_current_wal_lsn() - '0/0'::pg_lsn")
        ).fetchone()
        assert row is not None
        while quick.confirmed < int(row[0]):  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0)
        await session.execute("insert into orders values (1)")
        batch = await waiting
        confirmed = quick.confirmed
        await session.execute("insert into other select * from generate_series(1, 1000)")
        assert confirmed < batch.position
    assert [r.key for r in await read(make_source(), 1)] == ["1"]


async def test_shape_turns_a_row_into_what_it_stands_for(
    make_source: MakeSource, source: PostgresSource, session: Session
) -> None:
    def shape(change: ChangeRecord) -> ChangeRecord:
        if change.key == "13":
            raise ValueError("thirteen")
        return replace(change, object="sale", org="acme")

    shaped = make_source(shape=shape)
    await session.execute("insert into orders values (1), (13)")
    sale, bad = await read(shaped, 2)
    assert (sale.object, sale.org) == ("sale", "acme")
    assert isinstance(bad, Rejected)
    assert "thirteen" in bad.reason
    assert "public.orders" in bad.reason


async def test_a_row_that_cannot_be_kept_is_rejected_and_holds_nothing_up(
    make_source: MakeSource, session: Session
) -> None:
    await session.execute("create table doc (id int primary key, body json)")
    source = make_source()
    await source.ensure_publication(["doc"])
    await source.prepare()
    await session.execute(r"""insert into doc values (1, '"a\u0000b"'), (2, '1')""")
    bad, good = await read(source, 2)
    assert isinstance(bad, Rejected)
    assert "NUL" in bad.reason
    assert b"u0000" in bad.raw
    assert told(good) == ("created", {"id": 2, "body": 1})


async def test_a_changed_table_is_read_as_it_is_then(
    source: PostgresSource, session: Session
) -> None:
    await session.execute("insert into orders values (1)")
    await session.execute("alter table orders add column total numeric(8,2) default 5")
    await session.execute("insert into orders values (2)")
    await session.execute("alter table orders rename column total to sum")
    await session.execute("insert into orders values (3)")
    records = await read(source, 3)
    assert [sorted(r.record) for r in records] == [
        ["body", "id", "status"],
        ["body", "id", "status", "total"],
        ["body", "id", "status", "sum"],
    ]


async def test_a_second_reader_waits_and_takes_over(
    make_source: MakeSource, source: PostgresSource, session: Session
) -> None:
    turned_away = asyncio.Event()
    second = make_source(on_trouble=lambda error, delay: turned_away.set())
    async with asyncio.timeout(LIMIT):
        async with aclosing(source.batches()) as batches:
            await session.execute("insert into orders values (1)")
            await source.confirm((await anext(batches)).position)
            others = second.batches()
            waiting = asyncio.ensure_future(anext(others))
            await turned_away.wait()
            await session.execute("insert into orders values (2)")
            assert len((await anext(batches)).records) == 1
        batch = await waiting
        await others.aclose()
    assert [r.key for r in batch.records if isinstance(r, ChangeRecord)] == ["2"]


# --- what goes wrong ----------------------------------------------------------------------------


async def test_a_slot_that_vanished_is_an_error_and_no_silent_gap(
    make_source: MakeSource, source: PostgresSource, session: Session
) -> None:
    await session.execute("insert into orders values (1)")
    await read(source, 1)
    await make_source().drop()
    with pytest.raises(SlotLostError, match="is gone"):
        await read(source, 1)
    with pytest.raises(SlotLostError, match="is gone"):
        await make_source(position=1).prepare()


async def test_a_slot_of_another_plug_in_is_not_touched(
    make_source: MakeSource, session: Session
) -> None:
    source = make_source()
    name = source._catalog.slot
    await session.execute("select pg_create_physical_replication_slot(%s)", (name,))
    with pytest.raises(ConnectorError, match="belongs to something else"):
        await source.prepare()


@pytest.mark.parametrize("name", ["", "Upper", "a-b", 'a"b', "x" * 64])
def test_a_name_that_cannot_name_a_slot_is_refused(name: str) -> None:
    with pytest.raises(ConnectorError, match="cannot name a slot"):
        PostgresSource("", slot=name)


@pytest.mark.parametrize("how", ["stop", "kill"])
async def test_a_restart_of_the_server_loses_and_repeats_nothing_confirmed(
    make_stack: StackMaker, how: str
) -> None:
    stack = await make_stack("postgres")
    url = stack.database_url
    assert url is not None
    lost = asyncio.Event()
    source = PostgresSource(url, on_trouble=lambda error, delay: lost.set())
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
        await session.execute("create table orders (id int primary key)")
        await source.ensure_publication(["orders"])
        await source.prepare()
        await session.execute("insert into orders values (1)")
    async with asyncio.timeout(3 * LIMIT), aclosing(source.batches()) as batches:
        batch = await anext(batches)
        await source.confirm(batch.position)
        waiting = asyncio.ensure_future(anext(batches))
        server = stack.servers["postgres"]
        await (server.stop() if how == "stop" else server.kill())
        await lost.wait()
        await server.start()
        async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
            await session.execute("insert into orders values (2)")
        batch = await waiting
        assert [r.key for r in batch.records if isinstance(r, ChangeRecord)] == ["2"]
