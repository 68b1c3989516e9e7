"""The outside that steps reach: an HTTP site and a mail server that do what an address says.

`/<what>/<token>` (and the mailbox `<what>-<token>@example.com`) answers

    ok       200 (250)
    flaky    503 (451) the first time, then as ok
    no       422 (550)
    hang     never
    held     the first time not before `release`, then as ok
    twice    as ok, but not before a second request has come, or a second has gone by
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

PATIENCE = 1.0


class Outside:
    """What it is asked, and when it answers."""

    def __init__(self) -> None:
        self.port = 0
        self.mail_port = 0
        self.asked: Counter[str] = Counter()
        self._serving: set[asyncio.Task[Any]] = set()
        self._asked: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._again: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self._released: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def url(self, what: str, token: str) -> str:
        return f"http://127.0.0.1:{self.port}/{what}/{token}"

    async def until_asked(self, token: str, within: float) -> None:
        async with asyncio.timeout(within):
            await self._asked[token].wait()

    def release(self, token: str) -> None:
        self._released[token].set()

    async def answer(self, what: str, token: str) -> int:
        """The status of the answer, once it is due."""
        self.asked[token] += 1
        count = self.asked[token]
        self._asked[token].set()
        if count > 1:
            self._again[token].set()
        match what:
            case "no":
                return 422
            case "flaky":
                return 503 if count == 1 else 200
            case "hang":
                await asyncio.Event().wait()
            case "held" if count == 1:
                await self._released[token].wait()
            case "twice":
                try:
                    await asyncio.wait_for(self._again[token].wait(), PATIENCE)
                except TimeoutError:
                    pass
        return 200

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request on a connection."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            for line in head.lower().splitlines():
                if line.startswith("content-length:"):
                    await reader.readexactly(int(line.partition(":")[2]))
            what, token = head.split()[1].strip("/").split("/")[:2]
            status = await self.answer(what, token)
            body = b'{"said": "ok"}'
            writer.write(
                f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n"
                f"content-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self._serving.discard(task)
            writer.close()

    async def close(self) -> None:
        """Whoever still waits for an answer gets none."""
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def handle_RCPT(
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        what, _, token = address.partition("@")[0].partition("-")
        status = await self.answer(what, token)
        if status == 200:
            envelope.rcpt_tos.append(address)
        return {200: "250 OK", 503: "451 later", 422: "550 never"}[status]

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:
        return "250 OK"


@asynccontextmanager
async def outside() -> AsyncIterator[Outside]:
    """Both servers, on free ports."""
    one = Outside()
    loop = asyncio.get_running_loop()
    async with AsyncExitStack() as stack:
        site = await asyncio.start_server(one.serve, "127.0.0.1", 0)
        mail = await loop.create_server(
            lambda: SMTP(one, hostname="post.example", loop=loop), "127.0.0.1", 0
        )
        one.port = site.sockets[0].getsockname()[1]
        one.mail_port = mail.sockets[0].getsockname()[1]
        stack.push_async_callback(one.close)
        stack.callback(site.close)
        stack.callback(mail.close)
        yield one
