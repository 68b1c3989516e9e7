"""What a runner has in its hands: messages, the steps of them, and results on their way."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import msgspec

from pipeline.bus.port import Message, Subscription
from pipeline.holding import LEASE_FOR, Lease
from pipeline.wire import Dispatch

LEASE_EVERY = 5.0


class Work:
    """A message in work: how many of its steps are open, and the receipts of its results. `lost`
    counts the runners that had it before and did not come back.
    """

    __slots__ = ("lost", "message", "open", "org", "receipts", "subscription")

    def __init__(
        self, message: Message, org: str, size: int, subscription: Subscription, lost: int
    ) -> None:
        self.message = message
        self.org = org
        self.open = size
        self.lost = lost
        self.receipts: list[asyncio.Future[None]] = []
        self.subscription = subscription


class Parcel:
    """Results that travel together, and the messages that their steps came with."""

    __slots__ = ("events", "size", "works")

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.works: dict[int, Work] = {}
        self.size = 0

    def add(self, event: msgspec.Raw, work: Work) -> None:
        self.events.append(event)
        self.size += len(event)
        self.works[id(work)] = work


class Step:
    """A step in work. `also` are the messages that it came with once more: they are acked with the
    first one and not before, since one of them may be the same message, delivered again.
    """

    __slots__ = ("also", "begun", "dispatch", "leased_at", "started", "stopped", "task", "work")

    def __init__(self, dispatch: Dispatch, work: Work, started: float) -> None:
        self.dispatch = dispatch
        self.work = work
        self.also: tuple[Work, ...] = ()
        self.started = started
        self.leased_at = 0.0
        self.begun = False
        self.stopped = False
        self.task: asyncio.Task[None] | None = None

    def lease(self, now: float) -> Lease:
        left = self.started + self.dispatch.timeout - now
        return Lease(
            self.dispatch.run_id,
            f"{self.dispatch.scope}/{self.dispatch.node}",
            self.dispatch.attempt,
            UUID(self.work.org),
            LEASE_FOR,
            left + LEASE_EVERY,  # in the past, for a step that hangs
        )
