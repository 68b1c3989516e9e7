"""valkey: rate limits and circuit breakers shared between processes; a cache, never a truth."""

from __future__ import annotations

import signal

from pipeline.embedded.binaries import Finder
from pipeline.embedded.directory import DataDirectory
from pipeline.embedded.process import Launch
from pipeline.embedded.server import NotReadyError, connection

_CONFIGURATION = """\
# Rewritten at every start. Nothing is kept on disk: everything in it can be lost at any time.
bind 127.0.0.1
port {port}
requirepass {password}
appendonly no
save ""
daemonize no
"""


class Valkey:
    name = "valkey"
    stop_signal = signal.SIGTERM

    def __init__(self, directory: DataDirectory, find: Finder) -> None:
        self._directory = directory
        self._find = find
        self._port = 0
        self._password = ""

    @property
    def url(self) -> str:
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    async def prepare(self) -> Launch:
        binary = self._find("valkey-server")
        folder = self._directory.folder(self.name)
        self._password = self._directory.secret(self.name)
        self._port = self._directory.port(self.name)
        path = folder / "valkey.conf"
        path.touch(mode=0o600)
        path.write_text(_CONFIGURATION.format(port=self._port, password=self._password))
        return Launch((str(binary), str(path)), folder)

    async def ping(self) -> None:
        async with connection(self._port) as (reader, writer):
            writer.write(f"AUTH {self._password}\r\nPING\r\n".encode())
            for expected in (b"+OK", b"+PONG"):
                answer = (await reader.readline()).strip()
                if answer != expected:
                    raise NotReadyError(answer.decode(errors="replace") or "connection closed")
