"""Changes by Kafka topic, with offsets that the caller keeps.

The caller keeps offsets where it keeps what it made of the messages, so that both move together;
the broker's own offsets are a gauge of lag and decide nothing. Whenever partitions are assigned the
source asks for their offsets and seeks to them, before any message is read. A partition that was
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
from typing import Any, NamedTuple

from connectors.debezium import Debezium, Ignored
from permaflow.changes import ChangeRecord, Rejected
from permaflow.errors import ConnectorError

_PATIENCE_MS = 1000
_COMMIT_GAP = 0.5
_LEAVE_LIMIT = 5.0

Decode = Callable[[bytes | None, bytes | None, str, int, int], ChangeRecord | Rejected | Ignored]


class Partition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


Offsets = Callable[[frozenset[Partition]], Awaitable[Mapping[Partition, int | None]]]
"""Asked whenever partitions are assigned; None or nothing means from the beginning."""


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
            "auto_offset_reset": "earliest",
            "isolation_level": "read_committed" if read_committed else "read_uncommitted",
            "metadata_max_age_ms": 30_000,
            **(options or {}),
        }
        self._consumer: Any = None  # aiokafka's types are partial
        self._held: frozenset[Partition] = frozenset()
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
                with _connector_errors():
                    found = await consumer.getmany(
                        timeout_ms=_PATIENCE_MS, max_records=self._max_records
                    )
                if self._trouble is not None:
                    raise ConnectorError(
                        f"The offsets of Kafka partitions cannot be had: {self._trouble}"
                    ) from self._trouble
                batch = self._read(found)
                if batch is not None:
                    yield batch
        finally:
            self._consumer, self._held, self._trouble = None, frozenset(), None
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
            offsets = await self._offsets(assigned)
            await self._seek(assigned, offsets)
        except Exception as error:  # It would be logged and swallowed; `batches` raises it.
            self._trouble = error
            return
        self._held = assigned

    async def _seek(
        self, assigned: frozenset[Partition], offsets: Mapping[Partition, int | None]
    ) -> None:
        consumer = self._consumer
        make = _library().TopicPartition
        unread = [make(*partition) for partition in assigned if offsets.get(partition) is None]
        for partition in assigned:
            offset = offsets.get(partition)
            if offset is not None:
                consumer.seek(make(*partition), offset)
        if unread:
            await consumer.seek_to_beginning(*unread)

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
