"""The demo's screen: drawn anew four times a second."""

from __future__ import annotations

import time
from dataclasses import dataclass

from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from pipeline.demo.receiver import Receiver, percentile
from pipeline.demo.shop import Shop
from pipeline.demo.topic import Payments
from pipeline.demo.watching import CHANGES, ENTRIES, FINISHED, GOOD, OPEN, STARTED, Watch


@dataclass(frozen=True, slots=True)
class View:
    """What is on the screen. `began_at` is when the shop opened, by the monotonic clock."""

    shop: Shop
    payments: Payments
    receiver: Receiver
    watch: Watch
    began_at: float
    hint: str

    def __rich__(self) -> RenderableType:
        passed = time.monotonic() - self.began_at
        boxes = [
            Panel(self._shop(passed), title="the shop", width=36),
            Panel(self._engine(), title="the engine", width=36),
            Panel(self._lag(), title="waiting or in work", width=30),
        ]
        notified = Panel(self._notified(), title="notified over HTTP")
        return Group(Columns(boxes), notified, Text(self.hint, "dim"))

    def line(self) -> str:
        """The same in one line, where there is no screen."""
        seen = self.watch.seen
        late = percentile(self.receiver.late, 0.5)
        return (
            f"{self.shop.placed} orders, {self.payments.sent} payments, {seen.total} runs "
            f"({seen.count(GOOD)} completed, {seen.count(*OPEN)} open), "
            f"commit to first step {'-' if late is None else f'{late:.1f} ms'}"
        )

    def _shop(self, passed: float) -> Table:
        shop, payments = self.shop, self.payments
        return _pairs(
            ("orders placed", f"{shop.placed:,}"),
            ("  a second", f"{shop.placed / max(passed, 0.001):.1f}"),
            ("  above 100", f"{shop.large:,}"),
            ("paid, shipped", f"{shop.paid:,}, {shop.shipped:,}"),
            ("payments on Kafka", f"{payments.sent:,}"),
            ("  by invoice", f"{payments.invoices:,}"),
        )

    def _engine(self) -> Table:
        seen, late = self.watch.seen, self.receiver.late
        rates = {name: f"{seen.rates.get(name, 0.0):.0f}/s" for name in (CHANGES, ENTRIES)}
        runs = f"{seen.rates.get(STARTED, 0.0):.0f}/s, {seen.rates.get(FINISHED, 0.0):.0f}/s"
        return _pairs(
            ("changes read", rates[CHANGES]),
            ("runs started, finished", runs),
            ("journal entries", rates[ENTRIES]),
            ("commit → first step p50", _ms(percentile(late, 0.50))),
            ("  p99", _ms(percentile(late, 0.99))),
            ("running, waiting", f"{seen.count(*OPEN):,}, {seen.count('waiting'):,}"),
            ("completed, not", f"{seen.count(GOOD):,}, {self._other():,}"),
        )

    def _other(self) -> int:
        seen = self.watch.seen
        return seen.total - seen.count(GOOD, "waiting", *OPEN)

    def _lag(self) -> Table:
        seen = self.watch.seen
        pairs = [(name, f"{count:,}") for name, count in seen.lags.items()]
        return _pairs(*pairs, ("PostgreSQL log", f"{seen.log_bytes / 1_000:,.0f} kB"))

    def _notified(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for at, text in list(self.receiver.last):
            clock = time.strftime("%H:%M:%S", time.localtime(at))
            table.add_row(Text(clock, "dim"), Text(text))
        return table


def _pairs(*pairs: tuple[str, str]) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right", style="bold", no_wrap=True)
    for pair in pairs:
        table.add_row(*pair)
    return table


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
