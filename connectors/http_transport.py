"""HTTP to the outside world, for tasks: the port `permaflow.task.Http`.

What it promises, whatever the URL, the headers and the other side say: it reaches no private
address (`guarded_network.py`), takes no proxy and no credentials from the environment, keeps no
cookies, follows at most five redirects and judges each anew, sends what may be a secret to no
other origin, and stops reading at the limits of size and time, after decompression.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import NoReturn

import httpcore
import httpx

from connectors.addresses import parse_permits
from connectors.connections import Connections
from connectors.guarded_network import DEFAULT_PORTS, GuardedNetwork, Resolve, SystemResolver
from connectors.http_rules import (
    MAX_REDIRECTS,
    REDIRECTS,
    Headers,
    check_headers,
    check_method,
    parse_url,
    port_of,
    redirected,
)
from connectors.inflate import Inflater
from permaflow.errors import (
    AnswerTooLargeError,
    ConnectorTimeoutError,
    InputError,
    RedirectError,
    UnreachableError,
    UntrustedPeerError,
)


@dataclass(frozen=True, slots=True)
class Response:
    """An answer, read whole and decompressed. Repeated headers are joined by commas."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str


class GuardedHttp:
    """Implements `permaflow.task.Http`. One object serves a whole process; close it at the end.

    `allow` lists what operators permit beyond public addresses, as in `addresses.parse_permits`;
    `ca_file` adds a certificate authority to the public ones. `resolve` is for tests.
    """

    def __init__(
        self,
        *,
        allow: Sequence[str] = (),
        ports: Iterable[int] = DEFAULT_PORTS,
        timeout: timedelta = timedelta(seconds=30),
        max_bytes: int = 16_000_000,
        connections: int = 256,
        ca_file: Path | None = None,
        resolve: Resolve | None = None,
    ) -> None:
        self._timeout = timeout
        self._max_bytes = max_bytes
        self._on_close: Callable[[], None] = lambda: None
        if resolve is None:
            resolve = system = SystemResolver()
            self._on_close = system.close
        trust = httpx.create_ssl_context(trust_env=False)
        if ca_file is not None:
            trust.load_verify_locations(ca_file)
        network = GuardedNetwork(resolve, permits=parse_permits(allow), ports=ports)
        self._connections = Connections(network, trust, most=connections)
        self._agent = f"permaflow/{version('permaflow')}"

    async def __aenter__(self) -> GuardedHttp:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        await self._connections.aclose()
        self._on_close()

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: timedelta | None = None,
        max_bytes: int | None = None,
        follow_redirects: bool = True,
        may: Callable[[str], None] | None = None,
    ) -> Response:
        """`may` is called with each host before anything is sent there; what it raises ends it."""
        check_method(method)
        target = parse_url(url)
        wanted = check_headers(headers or {})
        limit = self._max_bytes if max_bytes is None else min(max_bytes, self._max_bytes)
        seconds = (timeout or self._timeout).total_seconds()
        try:
            async with asyncio.timeout(seconds):
                for _ in range(MAX_REDIRECTS + 1):
                    if may is not None:
                        may(target.raw_host.decode("ascii"))
                    answer = await self._exchange(method, target, wanted, body, limit, seconds)
                    location = answer.headers.get("location")
                    if not follow_redirects or answer.status not in REDIRECTS or not location:
                        return answer
                    method, target, wanted, body = redirected(
                        answer.status, method, target, location, wanted, body
                    )
        except TimeoutError:
            raise ConnectorTimeoutError(
                f"{target.host} did not answer within {seconds:g} s."
            ) from None
        raise RedirectError(f"There were more than {MAX_REDIRECTS} redirects.")

    async def _exchange(
        self,
        method: str,
        url: httpx.URL,
        headers: Headers,
        body: bytes | None,
        limit: int,
        seconds: float,
    ) -> Response:
        origin = httpcore.Origin(url.raw_scheme, url.raw_host, port_of(url))
        request = httpcore.Request(
            method,
            httpcore.URL(
                scheme=origin.scheme, host=origin.host, port=origin.port, target=url.raw_path
            ),
            headers=self._lines(method, url, headers, body),
            content=body,
            extensions={"timeout": dict.fromkeys(("connect", "read", "write"), seconds)},
        )
        try:
            async with self._connections.lend(origin) as connection:
                answer = await connection.handle_async_request(request)
                try:
                    received = _received(answer.headers)
                    skip = answer.status in REDIRECTS and "location" in received
                    content = b"" if skip else await _read(answer, method, received, limit)
                finally:
                    await answer.aclose()
        except (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError) as error:
            _explain(error, url.host)
        except (httpcore.UnsupportedProtocol, OSError) as error:
            _explain(error, url.host)
        return Response(answer.status, received, content, str(url))

    def _lines(
        self, method: str, url: httpx.URL, headers: Headers, body: bytes | None
    ) -> list[tuple[bytes, bytes]]:
        lines = [(b"Host", url.netloc)]
        if "user-agent" not in headers:
            lines.append((b"User-Agent", self._agent.encode()))
        if "accept" not in headers:
            lines.append((b"Accept", b"*/*"))
        lines.append((b"Accept-Encoding", b"gzip, deflate"))
        lines += [(name.encode(), value.encode("latin-1")) for name, value in headers.values()]
        if body is not None or method in ("POST", "PUT", "PATCH"):
            lines.append((b"Content-Length", str(len(body or b"")).encode()))
        return lines


def _received(lines: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for raw, value in lines:
        name = raw.decode("latin-1").lower()
        text = value.decode("latin-1")
        headers[name] = f"{headers[name]}, {text}" if name in headers else text
    return headers


async def _read(
    answer: httpcore.Response, method: str, headers: Mapping[str, str], limit: int
) -> bytes:
    coding = headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("identity", "", "gzip", "x-gzip", "deflate"):
        raise UnreachableError(f"The answer is encoded as {coding[:40]}, which nobody asked for.")
    declared = headers.get("content-length", "")
    if method != "HEAD" and declared.isdecimal() and int(declared[:20]) > limit:
        raise _too_large(limit)
    inflate = None if coding in ("identity", "") else Inflater(limit)
    parts: list[bytes] = []
    size = 0
    async for chunk in answer.aiter_stream():
        part = chunk if inflate is None else inflate.feed(chunk)
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        parts.append(part)
    if inflate is not None and not inflate.complete:
        raise UnreachableError("The compressed answer ends too early.")
    return b"".join(parts)


def _too_large(limit: int) -> AnswerTooLargeError:
    return AnswerTooLargeError(f"The answer is larger than {limit:,} bytes.")


def _explain(error: Exception, host: str) -> NoReturn:
    """Turn what the libraries raise into an error of ours."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    match error:
        case httpcore.TimeoutException():
            raise ConnectorTimeoutError(f"{host} did not answer in time.") from error
        case httpcore.LocalProtocolError() | httpcore.UnsupportedProtocol():
            raise InputError(f"This request cannot be sent: {error}.") from error
    if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
        why = getattr(cause, "verify_message", "") or cause.reason or "TLS failed"
        raise UntrustedPeerError(f"{host}: {why}.") from error
    raise UnreachableError(
        f"The connection to {host} failed: {error or type(error).__name__}."
    ) from error
