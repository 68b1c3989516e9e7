"""Did every order get its runs? What the shop did against what the engine did."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.demo.receiver import Receiver, percentile
from pipeline.demo.shop import Shop
from pipeline.demo.topic import Payments
from pipeline.demo.watching import GOOD

ORDERS, AUDITS, INVOICES = "order-notify", "order-audit", "payment-check"

Runs = Mapping[str, Mapping[str, int]]
"""Workflow → status → count."""


@dataclass(frozen=True, slots=True)
class Summary:
    """The end of a demo. `expected` and `runs` are by workflow."""

    seconds: float
    ready_seconds: float
    orders: int
    payments: int
    expected: Mapping[str, int]
    runs: Runs
    notified: int
    repeated: int
    late: tuple[float | None, float | None]

    @property
    def faults(self) -> list[str]:
        """Every way in which the runs are not what the shop's orders ask for."""
        found = []
        for name, wanted in self.expected.items():
            counts = self.runs.get(name, {})
            started, completed = sum(counts.values()), counts.get(GOOD, 0)
            if started != wanted:
                word = "lost" if started < wanted else "doubled"
                found.append(f"{name}: {wanted} runs are due and {started} were started: {word}.")
            if completed != started:
                others = ", ".join(f"{n} {status}" for status, n in counts.items())
                found.append(f"{name}: not every run is completed: {others}.")
        if self.expected[ORDERS] != self.notified:
            found.append(
                f"{self.expected[ORDERS]} orders are above 100 and {self.notified} were notified."
            )
        return found

    def as_json(self) -> dict[str, Any]:
        started = sum(sum(counts.values()) for counts in self.runs.values())
        completed = sum(counts.get(GOOD, 0) for counts in self.runs.values())
        failed = sum(
            counts.get(s, 0) for counts in self.runs.values() for s in ("failed", "timed_out")
        )
        return {
            "agrees": not self.faults,
            "faults": self.faults,
            "seconds": round(self.seconds, 3),
            "ready_seconds": round(self.ready_seconds, 3),
            "orders": self.orders,
            "kafka_messages": self.payments,
            "runs_expected": sum(self.expected.values()),
            "runs_started": started,
            "runs_completed": completed,
            "runs_failed": failed,
            "workflows": {
                name: {"expected": wanted, **self.runs.get(name, {})}
                for name, wanted in self.expected.items()
            },
            "notified": self.notified,
            "notified_again": self.repeated,
            "first_step_ms": {"p50": _rounded(self.late[0]), "p99": _rounded(self.late[1])},
        }

    def text(self) -> str:
        """For people."""
        facts = self.as_json()
        p50, p99 = self.late
        lines = [
            f"{self.orders:,} orders and {self.payments:,} Kafka messages "
            f"in {self.seconds:.1f} s; ready after {self.ready_seconds:.1f} s.",
            f"{facts['runs_expected']:,} runs were due: {facts['runs_started']:,} started, "
            f"{facts['runs_completed']:,} completed, {facts['runs_failed']:,} failed.",
        ]
        for name, wanted in self.expected.items():
            lines.append(
                f"  {name:14} {wanted:6,} due, {self.runs.get(name, {}).get(GOOD, 0):6,} completed"
            )
        if p50 is not None and p99 is not None:
            lines.append(f"From commit to the first step: p50 {p50:.1f} ms, p99 {p99:.1f} ms.")
        if self.repeated:
            lines.append(f"{self.repeated} notifications came again: effects are at least once.")
        faults = self.faults
        return "\n".join([*lines, *faults] if faults else [*lines, "None lost, none doubled."])


def summarise(
    shop: Shop,
    payments: Payments,
    receiver: Receiver,
    runs: Runs,
    seconds: float,
    ready_seconds: float,
) -> Summary:
    """What came of it."""
    return Summary(
        seconds,
        ready_seconds,
        shop.placed,
        payments.sent,
        expected(shop, payments),
        runs,
        receiver.received("/orders"),
        receiver.repeated(),
        (percentile(receiver.late, 0.5), percentile(receiver.late, 0.99)),
    )


def expected(shop: Shop, payments: Payments) -> dict[str, int]:
    """How many runs each workflow owes."""
    return {ORDERS: shop.large, AUDITS: shop.shipped, INVOICES: payments.invoices}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
