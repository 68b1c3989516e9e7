"""Vertex: HTTP comes in. A webhook or a start is checked, committed, and only then answered 202.

The answer waits for PostgreSQL and for nothing else: NATS is told without waiting, Redis is not
asked. One process; to have more, start more.

    error                          answer
    what was sent is at fault      4xx, a problem (RFC 9457) that says where and what to do
    store or bus away              503 with Retry-After; nothing was answered 2xx before its commit
    a bug                          500 without internals; the log has it under the request's id
"""

from __future__ import annotations

import resource
import socket

import uvicorn

from permaflow.task_types import TaskTypeRegistry
from pipeline.bus.port import Bus
from pipeline.gateway.app import Application
from pipeline.gateway.connection import limited
from pipeline.gateway.ports import open_ports
from pipeline.ops import Ops, QuietServer, open_socket
from pipeline.settings import Settings
from pipeline.store.database import Database

LONGEST_GOODBYE = 8
"""Seconds that open requests have to end when the process stops."""


LARGEST_MESSAGE = 10_000
"""Bytes that a client may say in one message of a WebSocket."""


_OTHER_FILES = 100
"""Open files of the process that are no connections of clients."""


def _most_connections(wanted: int) -> int:
    """As many as wanted, or as the system lets a process have open files."""
    enough = wanted + _OTHER_FILES
    files, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if 0 <= files < enough:  # minus one is infinity
        files = enough if most == resource.RLIM_INFINITY else min(enough, most)
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, most))
    return max(1, min(wanted, files - _OTHER_FILES)) if files >= 0 else wanted


class Gateway:
    """One process of the vertex. It listens from the moment it is made; `port` says where."""

    def __init__(
        self, bus: Bus, database: Database, types: TaskTypeRegistry, settings: Settings, ops: Ops
    ) -> None:
        """`database` is open in the role of the gateway. Raises `OSError` if the port is taken."""
        self.ports = open_ports(bus, database, types, settings)
        self.application = Application(self.ports, ops)
        self._listener: socket.socket = open_socket(
            settings.http_host, settings.http_port, "PERMAFLOW_HTTP_PORT"
        )
        config = uvicorn.Config(
            self.application.asgi,
            http=limited(_most_connections(settings.http_connections)),
            ws="websockets-sansio",
            ws_max_size=LARGEST_MESSAGE,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=LONGEST_GOODBYE,
        )
        self._server = QuietServer(config)

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    async def run(self) -> None:
        await self._server.serve([self._listener])
        await self.ports.starts.close()
        await self.ports.tables.aclose()

    async def stop(self) -> None:
        """Take no more requests, and finish what is open."""
        self.application.close()
        self._server.should_exit = True
