"""Payments on a Kafka topic, in the envelopes that Debezium writes for a table `payments`."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from typing import Any

import orjson

from pipeline.demo.shop import Order

TOPIC = "shop.public.payments"
PARTITIONS = 4
METHODS = ("card", "card", "transfer", "invoice")
INVOICE = "invoice"
"""Payments of this kind start a workflow."""


async def create_topic(bootstrap: str) -> None:
    """Make the topic, unless it is there."""
    from aiokafka import admin as library
    from aiokafka.errors import TopicAlreadyExistsError

    kafka: Any = library  # its types are partial
    admin = kafka.AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([kafka.NewTopic(TOPIC, PARTITIONS, 1)])
    except TopicAlreadyExistsError:
        pass
    finally:
        await admin.close()


class Payments:
    """Sends a message for each paid order. `run` ends after `close`, when all are acknowledged.

    `sent` and `invoices` count what the broker has acknowledged.
    """

    def __init__(self, bootstrap: str) -> None:
        self.sent = 0
        self.invoices = 0
        self._bootstrap = bootstrap
        self._orders: asyncio.Queue[list[Order] | None] = asyncio.Queue()
        self._random = random.Random()
        self._lsn = time.time_ns()

    def add(self, orders: list[Order]) -> None:
        self._orders.put_nowait(orders)

    def close(self) -> None:
        """Send what is left, and no more."""
        self._orders.put_nowait(None)

    async def run(self) -> None:
        import aiokafka

        kafka: Any = aiokafka  # its types are partial
        producer = kafka.AIOKafkaProducer(bootstrap_servers=self._bootstrap, acks="all")
        await producer.start()
        try:
            while (orders := await self._orders.get()) is not None:
                await self._send(producer, orders)
        finally:
            await producer.stop()

    async def _send(self, producer: Any, orders: Sequence[Order]) -> None:
        receipts, invoices = [], 0
        for order in orders:
            method = self._random.choice(METHODS)
            invoices += method == INVOICE
            key, value = self.envelope(order, method)
            receipts.append(await producer.send(TOPIC, value, key=key))
        for receipt in receipts:
            await receipt
        self.sent += len(receipts)
        self.invoices += invoices

    def envelope(self, order: Order, method: str) -> tuple[bytes, bytes]:
        """Key and value of a message, without schema."""
        now = time.time_ns() // 1_000_000
        self._lsn += 1
        row = {
            "id": order.id,
            "order_id": order.id,
            "amount": float(order.amount),
            "method": method,
        }
        source = {
            "connector": "postgresql",
            "name": "shop",
            "ts_ms": now,
            "snapshot": "false",
            "db": "shop",
            "schema": "public",
            "table": "payments",
            "txId": order.id,
            "lsn": self._lsn,
        }
        value = {"before": None, "after": row, "source": source, "op": "c", "ts_ms": now}
        return orjson.dumps({"id": order.id}), orjson.dumps({**value, "transaction": None})
