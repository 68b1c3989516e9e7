"""nats: NATS with JetStream, the carrier of steps and results."""

from __future__ import annotations

import json
import os
import signal

from pipeline.embedded.binaries import Finder
from pipeline.embedded.directory import DataDirectory
from pipeline.embedded.process import Launch
from pipeline.embedded.server import NotReadyError, connection

_USER = "permaflow"
_CONFIGURATION = """\
# Rewritten at every start.
server_name: permaflow
listen: "127.0.0.1:{port}"
http: "127.0.0.1:{monitor_port}"
max_payload: 8MB
max_pending: 64MB
authorization {{ user: {user}, password: {password} }}
jetstream {{
  store_dir: {store}
  sync_interval: {sync_interval}
}}
"""


class Nats:
    """`sync_interval` is how often JetStream syncs to disk: "always" does it before each ack.

    Permaflow's correctness does not depend on it; PostgreSQL holds the truth. The default of NATS
    itself is "2m".
    """

    name = "nats"
    stop_signal = signal.SIGTERM

    def __init__(self, directory: DataDirectory, find: Finder, sync_interval: str = "2m") -> None:
        self._directory = directory
        self._find = find
        self._sync_interval = sync_interval
        self._port = 0
        self._password = ""

    @property
    def url(self) -> str:
        return f"nats://{_USER}:{self._password}@127.0.0.1:{self._port}"

    async def prepare(self) -> Launch:
        binary = self._find("nats-server")
        folder = self._directory.folder(self.name)
        self._password = self._directory.secret(self.name)
        self._port = self._directory.port(self.name)
        text = _CONFIGURATION.format(
            port=self._port,
            monitor_port=self._directory.port("nats-monitor"),
            user=json.dumps(_USER),
            password=json.dumps(self._password),
            store=json.dumps(str(folder)),
            sync_interval=json.dumps(self._sync_interval),
        )
        path = folder / "nats.conf"
        path.touch(mode=0o600)
        path.write_text(text)
        variables = {"GOMAXPROCS": str(_processors())}
        return Launch((str(binary), "--config", os.fspath(path)), folder, variables=variables)

    async def ping(self) -> None:
        """JetStream's account info, asked in the plain text protocol of NATS."""
        options = {"user": _USER, "pass": self._password, "verbose": False, "pedantic": False}
        question = (
            f"CONNECT {json.dumps(options)}\r\n"
            "SUB answer 1\r\nPUB $JS.API.INFO answer 0\r\n\r\nPING\r\n"
        )
        async with connection(self._port) as (reader, writer):
            writer.write(question.encode())
            while line := await reader.readline():
                if line.startswith(b"-ERR"):
                    raise NotReadyError(line.decode().strip())
                if line.startswith(b"MSG answer "):
                    size = int(line.split()[-1])
                    answer = json.loads(await reader.readexactly(size))
                    if "error" in answer:
                        raise NotReadyError(answer["error"].get("description", "no JetStream"))
                    return
        raise NotReadyError("the connection was closed")


def _processors() -> int:
    """Half of the processors: the other half is for those who talk to it.

    On two, one thread that never hands over takes a fifth off the latency of a hop and off the
    CPU per message, at the same throughput (`bench/bus.py`).
    """
    return max(1, (os.cpu_count() or 1) // 2)
