"""How far each Kafka partition has been read: written in the transaction of the runs it started.

On assignment call `claim` and seek to what it answers; the broker's own offsets decide nothing. A
consumer that lost a partition and does not know it yet fails in `advance`, so its batch is rolled
back. The fence is ours, not the generation of the consumer group, which starts over when a group is
made again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from permaflow.errors import ConflictError
from pipeline.store.database import Connection
from pipeline.store.queries import query
from pipeline.store.rows import every

_CLAIM = query("offsets.claim")
_ADVANCE = query("offsets.advance")
_BEGIN = query("offsets.begin")
_LIST = query("offsets.list")


@dataclass(frozen=True, slots=True)
class Position:
    """Where to read on. `next_offset` is None where nothing has been read yet. `log` tells the
    topic from others that had its name before; "" where that is not known yet.
    """

    topic: str
    partition: int
    next_offset: int | None
    fence: int
    log: str = ""


async def claim(
    connection: Connection, group: str, partitions: Sequence[tuple[str, int]]
) -> list[Position]:
    """Takes partitions over from whoever had them."""
    values = {
        "group": group,
        "topics": [topic for topic, _ in partitions],
        "partitions": [partition for _, partition in partitions],
    }
    return await every(connection, Position, _CLAIM, values)


async def begin(connection: Connection, group: str, positions: Sequence[Position]) -> None:
    """Reads partitions that were claimed just now from these positions on, be they further back."""
    await connection.execute(
        _BEGIN, {**_values(group, positions), "logs": [p.log for p in positions]}
    )


async def advance(connection: Connection, group: str, positions: Sequence[Position]) -> None:
    """Moves partitions forward, all or none. Raises `ConflictError` if one is held by another.

    Call it last in the transaction: it locks the rows until the commit.
    """
    moved = (await connection.execute(_ADVANCE, _values(group, positions))).rowcount
    if moved != len(positions):
        raise ConflictError(
            f"{len(positions) - moved} of {len(positions)} Kafka partitions of the group {group} "
            "belong to another consumer by now, or have been read further."
        )


async def find(connection: Connection, group: str) -> list[Position]:
    """How far a group has read."""
    return await every(connection, Position, _LIST, {"group": group})


def _values(group: str, positions: Sequence[Position]) -> dict[str, object]:
    return {
        "group": group,
        "topics": [position.topic for position in positions],
        "partitions": [position.partition for position in positions],
        "offsets": [position.next_offset for position in positions],
        "fences": [position.fence for position in positions],
    }
