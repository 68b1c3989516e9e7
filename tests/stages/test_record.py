from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from permaflow.errors import InputError, RefusedError, StoreError
from permaflow.errors import UnreachableError as Unreachable
from permaflow.ports import Filter, Order
from permaflow.task import Done, Reject, Retry
from permaflow.testing.task import check_task_type, config_of, make_context
from stages.record import task_type


@dataclass
class Port:
    """Gives the prepared answer (or raises it) and keeps what was asked."""

    answer: Any = None
    asked: list[tuple[Any, ...]] = field(default_factory=list)

    def __getattr__(self, name):
        async def call(*arguments, **named):
            self.asked.append((name, *arguments, named))
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer

        return call


KEY = make_context().step_key


async def perform(port, **config):
    context = make_context(records=port, tables=port, attempt=2)
    return await task_type.run(config_of(task_type, **config), context)


RECORD = {"id": "r", "object": "order", "data": {"a": 1}, "version": 1}


@pytest.mark.parametrize(
    "sound",
    [
        {"operation": "create", "object": "order", "data": {}},
        {"operation": "get", "object": "order", "id": 5},
        {"operation": "update", "object": "order", "id": "r", "data": {"a": 1}},
        {"operation": "delete", "object": "order", "id": "r"},
        {"operation": "create", "source": "s", "table": "t", "values": {}},
        {"operation": "get", "source": "s", "table": "t", "match": {"id": 1}},
        {
            "operation": "update",
            "source": "s",
            "table": "t",
            "match": {"id": 1},
            "values": {"a": 1},
        },
        {"operation": "delete", "source": "s", "table": "t", "match": {"id": 1}},
        {"operation": "upsert", "object": "order", "id": 5, "data": {"a": 1}},
        {"operation": "query", "object": "order", "sort": "-a", "limit": 5},
        {"operation": "upsert", "source": "s", "table": "t", "match": {"id": 1}},
        {"operation": "query", "source": "s", "table": "t", "filter": [{"field": "a"}]},
    ],
)
def test_it_keeps_the_promises_of_a_task_type(sound):
    check_task_type(task_type, sound=sound, unsound={**sound, "operation": "drop"})
    check_task_type(task_type, sound=sound, unsound={**sound, "more": 1})


@pytest.mark.parametrize(
    "unsound",
    [
        {"operation": "delete", "source": "s", "table": "t", "match": {}},
        {"operation": "update", "source": "s", "table": "t", "match": {"a": 1}, "values": {}},
        {"operation": "create", "object": "o", "table": "t", "data": {}},
        {"operation": "create", "source": "s", "values": {}},
        {"operation": "get", "object": "o", "id": True},
        {"operation": ["get"], "object": "o", "id": "1"},
        {"operation": "query", "object": "o", "filter": [{"field": "a", "op": "like"}]},
        {"operation": "query", "object": "o", "filter": [{"field": "a", "op": "in", "value": 1}]},
        {"operation": "query", "object": "o", "filter": [{"field": "a", "op": "contains"}]},
        {"operation": "query", "object": "o", "limit": 1001},
        {"operation": "query", "object": "o", "sort": ["a", "b", "c"]},
        {"operation": "query", "object": "o", "sort": "--a"},
    ],
)
def test_configs_that_mean_nothing_are_refused(unsound):
    with pytest.raises(ValueError):
        config_of(task_type, **unsound)


async def test_all_attempts_of_a_step_create_the_same_record():
    first, second = Port(RECORD), Port(RECORD)
    config = {"operation": "create", "object": "order", "data": {"a": 1}}

    assert await perform(first, **config) == Done({"count": 1, "record": RECORD})
    await perform(second, **config)

    [(name, kind, data, named)] = first.asked
    assert (name, kind, data) == ("create", "order", {"a": 1})
    assert len(named["record_id"]) == 36
    assert second.asked == first.asked


async def test_another_step_creates_another_record():
    port = Port(RECORD)
    config = config_of(task_type, operation="create", object="order", data={})
    for node in ("a", "b"):
        await task_type.run(config, make_context(records=port, node=node))

    assert port.asked[0] != port.asked[1]


async def test_an_id_of_ones_own_is_taken_unless_it_stands_for_something_else():
    config = {"operation": "create", "object": "order", "id": 7}

    done = await perform(Port(RECORD), **config, data={"a": 1})
    taken = await perform(Port(RECORD), **config, data={"a": 2})

    assert isinstance(done, Done)
    assert isinstance(taken, Reject)
    assert taken.code == "exists"


async def test_a_record_that_is_not_there_is_nothing_to_get_and_nothing_to_delete():
    assert await perform(Port(), operation="get", object="o", id="1") == Done(
        {"count": 0, "record": None}
    )
    assert await perform(Port(), operation="delete", object="o", id="1") == Done(
        {"count": 0, "record": None}
    )


async def test_a_record_that_is_not_there_cannot_be_updated():
    verdict = await perform(Port(), operation="update", object="o", id="1", data={})

    assert verdict == Reject("There is no o '1'.", code="not_found")


async def test_a_deleted_record_is_given_back():
    port = Port(RECORD)

    assert await perform(port, operation="delete", object="order", id="r") == Done(
        {"count": 1, "record": RECORD}
    )
    assert [call[0] for call in port.asked] == ["get", "delete"]


async def test_rows_are_written_with_the_key_of_the_step():
    port = Port({"id": 1})
    made = await perform(port, operation="create", source="s", table="t", values={"a": 1})

    assert made == Done({"count": 1, "record": {"id": 1}})
    assert port.asked == [("create", "s", "t", {"a": 1}, {"key": KEY})]


async def test_several_rows_are_counted():
    port = Port([{"id": 1}, {"id": 2}])
    rows = {"count": 2, "record": {"id": 1}, "records": [{"id": 1}, {"id": 2}]}

    assert await perform(
        port, operation="update", source="s", table="t", match={"a": 1}, values={"a": 2}
    ) == Done(rows)
    assert await perform(port, operation="delete", source="s", table="t", match={"a": 1}) == Done(
        rows
    )
    assert [call[-1] for call in port.asked] == [{"key": KEY}] * 2
    assert await perform(
        Port([]), operation="delete", source="s", table="t", match={"a": 1}
    ) == Done({"count": 0, "record": None, "records": []})


async def test_one_row_is_read():
    port = Port({"id": 1})

    assert await perform(port, operation="get", source="s", table="t", match={"id": 1}) == Done(
        {"count": 1, "record": {"id": 1}}
    )


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (InputError("no such column"), Reject("no such column", code="invalid_input")),
        (RefusedError("unique"), Reject("unique", code="refused")),
        (Unreachable("gone"), Retry("gone", code="connect")),
        (StoreError("busy"), Retry("busy", code="store")),
    ],
)
async def test_trouble_is_a_verdict(error, verdict):
    assert await perform(Port(error), operation="get", object="o", id="1") == verdict


async def test_questions_are_asked_as_they_are_written():
    port = Port([RECORD, RECORD])
    condition = {"field": "a", "op": "gt", "value": 1}
    verdict = await perform(
        port, operation="query", object="order", filter=[condition], sort=["-a", "b"], limit=7
    )

    assert verdict == Done({"count": 2, "record": RECORD, "records": [RECORD, RECORD]})
    order = [Order("a", True), Order("b", False)]
    assert port.asked == [("query", "order", [Filter("a", "gt", 1)], order, 7, {})]
    await perform(port, operation="query", source="s", table="t")
    assert port.asked[1] == ("query", "s", "t", [], [], 100, {})


async def test_upserts_of_rows_carry_the_key_of_the_step():
    port = Port(RECORD)
    config = {"operation": "upsert", "source": "s", "table": "t", "match": {"id": 1}}
    assert await perform(port, **config, values={"a": 2}) == Done({"count": 1, "record": RECORD})
    assert port.asked == [("upsert", "s", "t", {"id": 1}, {"a": 2}, {"key": KEY})]
    await perform(port, operation="upsert", object="order", id="r", data={"a": 2})
    assert port.asked[1] == ("upsert", "order", "r", {"a": 2}, {})
