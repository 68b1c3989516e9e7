"""What anybody may send before a request is one: so much, and in so much time."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys

import pytest

from pipeline.gateway import connection
from pipeline.gateway.connection import MAX_HEAD
from tests.fix_engine import WITHIN
from tests.fix_gateway import RUNS, graph, webhook
from tests.fix_site import RunningSite, Sites


async def said(site: RunningSite, *parts: bytes, pause: float = 0.0) -> bytes:
    """What the gateway answers to these bytes, until it closes the connection."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.gateway.port)
    try:
        async with asyncio.timeout(WITHIN):
            try:
                for part in parts:
                    writer.write(part)
                    await writer.drain()
                    await asyncio.sleep(pause)
                return await reader.read()
            except ConnectionError:
                return b""  # it has closed already, with something unread
    finally:
        writer.close()


def head(size: int) -> bytes:
    """A request whose address and headers have this size."""
    parts = {b"connection": b"close", b"host": b"x"}
    rest = size - len(b"/livez") - sum(len(name) + len(value) for name, value in parts.items())
    lines = b"".join(b"%s: %s\r\n" % pair for pair in parts.items())
    return b"GET /livez HTTP/1.1\r\n%sx: %s\r\n\r\n" % (lines, b"a" * (rest - 1))


@pytest.mark.parametrize(
    ("size", "status"), [(MAX_HEAD - 1, 200), (MAX_HEAD, 200), (MAX_HEAD + 1, 431)]
)
async def test_a_head_may_be_so_large(site: RunningSite, size: int, status: int) -> None:
    assert (await said(site, head(size))).startswith(b"HTTP/1.1 %d " % status)


@pytest.mark.parametrize("start", [b"GET /", b"GET / HTTP/1.1\r\nx: ", b"GET / HTTP/1.1\r\nx"])
async def test_a_head_without_end_is_not_kept(
    site: RunningSite, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(connection, "SLOWEST_HEAD", 1000.0)
    endless = [b"a" * 10_000] * 100
    answer = await said(site, start, *endless)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


async def test_a_large_body_is_no_head(site: RunningSite) -> None:
    start = b"POST /webhooks/workflow/x HTTP/1.1\r\nconnection: close\r\nhost: x\r\n"
    length = b"content-length: 90000\r\n\r\n"
    answer = await said(site, start + length, *[b"a" * 45_000] * 2)
    assert answer.startswith(b"HTTP/1.1 404 ")


@pytest.mark.parametrize("start", [b"", b"\r\n", b"GET /livez HTTP/1.1\r\nhost: "])
async def test_who_does_not_come_to_a_request_is_let_go(
    site: RunningSite, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(connection, "SLOWEST_HEAD", 0.2)
    assert await said(site, start) == b""


async def test_a_request_whose_head_has_come_has_time(
    site: RunningSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SLOWEST_HEAD", 0.2)
    reader, writer = await asyncio.open_connection("127.0.0.1", site.gateway.port)
    request = b"POST /webhooks/workflow/x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"
    try:
        async with asyncio.timeout(WITHIN):
            writer.write(request)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.6):
                    await reader.read(1)
            writer.write(b"{}")
            assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 404 ")
    finally:
        writer.close()


H2C = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
OTHER = b"connection: upgrade\r\nupgrade: other/1, websocket\r\n"


@pytest.mark.parametrize("pause", [0.0, 0.2])
@pytest.mark.parametrize("upgrade", [H2C, OTHER])
async def test_an_upgrade_that_is_no_websocket_is_ignored(
    site: RunningSite, upgrade: bytes, pause: float
) -> None:
    saved = await site.active({"name": "Hooks", "definition": graph(webhook())})
    start = b"POST %s HTTP/1.1\r\nhost: x\r\n" % saved["webhooks"][0]["path"].encode() + upgrade
    request = b"GET /version HTTP/1.1\r\nhost: x\r\n\r\n"
    bodies = [
        (b"content-length: 11\r\n\r\n", b'{"order":1}'),
        (b"transfer-encoding: chunked\r\n\r\n", b'b\r\n{"order":2}\r\n0\r\n\r\n'),
        (b"content-length: %d\r\n\r\n" % len(request), request),
    ]
    parts = [part for length, body in bodies for part in (start + length, body)]
    parts.append(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    answer = await said(site, *(parts if pause else [b"".join(parts)]), pause=pause)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"202"] * 3 + [b"200"]
    ended = await site.ended(saved["id"], 3)
    runs = [(await site.door.get(f"{RUNS}/{run['id']}")).json() for run in ended]
    came = [value for run in runs for value in run["trigger_data"]["body"].values()]
    assert sorted(came, key=str) == [1, 2, request.decode()]


async def test_many_requests_with_an_upgrade_in_one_packet_are_answered_in_turn(
    site: RunningSite,
) -> None:
    asked = b"GET /livez HTTP/1.1\r\nhost: x\r\n%s\r\n" % H2C
    closing = b"GET /version HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
    answer = await said(site, asked * 30 + closing)
    assert answer.count(b"HTTP/1.1 200 ") == 31


async def test_the_gateway_is_no_proxy(site: RunningSite) -> None:
    answer = await said(site, b"CONNECT x:80 HTTP/1.1\r\nhost: x\r\n\r\n" + LIVE)
    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"400"]


LIVE = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"
Open = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def opened(site: RunningSite, *said: bytes) -> Open:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.gateway.port)
    for part in said:
        writer.write(part)
        await writer.drain()
    return reader, writer


async def status(connection: Open) -> bytes:
    """The status of the next answer; nothing if the connection was closed without one."""
    reader, _ = connection
    async with asyncio.timeout(WITHIN):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        return head.split(b" ")[1]


async def test_connections_that_wait_for_nothing_make_room_for_those_that_ask(sites: Sites) -> None:
    async with sites(http_connections=3) as site:
        asked = await opened(site, LIVE)
        assert await status(asked) == b"200"
        silent = [await opened(site) for _ in range(8)]
        slow = await opened(site, b"GET /livez HTTP/1.1\r\nx: ")
        late = await opened(site, LIVE)
        assert await status(late) == b"200"
        # The first ones had waited for the longest.
        assert [await status(each) for each in (asked, *silent[:7])] == [b""] * 8
        late[1].write(LIVE)
        assert await status(late) == b"200"
        slow[1].write(b"y\r\nhost: x\r\n\r\n")
        assert await status(slow) == b"200"
        for _, writer in (asked, *silent, slow, late):
            writer.close()


async def test_when_all_connections_are_at_work_one_more_is_told_so(sites: Sites) -> None:
    begun = b"POST /webhooks/workflow/x HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"
    async with sites(http_connections=2) as site:
        working = [await opened(site, begun) for _ in range(2)]
        async with asyncio.timeout(WITHIN):
            while (await status(extra := await opened(site, LIVE))) != b"503":
                extra[1].close()  # one of the others had not been read yet
        for each in working:
            each[1].write(b"{}")
        assert [await status(each) for each in working] == [b"404", b"404"]
        extra[1].close()
        for _, writer in working:
            writer.close()


@pytest.mark.parametrize(("wanted", "allowed"), [(100, 100), (500, 500), (5_000, 924)])
def test_as_many_connections_as_wanted_or_as_the_system_allows(wanted: int, allowed: int) -> None:
    """What a process may raise by itself, it raises."""
    program = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (256, 1024));"
        f"from pipeline.gateway.server import _most_connections; print(_most_connections({wanted}))"
    )
    command = [sys.executable, "-c", program]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert int(said.stdout) == allowed
