"""Connections to the outside world, and to nowhere else.

A name is resolved once for each connection; every address of the answer is judged, and one bad
address condemns them all; the connection goes to a judged address, never to the name; and who
answers is compared with who was asked. So a name server that changes its mind gains nothing.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpcore

from connectors.addresses import Address, Permit, blocked, parse_address
from permaflow.errors import BlockedAddressError, InputError, UnreachableError

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""Host and port → the addresses, as text. Raises `OSError`."""

DEFAULT_PORTS = frozenset({80, 443, 8080, 8443})

_LEAST_WAIT = 2.0


class SystemResolver:
    """The machine's own resolver, in threads of its own: a slow name server delays nobody else."""

    def __init__(self, threads: int = 8) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="permaflow-dns")

    async def __call__(self, host: str, port: int) -> Sequence[str]:
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        )
        return tuple(dict.fromkeys(str(item[4][0]) for item in found))

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Opens TCP connections for an httpcore pool, to permitted and to public addresses only."""

    def __init__(
        self,
        resolve: Resolve,
        *,
        permits: Sequence[Permit] = (),
        ports: Iterable[int] = DEFAULT_PORTS,
        network: httpcore.AsyncNetworkBackend | None = None,
    ) -> None:
        self._resolve = resolve
        self._permits = tuple(permits)
        self._ports = frozenset(ports)
        self._network = network or httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Any = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._vetted(host, port)
        share = None if timeout is None else max(timeout / len(addresses), _LEAST_WAIT)
        error: Exception | None = None
        for address in addresses:
            try:
                stream = await self._network.connect_tcp(
                    str(address), port, share, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as failed:
                error = failed
                continue
            if not _answers(stream, address):
                await stream.aclose()
                raise BlockedAddressError(f"{host}:{port} was answered by somebody else.")
            return stream
        raise UnreachableError(f"No connection to {host}:{port} could be made.") from error

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Any = None
    ) -> httpcore.AsyncNetworkStream:
        raise BlockedAddressError("Unix sockets may not be reached.")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def _vetted(self, host: str, port: int) -> tuple[Address, ...]:
        try:
            addresses = tuple(parse_address(text) for text in await self._resolve(host, port))
        except UnicodeError:
            raise InputError(f"{host!r} is no host name.") from None
        except OSError as error:
            raise UnreachableError(f"The name {host!r} cannot be resolved.") from error
        if not addresses:
            raise UnreachableError(f"The name {host!r} has no address.")
        for address in addresses:
            reason = self._objection(address, host, port)
            if reason is not None:
                raise BlockedAddressError(
                    f"{host}:{port} may not be reached: {reason}. "
                    "An operator can permit it with PERMAFLOW_HTTP_ALLOW."
                )
        return addresses

    def _objection(self, address: Address, host: str, port: int) -> str | None:
        if any(permit.covers(address, host, port) for permit in self._permits):
            return None
        reason = blocked(address)
        if reason is not None:
            return f"its address is {reason}"
        if port not in self._ports:
            return f"the port is not one of {', '.join(map(str, sorted(self._ports)))}"
        return None


def _answers(stream: httpcore.AsyncNetworkStream, address: Address) -> bool:
    """Whether the peer of the socket is the address that was judged."""
    peer = stream.get_extra_info("server_addr")
    try:
        return parse_address(peer[0]) == address
    except (TypeError, ValueError, IndexError):
        return False
