"""Kafka topics as a source of changes: the offsets move in the transaction of the runs.

An offset means something in one log only. A topic that was deleted and made again is another log of
the same name, and a log may have lost its beginning, or its end, before it was read. Where what was
to be read next is not there, changes are lost: that is told as a gap, in the transaction that says
where reading goes on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from uuid import UUID, uuid4

from connectors.debezium import Debezium, Ignored
from connectors.kafka import Batch, KafkaSource, cluster_id
from connectors.kafka_topics import Extent, Partition
from permaflow.changes import ChangeRecord, Rejected
from permaflow.errors import ConflictError, ConnectorError
from pipeline import telemetry
from pipeline.ingest import Changes, LostError
from pipeline.settings import Settings, split
from pipeline.store import dead_letters, offsets
from pipeline.store.database import Connection, Database
from pipeline.store.offsets import Position
from pipeline.store.waits import Begun
from pipeline.telemetry import log

_UNNAMED = "~"
"""What the name of a log begins with whose topic has no id: the broker tells none."""


@dataclass(frozen=True, slots=True)
class _Claim:
    """What was claimed when partitions were last assigned."""

    assignment: int
    fences: Mapping[Partition, int]


class KafkaChanges:
    """The topics that the settings name, read as one member of a consumer group.

    Offsets are kept by group and cluster: another cluster, or an embedded broker that was started
    again, begins at the beginning. The fence is the store's, so a reader that was away for long
    cannot move the offsets of one that took over.
    """

    kind = "kafka"
    can_look = False

    def __init__(self, settings: Settings, database: Database, org: str = "") -> None:
        if not settings.kafka_bootstrap:
            raise ConnectorError(
                "PERMAFLOW_KAFKA_TOPICS is set, but PERMAFLOW_KAFKA_BOOTSTRAP names no broker."
            )
        self._bootstrap = settings.kafka_bootstrap
        self._group = settings.kafka_group
        self._database = database
        self._cluster = ""
        self._claim = _Claim(0, {})
        self._logs: dict[str, str] = {}
        self._debezium = Debezium("kafka", org)
        self._source = KafkaSource(
            settings.kafka_bootstrap,
            split(settings.kafka_topics),
            group=settings.kafka_group,
            offsets=self._take,
            decode=self._decode,
        )

    @property
    def _kept_as(self) -> str:
        return f"{self._group}@{self._cluster}" if self._cluster else self._group

    async def watch(self, objects: Iterable[str]) -> bool:
        """Topics are named by the settings, not by triggers, and keep what nobody reads yet."""
        return True

    async def look(self, wanted: Sequence[Begun]) -> Mapping[UUID, ChangeRecord]:
        """A topic tells of changes; how a record is now, it does not tell."""
        return {}

    async def batches(self) -> AsyncGenerator[Batch, None]:
        self._cluster = await cluster_id(self._bootstrap)
        async with aclosing(self._source.batches()) as batches:
            async for batch in batches:
                yield batch

    def _decode(
        self, key: bytes | None, value: bytes | None, topic: str, partition: int, offset: int
    ) -> ChangeRecord | Rejected | Ignored:
        """A change that has no better identity than its place has that of its log as well: other
        changes stood there in a topic that was deleted.
        """
        found = self._debezium.decode(key, value, topic, partition, offset)
        name = self._logs.get(topic)
        place = f"{topic}:{partition}:{offset}"
        if name and type(found) is ChangeRecord and found.event_id == place:
            return replace(found, event_id=f"{place}@{name}")
        return found

    async def _take(self, reach: Mapping[Partition, Extent]) -> Mapping[Partition, int | None]:
        found, gaps = await self._database.run(self._claim_all, reach)
        for gap in gaps:
            telemetry.SOURCE_GAPS.labels(self.kind).inc()
            log.error(telemetry.CHANGES_LOST, source=self.kind, error=gap)
        places = {Partition(each.topic, each.partition): each for each in found}
        fences = {partition: each.fence for partition, each in places.items()}
        self._claim = _Claim(self._source.assignment, fences)
        self._logs = {each.topic: each.log for each in found}
        return {partition: each.next_offset for partition, each in places.items()}

    async def _claim_all(
        self, connection: Connection, reach: Mapping[Partition, Extent]
    ) -> tuple[list[Position], list[str]]:
        """Where to read on, and what is lost. Raises `ConnectorError` for a topic that is gone."""
        kept = await offsets.claim(connection, self._kept_as, sorted(reach))
        found: list[Position] = []
        gaps: list[str] = []
        for position in kept:
            extent = reach[Partition(position.topic, position.partition)]
            begun, gap = _beginning(position, extent)
            found.append(begun)
            if gap:
                gaps.append(gap)
        changed = [new for old, new in zip(kept, found, strict=True) if old != new]
        if changed:
            await offsets.begin(connection, self._kept_as, changed)
        if gaps:
            letters = [dead_letters.Unreadable(self.kind, "gap", gap, b"") for gap in gaps]
            await dead_letters.add(connection, letters)
        return found, gaps

    async def keep_position(self, connection: Connection, batch: Changes) -> None:
        assert isinstance(batch, Batch)
        claim = self._claim
        if not self._source.holds(batch) or claim.assignment != batch.assignment:
            raise LostError("Kafka partitions were assigned anew while a batch of them was read.")
        wanted = [
            offsets.Position(at.topic, at.partition, offset, claim.fences[at])
            for at, offset in batch.positions.items()
        ]
        try:
            await offsets.advance(connection, self._kept_as, wanted)
        except ConflictError as error:
            raise LostError(str(error)) from error

    async def confirm(self, batch: Changes) -> None:
        assert isinstance(batch, Batch)
        await self._source.confirm(batch)

    async def close(self) -> None:
        """`batches` lets go of the partitions when it is closed."""


def _beginning(kept: Position, extent: Extent) -> tuple[Position, str]:
    """Where to read a partition from, and what is lost by that, if anything.

    Raises `ConnectorError` if the topic is not there at this moment.
    """
    name = f"Partition {kept.partition} of the Kafka topic {kept.topic}"
    named = bool(kept.log) and not kept.log.startswith(_UNNAMED)
    if named and not extent.topic_id:
        raise ConnectorError(f"{name} is not there at this moment.")
    log_id = extent.topic_id if not kept.log else kept.log
    place = kept.next_offset
    if named and kept.log != extent.topic_id:
        anew = replace(kept, next_offset=extent.first, log=extent.topic_id)
        return anew, (
            f"{name} was deleted and made again. Whatever of the old one had not been read is "
            f"lost; it was read up to the offset {place or 0}. The new one is read from its "
            f"beginning, the offset {extent.first}."
        )
    if place is not None and place > extent.end:
        other = extent.topic_id or _UNNAMED + uuid4().hex
        anew = replace(kept, next_offset=extent.first, log=other)
        return anew, (
            f"{name} ends at the offset {extent.end}, but had been read up to {place}: it was made "
            f"again, or its end was lost. It is read from its beginning, the offset "
            f"{extent.first}; changes that have started their runs start none again, as far as "
            "they can be told from others."
        )
    if place is not None and place < extent.first:
        return replace(kept, next_offset=extent.first, log=log_id), (
            f"{name} begins at the offset {extent.first}, but had been read only up to {place}: "
            f"the {extent.first - place} offsets between were removed before they were read, and "
            "their changes are lost. Let the broker keep messages for longer (retention.ms, "
            "retention.bytes), or have more processes of ingest."
        )
    return replace(kept, log=log_id), ""
