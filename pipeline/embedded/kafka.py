"""kafka: a Kafka-compatible broker (Tansu), for change records that come by topic.

The wheel's build keeps its log in memory (or in S3): topics, records and groups are gone when it
stops. Offsets begin at 0 again then, so every start has a cluster id of its own, by which a reader
can tell that the log is a new one. For records that must outlive a restart, set
PERMAFLOW_KAFKA_BOOTSTRAP to a cluster of your own.
"""

from __future__ import annotations

import secrets
import signal
import struct

from pipeline.embedded.binaries import Finder
from pipeline.embedded.directory import DataDirectory
from pipeline.embedded.process import Launch
from pipeline.embedded.server import NotReadyError, connection

_CLIENT = b"permaflow"
_METADATA, _VERSION, _CORRELATION, _NO_TOPICS = 3, 1, 1, 0


class Kafka:
    name = "kafka"
    stop_signal = signal.SIGTERM

    def __init__(self, directory: DataDirectory, find: Finder) -> None:
        self._directory = directory
        self._find = find
        self._port = 0

    @property
    def url(self) -> str:
        """host:port, as Kafka clients want it."""
        return f"127.0.0.1:{self._port}"

    async def prepare(self) -> Launch:
        binary = self._find("tansu")
        self._port = self._directory.port(self.name)
        address = f"tcp://{self.url}"
        argv = [str(binary), "broker", "--listener-url", address]
        argv += ["--advertised-listener-url", address, "--storage-engine", "memory://tansu/"]
        argv += ["--cluster-id", f"permaflow-{secrets.token_hex(8)}"]
        return Launch(tuple(argv), self._directory.path)

    async def ping(self) -> None:
        """A metadata request (version 1, no topics) that must name this broker."""
        header = struct.pack(">hhih", _METADATA, _VERSION, _CORRELATION, len(_CLIENT))
        request = header + _CLIENT + struct.pack(">i", _NO_TOPICS)
        async with connection(self._port) as (reader, writer):
            writer.write(struct.pack(">i", len(request)) + request)
            (size,) = struct.unpack(">i", await reader.readexactly(4))
            answer = await reader.readexactly(size)
        correlation, brokers, _node, length = struct.unpack_from(">iiih", answer)
        if correlation != _CORRELATION or brokers < 1:
            raise NotReadyError("it names no broker")
        (port,) = struct.unpack_from(">i", answer, 14 + length)
        if port != self._port:
            raise NotReadyError(f"it names a broker on port {port}, not {self._port}")
