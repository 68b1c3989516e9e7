"""Changes by Kafka topic, with offsets that the caller keeps.

The caller keeps offsets where it keeps what it made of the messages, so that both move together;
the broker's own offsets are a gauge of lag and decide nothing. Whenever partitions are assigned the
source asks for their offsets and seeks to them, before any message is read; it tells how far the
logs reach, because an offset may be one that is no longer there, or one of a topic that was deleted
and made again. While it reads, it looks whether that has happened. A partition that was
taken away in the meantime makes `holds` false; what fences it for sure is the caller's own count of
assignments, since the group's `generation` starts over when a group is made again.

Messages of one partition come in order; between partitions there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import (
    AsyncGenerator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass, field
from typing import Any

from connectors.debezium import Debezium, Ignored
from connectors.kafka_topics import Extent, Partition, extents, topic_ids
from permaflow.changes import ChangeRecord, Rejected
from permaflow.errors import ConnectorError

_PATIENCE_MS = 1000
_COMMIT_GAP = 0.5
_LEAVE_LIMIT = 5.0
LOOK_EVERY = 10.0
"""Seconds between two looks whether the topics are still the same."""

Decode = Callable[[bytes | None, bytes | None, str, int, int], ChangeRecord | Rejected | Ignored]


Offsets = Callable[[Mapping[Partition, Extent]], Awaitable[Mapping[Partition, int | None]]]
"""Asked whenever partitions are assigned; None or nothing means from the beginning. An offset that
is not there is an error when it is read.
"""


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes of some partitions.

    `positions` is where each goes on after this batch. `assignment` counts the assignments of this
    source, `generation` those of the group. `ignored` counts what is no change of a record.
    """

    records: tuple[ChangeRecord | Rejected, ...]
    positions: Mapping[Partition, int]
    assignment: int
    generation: int
    ignored: Mapping[str, int] = field(default_factory=dict)


class KafkaSource:
    """Reads topics as one member of a consumer group.

    A topic that starts with `^` is a regular expression for names of topics. `options` go to
    aiokafka as they are (`security_protocol`, `sasl_mechanism`, `rebalance_timeout_ms`, …).
    Raises ConnectorError if the library is not installed.
    """

    def __init__(
        self,
        bootstrap: str,
        topics: Sequence[str],
        *,
        group: str,
        offsets: Offsets,
        decode: Decode | None = None,
        member: str | None = None,
        read_committed: bool = False,
        max_records: int = 1000,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        _library()
        if not topics:
            raise ConnectorError("A Kafka source needs the name of a topic at least.")
        self._topics = tuple(topics)
        self._offsets = offsets
        self._decode = decode or Debezium("kafka").decode
        self._max_records = max_records
        self._options: dict[str, Any] = {
            "bootstrap_servers": bootstrap,
            "group_id": group,
            "group_instance_id": member,
            "enable_auto_commit": False,
            # What is not there is for the caller to see, who keeps the offsets.
            "auto_offset_reset": "none",
            "isolation_level": "read_committed" if read_committed else "read_uncommitted",
            "metadata_max_age_ms": 30_000,
            **(options or {}),
        }
        self._consumer: Any = None  # aiokafka's types are partial
        self._held: frozenset[Partition] = frozenset()
        self._topic_ids: dict[str, str] = {}
        self._look_at = 0.0
        self._assignment = 0
        self._trouble: Exception | None = None
        self._to_commit: dict[Partition, int] = {}
        self._committing: asyncio.Task[None] | None = None
        self._closing = asyncio.Event()

    @property
    def held(self) -> frozenset[Partition]:
        """The partitions that are read now."""
        return self._held

    @property
    def assignment(self) -> int:
        """How often partitions were assigned or taken away."""
        return self._assignment

    @property
    def generation(self) -> int:
        """The group's generation, -1 outside a group."""
        # aiokafka does not show it; tests hold this to what it does.
        coordinator = getattr(self._consumer, "_coordinator", None)
        return int(getattr(coordinator, "generation", -1))

    def holds(self, batch: Batch) -> bool:
        """Whether the partitions of a batch have stayed with this source since it was read."""
        return batch.assignment == self._assignment and batch.positions.keys() <= self._held

    async def batches(self) -> AsyncGenerator[Batch, None]:
        """Messages as they come, without end. Raises ConnectorError; then begin again."""
        consumer = _library().AIOKafkaConsumer(**self._options)
        self._subscribe(consumer)
        self._closing.clear()
        try:
            self._consumer = consumer  # Partitions may be assigned while it starts.
            with _connector_errors():
                await consumer.start()
            while True:
                batch = self._read(await self._fetch(consumer))
                if batch is not None:
                    yield batch
        finally:
            self._consumer, self._held, self._trouble = None, frozenset(), None
            self._topic_ids = {}
            self._to_commit.clear()
            await self._end_commits()
            # Leaving the group can take as long as a request; the broker also notices by itself.
            leaving = asyncio.create_task(consumer.stop())
            await asyncio.wait({leaving}, timeout=_LEAVE_LIMIT)

    async def confirm(self, batch: Batch) -> None:
        """Tell the broker how far we are, for those who watch its lag. Returns at once."""
        if not self.holds(batch):
            return
        self._to_commit.update(batch.positions)
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit())

    async def _fetch(self, consumer: Any) -> Mapping[Any, Sequence[Any]]:
        errors = _library().errors
        found: Mapping[Any, Sequence[Any]] = {}
        with _connector_errors():
            try:
                found = await consumer.getmany(
                    timeout_ms=_PATIENCE_MS, max_records=self._max_records
                )
            except errors.NoOffsetForPartitionError:
                pass  # it was looked for before the seek that follows every assignment
            except errors.OffsetOutOfRangeError as error:
                for partition, offset in error.args[0].items():
                    if await consumer.position(partition) == offset:
                        raise  # else it is what the broker has kept, from before the seek
        if self._trouble is not None:
            raise ConnectorError(
                f"The offsets of Kafka partitions cannot be had: {self._trouble}"
            ) from self._trouble
        now = asyncio.get_running_loop().time()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY
            await self._look(consumer)
        return found

    async def _look(self, consumer: Any) -> None:
        """Raises `ConnectorError` if a topic is not the one any more whose offsets were asked for.

        Offsets of the old one may all be there in the new one, so that reading goes on as if
        nothing had happened.
        """
        known = dict(self._topic_ids)
        try:
            now = await topic_ids(consumer, known) if known else {}
        except _library().errors.KafkaError:
            return  # whoever reads will be told as well
        for topic, topic_id in known.items():
            if now.get(topic, topic_id) != topic_id:
                raise ConnectorError(f"The Kafka topic {topic} was deleted and made again.")

    def _subscribe(self, consumer: Any) -> None:
        listener = _listener(self)
        if any(topic.startswith("^") for topic in self._topics):
            names = (t[1:] if t.startswith("^") else re.escape(t) for t in self._topics)
            consumer.subscribe(
                pattern="|".join(f"^(?:{name})$" for name in names), listener=listener
            )
        else:
            consumer.subscribe(self._topics, listener=listener)

    async def _assigned(self, consumer_partitions: Iterable[Any]) -> None:
        """Seek before anything is read; the consumer waits for this."""
        self._assignment += 1
        assigned = frozenset(Partition(tp.topic, tp.partition) for tp in consumer_partitions)
        self._held = frozenset()
        self._trouble = None
        if not assigned:
            return
        try:
            reach = await extents(self._consumer, assigned)
            offsets = await self._offsets(reach)
            self._seek(reach, offsets)
        except Exception as error:  # It would be logged and swallowed; `batches` raises it.
            self._trouble = error
            return
        self._held = assigned

    def _seek(
        self, reach: Mapping[Partition, Extent], offsets: Mapping[Partition, int | None]
    ) -> None:
        make = _library().TopicPartition
        for partition, extent in reach.items():
            offset = offsets.get(partition)
            self._consumer.seek(make(*partition), extent.first if offset is None else offset)
        self._topic_ids = {at.topic: each.topic_id for at, each in reach.items() if each.topic_id}
        self._look_at = asyncio.get_running_loop().time() + LOOK_EVERY

    def _revoked(self) -> None:
        self._held = frozenset()
        self._assignment += 1
        self._to_commit.clear()

    def _read(self, found: Mapping[Any, Sequence[Any]]) -> Batch | None:
        records: list[ChangeRecord | Rejected] = []
        positions: dict[Partition, int] = {}
        ignored: dict[str, int] = {}
        decode = self._decode
        for tp, messages in found.items():
            topic, partition = tp.topic, tp.partition
            at = Partition(topic, partition)
            if at not in self._held or not messages:
                continue  # It was taken away while its messages were under way.
            for message in messages:
                record = decode(message.key, message.value, topic, partition, message.offset)
                if isinstance(record, Ignored):
                    ignored[record.reason] = ignored.get(record.reason, 0) + 1
                else:
                    records.append(record)
            positions[at] = messages[-1].offset + 1
        if not positions:
            return None
        return Batch(tuple(records), positions, self._assignment, self.generation, ignored)

    async def _commit(self) -> None:
        library = _library()
        while self._to_commit and self._consumer is not None:
            offsets = {library.TopicPartition(*p): o for p, o in self._to_commit.items()}
            self._to_commit.clear()
            # A rebalance may be under way; whoever gets the partition commits it again.
            with contextlib.suppress(library.errors.KafkaError, ValueError):
                await self._consumer.commit(offsets)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_COMMIT_GAP):
                    await self._closing.wait()

    async def _end_commits(self) -> None:
        if self._committing is not None:
            # A commit under way is let through: aiokafka does not like to be cancelled in it.
            self._closing.set()
            await asyncio.wait({self._committing}, timeout=_LEAVE_LIMIT)
            self._committing.cancel()
            self._committing = None


async def cluster_id(bootstrap: str, options: Mapping[str, Any] | None = None) -> str:
    """The cluster's name for itself, "" if it has none: offsets mean nothing in another one.

    Raises ConnectorError. `options` are those that both clients of aiokafka know.
    """
    _library()
    from aiokafka.admin import AIOKafkaAdminClient

    admin: Any = AIOKafkaAdminClient(bootstrap_servers=bootstrap, **(options or {}))
    try:
        with _connector_errors():
            await admin.start()
            return str((await admin.describe_cluster()).get("cluster_id") or "")
    finally:
        await admin.close()


def _library() -> Any:
    try:
        import aiokafka
    except ImportError as error:
        raise ConnectorError(
            "Reading Kafka needs the library aiokafka: pip install 'permaflow[kafka]'"
        ) from error
    return aiokafka


def _listener(source: KafkaSource) -> Any:
    class Listener(_library().ConsumerRebalanceListener):  # type: ignore[misc]
        async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
            source._revoked()

        async def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
            await source._assigned(assigned)

    return Listener()


@contextlib.contextmanager
def _connector_errors() -> Iterator[None]:
    library = _library()
    try:
        yield
    except library.errors.KafkaError as error:
        raise ConnectorError(f"Kafka cannot be read: {error}") from error
