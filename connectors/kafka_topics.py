"""What a Kafka broker knows of the logs that a consumer reads: where they begin and end, and which
topic they belong to.

A topic that is deleted and made again has its old name, and its offsets begin at 0 again. What
tells the two apart is the topic's id, which brokers tell since Kafka 2.8 in version 10 of
https://kafka.apache.org/protocol.html#The_Messages_Metadata; aiokafka asks for an older version, so
that request is spelled here.
"""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple
from uuid import UUID

_METADATA, _VERSION = 3, 10
_NO_ID = UUID(int=0)


class Partition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


@dataclass(frozen=True, slots=True)
class Extent:
    """The offset of the first message that is there, that of the next one to come, and the id of
    the topic: "" if the broker does not tell it.
    """

    first: int
    end: int
    topic_id: str = ""


async def extents(consumer: Any, partitions: Collection[Partition]) -> dict[Partition, Extent]:
    """How far the logs of a consumer's partitions reach. Raises aiokafka's `KafkaError`s."""
    from aiokafka import TopicPartition

    asked = [TopicPartition(*partition) for partition in partitions]
    ids = await topic_ids(consumer, {partition.topic for partition in partitions})
    first = await consumer.beginning_offsets(asked)
    end = await consumer.end_offsets(asked)
    return {
        Partition(at.topic, at.partition): Extent(first[at], end[at], ids.get(at.topic, ""))
        for at in asked
    }


async def topic_ids(consumer: Any, topics: Iterable[str]) -> Mapping[str, str]:
    """The ids of those topics of which the broker tells one. Raises aiokafka's `KafkaError`s."""
    from aiokafka.errors import NodeNotReadyError

    client = consumer._client
    node = client.get_random_node()
    if node is None:
        raise NodeNotReadyError("No broker is known.")
    try:
        answer = await client.send(node, _request(sorted(topics)))
    except NotImplementedError:  # the broker is older
        return {}
    return {name: str(found) for _, name, found, *_ in answer.topics if found != _NO_ID and name}


def _request(topics: list[str]) -> Any:
    request, struct = _messages()
    return request(struct([(_NO_ID, name, {}) for name in topics], False, False, False, {}))


@functools.cache
def _messages() -> tuple[Any, Any]:
    """The request as aiokafka wants it, and its bytes; made when the library is there."""
    from aiokafka.protocol.abstract import AbstractType
    from aiokafka.protocol.api import Request, RequestStruct, Response
    from aiokafka.protocol.types import (
        Boolean,
        CompactArray,
        CompactString,
        Int16,
        Int32,
        Schema,
        TaggedFields,
    )

    class Uuid(AbstractType[UUID]):
        @classmethod
        def encode(cls, value: UUID) -> bytes:
            return value.bytes

        @classmethod
        def decode(cls, data: Any) -> UUID:
            return UUID(bytes=data.read(16))

    text = CompactString("utf-8")
    numbers = CompactArray(Int32)
    tags = ("tags", TaggedFields)
    broker = (("node_id", Int32), ("host", text), ("port", Int32), ("rack", text), tags)
    partition = CompactArray(
        ("error_code", Int16),
        ("partition", Int32),
        ("leader", Int32),
        ("leader_epoch", Int32),
        ("replicas", numbers),
        ("isr", numbers),
        ("offline_replicas", numbers),
        tags,
    )
    topic = CompactArray(
        ("error_code", Int16),
        ("topic", text),
        ("topic_id", Uuid),
        ("is_internal", Boolean),
        ("partitions", partition),
        ("authorized_operations", Int32),
        tags,
    )

    class MetadataResponse(Response):
        API_KEY = _METADATA
        API_VERSION = _VERSION
        SCHEMA = Schema(
            ("throttle_time_ms", Int32),
            ("brokers", CompactArray(*broker)),
            ("cluster_id", text),
            ("controller_id", Int32),
            ("topics", topic),
            ("cluster_authorized_operations", Int32),
            tags,
        )

    class MetadataStruct(RequestStruct):
        API_KEY = _METADATA
        API_VERSION = _VERSION
        FLEXIBLE_VERSION = True
        RESPONSE_TYPE = MetadataResponse
        SCHEMA = Schema(
            ("topics", CompactArray(("topic_id", Uuid), ("topic", text), tags)),
            ("allow_auto_topic_creation", Boolean),
            ("include_cluster_authorized_operations", Boolean),
            ("include_topic_authorized_operations", Boolean),
            tags,
        )

    class MetadataRequest(Request[MetadataStruct]):
        API_KEY = _METADATA

        def __init__(self, message: Any) -> None:
            self._message = message

        def build(self, request_struct_class: Any) -> Any:
            return self._message

    return MetadataRequest, MetadataStruct
