"""The outside that steps reach: an HTTP site and a mail server that do what an address says.

`/<what>/<token>` (and the mailbox `<what>-<token>@example.com`) answers

    ok       200 (250)
    flaky    503 (451) the first time, then as ok
    no       422 (550)
    hang     never
    held     not before `release`, then as ok

Its answers name a moment, `ahead` seconds from then on, as `at` and in milliseconds as `at_ms`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from email import message_from_bytes
from typing import Any

from aiosmtpd.smtp import SMTP, Envelope, Session

AHEAD = 10.0


class Outside:
    """What it is asked, under which idempotency keys, and when it answers."""

    def __init__(self) -> None:
        self.port = 0
        self.mail_port = 0
        self.ahead: defaultdict[str, float] = defaultdict(lambda: AHEAD)
        self.asked: Counter[str] = Counter()
        self.keys: defaultdict[str, set[str]] = defaultdict(set)
        self._serving: set[asyncio.Task[Any]] = set()
        self._changed = asyncio.Condition()
        self._released: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def url(self, what: str, token: str) -> str:
        return f"http://127.0.0.1:{self.port}/{what}/{token}"

    async def until_asked(self, token: str, within: float, times: int = 1) -> None:
        async with asyncio.timeout(within), self._changed:
            await self._changed.wait_for(lambda: self.asked[token] >= times)

    def release(self, token: str) -> None:
        self._released[token].set()

    async def answer(self, what: str, token: str) -> int:
        """The status of the answer, once it is due."""
        self.asked[token] += 1
        count = self.asked[token]
        async with self._changed:
            self._changed.notify_all()
        match what:
            case "no":
                return 422
            case "flaky":
                return 503 if count == 1 else 200
            case "hang":
                await asyncio.Event().wait()
            case "held":
                await self._released[token].wait()
        return 200

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request on a connection."""
        task = asyncio.current_task()
        assert task is not None
        self._serving.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            what, token = head.split()[1].strip("/").split("/")[:2]
            for line in head.lower().splitlines():
                name, _, value = line.partition(":")
                if name == "content-length":
                    await reader.readexactly(int(value))
                elif name == "idempotency-key":
                    self.keys[token].add(value.strip())
            status = await self.answer(what, token)
            body = json.dumps(self._said(token)).encode()
            writer.write(
                f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\nconnection: close\r\n"
                f"content-length: {len(body)}\r\n\r\n".encode()
                + body
            )
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self._serving.discard(task)
            writer.close()

    def _said(self, token: str) -> dict[str, Any]:
        moment = time.time() + self.ahead[token]
        at = datetime.fromtimestamp(moment, UTC).isoformat()
        return {"said": "ok", "at": at, "at_ms": int(moment * 1000)}

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
        """Of a mail, its Message-ID is the key."""
        assert isinstance(envelope.content, bytes)
        for address in envelope.rcpt_tos:
            token = address.partition("@")[0].partition("-")[2]
            self.keys[token].add(str(message_from_bytes(envelope.content)["Message-ID"]))
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
