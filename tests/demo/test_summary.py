"""The demo's verdict: it must notice every run that is lost, doubled or not completed."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from connectors.debezium import Debezium
from permaflow.changes import CREATED, ChangeRecord
from pipeline.demo.functions import validate_order
from pipeline.demo.receiver import percentile
from pipeline.demo.shop import Order
from pipeline.demo.summary import Summary
from pipeline.demo.topic import INVOICE, Payments

WELL = Summary(
    seconds=10.0,
    ready_seconds=2.0,
    orders=20,
    payments=15,
    expected={"order-notify": 9, "order-audit": 0},
    runs={"order-notify": {"completed": 9}},
    notified=9,
    repeated=1,
    late=(4.0, 9.0),
)


def test_what_agrees_agrees_also_when_a_notification_came_again() -> None:
    assert WELL.faults == []
    assert WELL.as_json()["agrees"] is True
    assert "None lost, none doubled." in WELL.text()


@pytest.mark.parametrize(
    ("runs", "notified", "word"),
    [
        ({"order-notify": {"completed": 8}}, 9, "lost"),
        ({"order-notify": {"completed": 10}}, 9, "doubled"),
        ({"order-notify": {"completed": 9}, "order-audit": {"completed": 1}}, 9, "doubled"),
        ({"order-notify": {"completed": 8, "failed": 1}}, 9, "not every run is completed"),
        ({"order-notify": {"completed": 8, "running": 1}}, 9, "not every run is completed"),
        ({}, 9, "lost"),
        ({"order-notify": {"completed": 9}}, 8, "8 were notified"),
    ],
)
def test_every_disagreement_is_told(
    runs: dict[str, dict[str, int]], notified: int, word: str
) -> None:
    summary = replace(WELL, runs=runs, notified=notified)
    assert summary.as_json()["agrees"] is False
    assert any(word in fault for fault in summary.faults)
    assert word in summary.text()


async def test_a_payment_is_what_debezium_would_have_sent() -> None:
    payments = Payments("nowhere")
    first = payments.envelope(Order(7, Decimal("19.99")), INVOICE)
    second = payments.envelope(Order(8, Decimal("5.00")), "card")
    decoded = [Debezium().decode(*each, "shop.public.payments") for each in (first, second)]
    one, other = decoded
    assert isinstance(one, ChangeRecord)
    assert isinstance(other, ChangeRecord)
    assert (one.object, one.event, one.key) == ("payments", CREATED, "7")
    assert one.record == {"id": 7, "order_id": 7, "amount": 19.99, "method": "invoice"}
    assert one.event_id != other.event_id


async def test_an_order_that_makes_no_sense_is_told_from_one_that_does() -> None:
    good = await validate_order({"amount": 5.5, "status": "paid"})
    bad = await validate_order({"amount": True, "status": "lost"})
    assert (good["valid"], good["problems"]) == (True, [])
    assert (bad["valid"], len(bad["problems"])) == (False, 2)
    assert (await validate_order(None))["valid"] is False


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([], 0.5) is None
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile(list(map(float, range(100))), 0.99) == 99.0
