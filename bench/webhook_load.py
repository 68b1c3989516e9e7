"""Webhooks at a steady rate, from a process of its own.

    python -m bench.webhook_load <host> <port> <path> <rate> <seconds> <connections>

Every request has its moment, and its time counts from there: a request that has to wait for a free
connection, because those before it are slow, is late and counts as late. Prints one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio import Future
from typing import cast

import uvloop

WARM_UP_SECONDS = 1.0
TICK = 0.001
"""Seconds that a request may leave late, and counts as late: who waits for less takes a whole core
from those who are measured."""


class Connection(asyncio.Protocol):
    """One kept-alive connection, with one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._answer: Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def ask(self, request: bytes) -> Future[tuple[int, bytes]]:
        """Status and body; status 0 if the connection is lost."""
        self._answer = asyncio.get_running_loop().create_future()
        if self._transport is None or self._transport.is_closing():
            self._answer.set_result((0, b""))
        else:
            self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, body = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r")[0] or 0)
        if len(body) >= length:
            self._buffer = b""
            self._resolve((int(head[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        self._resolve((0, b""))

    def _resolve(self, answer: tuple[int, bytes]) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)


class Load:
    """Requests by the clock over some connections."""

    def __init__(self, host: str, path: str, connections: list[Connection]) -> None:
        self._head = (
            f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        ).encode()
        self._free: asyncio.Queue[Connection] = asyncio.Queue()
        for connection in connections:
            self._free.put_nowait(connection)

    async def run(self, rate: float, seconds: float, first: int) -> dict[str, object]:
        """What came back: times in seconds, the ids of the runs, and how many failed how."""
        self.times: list[float] = []
        self.runs: list[str] = []
        self.failed: dict[str, int] = {}
        count = int(rate * seconds)
        start = time.perf_counter()
        tasks = []
        for number in range(count):
            due = start + number / rate
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(max(early, TICK))
            tasks.append(asyncio.create_task(self._one(first + number, due)))
        await asyncio.gather(*tasks)
        took = time.perf_counter() - start
        return {
            "sent": count,
            "seconds": took,
            "times": self.times,
            "runs": self.runs,
            "failed": self.failed,
        }

    async def _one(self, number: int, due: float) -> None:
        body = json.dumps({"order": {"id": number, "total": 12.5}, "text": "x" * 400}).encode()
        connection = await self._free.get()
        request = b"%bcontent-length: %d\r\n\r\n%b" % (self._head, len(body), body)
        status, answer = await connection.ask(request)
        self.times.append(time.perf_counter() - due)
        self._free.put_nowait(connection)
        if status == 202:
            self.runs.append(json.loads(answer)["run_id"])
        else:
            self.failed[str(status)] = self.failed.get(str(status), 0) + 1


async def main(
    host: str, port: int, path: str, rate: float, seconds: float, connections: int
) -> None:
    loop = asyncio.get_running_loop()
    made = [(await loop.create_connection(Connection, host, port))[1] for _ in range(connections)]
    load = Load(f"{host}:{port}", path, made)
    warm = await load.run(rate, min(seconds, WARM_UP_SECONDS), 10**9)
    result = await load.run(rate, seconds, 0)
    result["warm_up_runs"] = warm["runs"]
    print(json.dumps(result))


if __name__ == "__main__":
    where, at, path, rate, seconds, connections = sys.argv[1:]
    uvloop.run(main(where, int(at), path, float(rate), float(seconds), int(connections)))
