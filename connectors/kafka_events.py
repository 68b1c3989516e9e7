"""Events to a Kafka topic: written by every in-sync replica before anybody goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from permaflow.errors import ConnectorError
from permaflow.plan import Json


class KafkaEvents:
    """A producer for one topic; it connects with the first event.

    Events of one key stay in order. A send that fails may have been stored in part: send all of it
    again, with the same ids.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap = bootstrap
        self._topic = topic
        self._producer: Any = None

    async def send(self, events: Sequence[tuple[str, Mapping[str, Json]]]) -> None:
        """Store `(key, event)`s, each a CloudEvent in JSON. Raises `ConnectorError`."""
        try:
            from aiokafka import AIOKafkaProducer
            from aiokafka.errors import KafkaError
        except ImportError:
            raise ConnectorError(
                "Events to Kafka need aiokafka: pip install 'permaflow[kafka]'."
            ) from None
        try:
            if self._producer is None:
                make: Any = AIOKafkaProducer
                self._producer = make(bootstrap_servers=self._bootstrap, acks="all", linger_ms=2)
                await self._producer.start()
            receipts = [
                await self._producer.send(self._topic, orjson.dumps(event), key.encode())
                for key, event in events
            ]
            await asyncio.gather(*receipts)
        except (KafkaError, OSError) as error:
            await self.close()
            raise ConnectorError(
                f"Kafka at {self._bootstrap} did not take the events of topic {self._topic}: "
                f"{error or type(error).__name__}."
            ) from error

    async def close(self) -> None:
        if self._producer is not None:
            producer, self._producer = self._producer, None
            await producer.stop()
