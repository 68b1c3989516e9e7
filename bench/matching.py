"""Change events per second and core: decoding a message and matching it against many triggers.

Every trigger watches the same object, a quarter each with `eq`, `in`, `gt` and `lt` on fields of
the record, and every other one with a second condition. Measured twice: no change fires any of
them, and every change fires exactly one. Messages are Debezium's JSON without its schema, of the
table's usual width (about 1 KB), all different, made beforehand.
"""

from __future__ import annotations

import time
from typing import Any

import orjson

from bench.report import Line
from connectors.debezium import Debezium
from permaflow.changes import EVENTS, ChangeRecord
from permaflow.plan import Condition, TriggerSpec
from pipeline.matching import ActiveTrigger, TriggerIndex

TOPIC = "shop.public.orders"
MESSAGES = 2_000
SIZES = {"quick": 5_000, "full": 100_000, "long": 500_000}
"""Events."""

TARGET = 50_000


def triggers(count: int) -> list[ActiveTrigger]:
    """Triggers that a customer below zero, a total in [0, 100) and status `open` do not fire."""
    found = []
    for n in range(count):
        first = (
            Condition(("customer", "id"), "eq", n),
            Condition(("status",), "in", [f"paid-{n}", f"sent-{n}"]),
            Condition(("total",), "gt", 100 + n),
            Condition(("total",), "lt", -n),
        )[n % 4]
        second = (Condition(("currency",), "eq", "EUR"),) if n % 8 < 4 else ()
        spec = TriggerSpec("start", "record", "orders", EVENTS, (*second, first))
        found.append(ActiveTrigger(f"org-{n % 100}", f"w{n}", f"v{n}", spec))
    return found


def message(number: int, customer: int) -> bytes:
    """An update of an order, as Debezium writes it."""
    row = {
        "id": number,
        "customer": {"id": customer, "name": f"Customer {number}", "city": "Rotterdam"},
        "status": "open",
        "total": number % 100 + 0.25,
        "currency": "USD",
        "note": "leave it at the door, please, and ring twice",
        "street": "Witte de Withstraat 50",
        "postcode": "3012 BR",
        "country": "NL",
        "channel": "web",
        "campaign": "black-friday-2025",
        "ip": "203.0.113.7",
        "agent": "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0",
        "gift": False,
        "weight": 1.25,
        "created": 1_763_700_000_000_000 + number,
        "updated": 1_763_700_000_000_000 + number,
        "lines": [{"sku": f"sku-{number}", "count": 2}, {"sku": "sku-1", "count": 1}],
    }
    source = {
        "version": "3.3.1.Final",
        "connector": "postgresql",
        "name": "shop",
        "ts_ms": 1_763_700_000_000,
        "snapshot": "false",
        "db": "shop",
        "sequence": f'["{24_023_119 + number}","{24_023_128 + number}"]',
        "ts_us": 1_763_700_000_000_000,
        "ts_ns": 1_763_700_000_000_000_000,
        "schema": "public",
        "table": "orders",
        "txId": 555,
        "lsn": 24_023_128 + number,
        "xmin": None,
    }
    times = {"ts_ms": 1_763_700_000_100, "ts_us": 1_763_700_000_100_000, "ts_ns": 17 * 10**17}
    return orjson.dumps(
        {"before": None, "after": row, "source": source, "transaction": None, "op": "u", **times}
    )


def measure(
    index: TriggerIndex, messages: list[tuple[bytes, bytes]], events: int
) -> dict[str, Any]:
    decoder = Debezium("shop")
    fired, done = 0, 0
    started = time.process_time()
    while done < events:
        for key, value in messages:
            change = decoder.decode(key, value, TOPIC, 0, done)
            assert isinstance(change, ChangeRecord)
            fired += len(index.match(change))
            done += 1
    seconds = time.process_time() - started
    return {"events": done, "fired": fired, "events_per_s": round(done / seconds)}


def run(events: int = 100_000, count: int = 10_000) -> dict[str, Any]:
    """Events per second of one core, and what it takes to index the triggers."""
    active = triggers(count)
    started = time.process_time()
    index = TriggerIndex(active)
    indexed = time.process_time() - started
    keys = [orjson.dumps({"id": n}) for n in range(MESSAGES)]
    none = [(key, message(n, -1)) for n, key in enumerate(keys)]
    # Number 4 of every 8 looks for its own number as the customer, and at nothing else.
    one = [(key, message(n, n % (count // 8) * 8 + 4)) for n, key in enumerate(keys)]
    return {
        "triggers": count,
        "message_bytes": len(none[0][1]),
        "index_s": round(indexed, 3),
        "none_matching": measure(index, none, events),
        "one_matching": measure(index, one, events),
    }


async def bench(scale: str) -> dict[str, Any]:
    return run(SIZES[scale])


def lines(result: dict[str, Any]) -> list[Line]:
    none, one = result["none_matching"]["events_per_s"], result["one_matching"]["events_per_s"]
    what = f"CDC events/s and core, decoded and matched with {result['triggers']:,} triggers"
    return [
        Line(f"{what}, none matching", f"{none:,}", f"≥ {TARGET:,}", none >= TARGET),
        Line("the same, each matching one", f"{one:,}"),
    ]
