"""Leases: the long steps that a runner holds, so that the reconciler knows that they live.

Claims: the attempts that may happen once, each by who claims it first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from pipeline.store.database import Connection
from pipeline.store.queries import query
from pipeline.store.rows import every, one

_RENEW = query("leases.renew")
_DROP = query("leases.drop")
_LAPSED = query("leases.lapsed")
_SWEEP = query("leases.sweep")
_CLAIM = query("leases.claim")


@dataclass(frozen=True, slots=True)
class HeldStep:
    """An attempt that a runner works on. `remaining` is the time until it times out."""

    run_id: UUID
    step: str
    attempt: int
    org: UUID
    remaining: timedelta


@dataclass(frozen=True, slots=True)
class LapsedLease:
    """`is_lost`: its holder has not renewed it. Otherwise the attempt has outlived its deadline."""

    run_id: UUID
    step: str
    attempt: int
    org: UUID
    holder: str
    is_lost: bool


@dataclass(frozen=True, slots=True)
class Claim:
    """What is known of the claim to an attempt: whether it is `mine`, how many seconds old it is,
    and whether another runner holds a lease of the attempt.
    """

    mine: bool
    age: float
    leased: bool


async def renew(
    connection: Connection, holder: str, held: Sequence[HeldStep], duration: timedelta
) -> set[tuple[UUID, str]]:
    """Takes or prolongs leases; answers the `(run_id, step)` that the holder now has.

    A step that is missing from the answer is held by somebody else.
    """
    values = {
        "holder": holder,
        "duration": duration.total_seconds(),
        "run_ids": [each.run_id for each in held],
        "steps": [each.step for each in held],
        "attempts": [each.attempt for each in held],
        "orgs": [each.org for each in held],
        "remaining": [each.remaining.total_seconds() for each in held],
    }
    cursor = await connection.execute(_RENEW, values)
    return {(run_id, step) for run_id, step in await cursor.fetchall()}


async def claim(
    connection: Connection,
    holder: str,
    token: UUID,
    org: UUID,
    run_id: UUID,
    scope: str,
    node: str,
    attempt: int,
) -> Claim:
    """Claims an attempt for good: whoever claims it later, with another token, is told so."""
    values = {
        "holder": holder,
        "token": token,
        "org": org,
        "run_id": run_id,
        "scope": scope,
        "node": node,
        "attempt": attempt,
    }
    found = await one(connection, Claim, _CLAIM, values)
    assert found is not None
    return found


async def drop(connection: Connection, holder: str, held: Sequence[tuple[UUID, str, int]]) -> None:
    """Gives `(run_id, step, attempt)` back; what another holds by now is left alone."""
    values = {
        "holder": holder,
        "run_ids": [run_id for run_id, _, _ in held],
        "steps": [step for _, step, _ in held],
        "attempts": [attempt for _, _, attempt in held],
    }
    await connection.execute(_DROP, values)


async def lapsed(connection: Connection, *, limit: int = 1000) -> list[LapsedLease]:
    """Leases whose holder is silent, and those of attempts that outlived their deadline."""
    return await every(connection, LapsedLease, _LAPSED, {"limit": limit})


async def sweep(connection: Connection, after: timedelta) -> int:
    """Removes leases that lapsed longer than `after` ago; answers how many."""
    return (await connection.execute(_SWEEP, {"after": after.total_seconds()})).rowcount
