"""The shop: it takes orders into PostgreSQL and moves them on, and knows what it did."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, LiteralString, cast

import psycopg

from pipeline.store.queries import load

TICK = 0.05
PAID_AFTER = 1.0
SHIPPED_AFTER = 1.0
LARGE = 100
"""Orders above this are announced."""

CUSTOMERS = ("Ada", "Bela", "Chidi", "Dalia", "Emre", "Freya", "Goran", "Hana", "Ines", "Jun")

Connection = psycopg.AsyncConnection[tuple[Any, ...]]

_QUERIES = load(Path(__file__).parent)


def statement(name: str) -> LiteralString:
    """A statement of shop.sql, as literal as if it stood in the code."""
    text: LiteralString = cast(Any, _QUERIES[f"shop.{name}"])
    return text


@dataclass(frozen=True, slots=True)
class Order:
    """An order that is in the table."""

    id: int
    amount: Decimal


class Shop:
    """`paid` is told of every batch of orders that has been paid. `run` ends after `close`."""

    def __init__(
        self, connection: Connection, rate: float, paid: Callable[[list[Order]], object]
    ) -> None:
        self.placed = 0
        self.large = 0
        self.paid = 0
        self.shipped = 0
        self._connection = connection
        self._rate = rate
        self._tell_paid = paid
        self._to_pay: deque[tuple[float, Order]] = deque()
        self._to_ship: deque[tuple[float, Order]] = deque()
        self._closed = asyncio.Event()
        self._random = random.Random()

    async def run(self) -> None:
        """Keep the rate: after a pause, orders come that were due meanwhile."""
        began = time.monotonic()
        while not self._closed.is_set():
            now = time.monotonic()
            await self._place(int((now - began) * self._rate) - self.placed)
            await self._pay(_due(self._to_pay, now))
            await self._ship(_due(self._to_ship, now))
            try:
                await asyncio.wait_for(self._closed.wait(), TICK)
            except TimeoutError:
                continue

    def close(self) -> None:
        """Take no more orders."""
        self._closed.set()

    async def _place(self, count: int) -> None:
        if count <= 0:
            return
        values = {
            "customers": self._random.choices(CUSTOMERS, k=count),
            "amounts": [Decimal(self._random.randrange(500, 20_000)) / 100 for _ in range(count)],
        }
        cursor = await self._connection.execute(statement("place"), values)
        orders = [Order(*row) for row in await cursor.fetchall()]
        self.placed += len(orders)
        self.large += sum(order.amount > LARGE for order in orders)
        due = time.monotonic() + PAID_AFTER
        self._to_pay.extend((due, order) for order in orders)

    async def _pay(self, orders: list[Order]) -> None:
        if orders:
            await self._move(orders, "paid")
            self.paid += len(orders)
            due = time.monotonic() + SHIPPED_AFTER
            self._to_ship.extend((due, order) for order in orders)
            self._tell_paid(orders)

    async def _ship(self, orders: list[Order]) -> None:
        if orders:
            await self._move(orders, "shipped")
            self.shipped += len(orders)

    async def _move(self, orders: list[Order], status: str) -> None:
        values = {"ids": [order.id for order in orders], "status": status}
        await self._connection.execute(statement("move"), values)


def _due(waiting: deque[tuple[float, Order]], now: float) -> list[Order]:
    orders = []
    while waiting and waiting[0][0] <= now:
        orders.append(waiting.popleft()[1])
    return orders
