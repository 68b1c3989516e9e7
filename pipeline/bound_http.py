"""HTTP for one attempt: a secret that is bound to hosts takes all that is sent there with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Protocol

from permaflow.task import HttpResponse


class AskingHttp(Protocol):
    """`permaflow.task.Http` that asks before it goes to a host, after each redirect too.

    What `may` raises ends the request.
    """

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
    ) -> HttpResponse: ...


class BoundHttp:
    """Implements `permaflow.task.Http`. `may` is asked with the host of each request.

    A task may put a secret into any part of a request, in any spelling, so what it sends is not
    searched: once it has a secret that is bound to hosts, all that it sends goes to those.
    """

    __slots__ = ("_http", "_may")

    def __init__(self, http: AskingHttp, may: Callable[[str], None]) -> None:
        self._http = http
        self._may = may

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
    ) -> HttpResponse:
        return await self._http.request(
            method,
            url,
            headers=headers,
            body=body,
            timeout=timeout,
            max_bytes=max_bytes,
            follow_redirects=follow_redirects,
            may=self._may,
        )
