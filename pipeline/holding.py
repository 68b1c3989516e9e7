"""What runners hold: leases of the steps that take long, and claims of those that may happen once.

A claim is made before an attempt begins, and outlives it, because its message may be delivered once
more after its end. What another runner has claimed is begun by nobody else: while that one may
live, its work is left to it, and after that nobody knows what it did.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from pipeline.wire import Dispatch

if TYPE_CHECKING:
    from pipeline.store.leases import Claim

LEASE_FOR = 15.0
"""Seconds after which a lease that was not renewed has lapsed. For as long after a claim its runner
lives, as far as anybody knows: a step that takes longer has a lease by then.
"""


@dataclass(frozen=True, slots=True)
class Lease:
    """A step that is still in work. `until` and `deadline` are seconds from now."""

    run_id: UUID
    step: str
    attempt: int
    org: UUID
    until: float
    deadline: float


class May(Enum):
    """What a runner may do with an attempt that is to happen once."""

    BEGIN = "it is the first"
    LEAVE = "another runner is at it"
    TELL = "another runner was at it, and nobody knows what it did"


class RunnerStore(Protocol):
    """What a runner needs of the store. Raises `StoreError`s."""

    async def put_payload(self, ref: UUID, org: UUID, run_id: UUID, body: bytes) -> None: ...
    async def get_payload(self, ref: UUID) -> bytes | None: ...
    async def claim(self, holder: str, token: UUID, org: UUID, dispatch: Dispatch) -> Claim: ...
    async def renew(self, holder: str, leases: Sequence[Lease]) -> None: ...
    async def release(self, holder: str, leases: Sequence[Lease]) -> None: ...


async def claimed(ask: Callable[[], Awaitable[Claim]]) -> May:
    """`ask` claims the attempt, or says who has; it may be called several times."""
    while True:
        claim = await ask()
        if claim.mine:
            return May.BEGIN
        if claim.leased:
            return May.LEAVE
        if claim.age >= LEASE_FOR:
            return May.TELL
        await asyncio.sleep(LEASE_FOR - claim.age)
