"""Kafka topics as a source of changes: the offsets move in the transaction of the runs."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

from connectors.debezium import Debezium
from connectors.kafka import Batch, KafkaSource, Partition, cluster_id
from permaflow.changes import ChangeRecord
from permaflow.errors import ConflictError, ConnectorError
from pipeline.ingest import Changes, LostError
from pipeline.settings import Settings, split
from pipeline.store import offsets
from pipeline.store.database import Connection, Database
from pipeline.store.waits import Begun


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
        self._source = KafkaSource(
            settings.kafka_bootstrap,
            split(settings.kafka_topics),
            group=settings.kafka_group,
            offsets=self._take,
            decode=Debezium("kafka", org).decode,
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

    async def _take(self, partitions: frozenset[Partition]) -> Mapping[Partition, int | None]:
        found = await self._database.run(offsets.claim, self._kept_as, sorted(partitions))
        places = {Partition(each.topic, each.partition): each for each in found}
        fences = {partition: each.fence for partition, each in places.items()}
        self._claim = _Claim(self._source.assignment, fences)
        return {partition: each.next_offset for partition, each in places.items()}

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
