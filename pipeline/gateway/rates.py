"""How often an address may be used: a bucket of tokens for each, in this process alone.

With several gateway processes each has its own buckets, so together they let through as many times
the rate as there are of them.
"""

from __future__ import annotations

import asyncio
import math
from collections import OrderedDict

from pipeline.gateway.problems import Refusal

MOST = 10_000
"""Buckets that are kept; the one that was used least recently makes room, and is full again."""

WEBHOOKS = "This address takes {rate:g} deliveries a second (PERMAFLOW_WEBHOOK_RATE)."


class Rates:
    """Buckets that hold `rate` tokens (at least one) and are filled again within a second."""

    def __init__(self, rate: float, says: str = WEBHOOKS) -> None:
        """`says` is what those are told who come too often."""
        self.rate = rate
        self._says = says
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, name: str) -> None:
        """Take one token; 429 with Retry-After if there is none. A rate of 0 is no limit."""
        if not self.rate:
            return
        size = max(1.0, self.rate)
        now = asyncio.get_running_loop().time()
        held, since = self._buckets.pop(name, (size, now))
        held = min(size, held + (now - since) * self.rate)
        if held >= 1.0:
            self._buckets[name] = (held - 1.0, now)
        else:
            self._buckets[name] = (held, now)
            wait = math.ceil((1.0 - held) / self.rate)
            raise Refusal(
                429,
                "too_many_requests",
                self._says.format(rate=self.rate),
                headers={"retry-after": str(wait)},
            )
        if len(self._buckets) > MOST:
            self._buckets.popitem(last=False)
