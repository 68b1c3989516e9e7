"""The gateway's HTTP API, as commands use it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeVar
from uuid import UUID

import httpx
import orjson

from pipeline.cli.show import INTERRUPTED, CommandError
from pipeline.endpoints import located
from pipeline.settings import load_settings

DEFINITIONS = "/workflows/v1/definitions"
RUNS = "/workflows/v1/runs"
SECRETS = "/secrets/v1"
APPROVALS = "/workflows/v1/approvals"
PAGE = 200

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Event:
    """A server-sent event."""

    id: str
    name: str
    data: dict[str, Any]


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a command's coroutine. Ctrl-C ends it without a word."""
    import asyncio

    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        raise SystemExit(INTERRUPTED) from None


def ask(method: str, path: str, body: Any = None) -> dict[str, Any]:
    """One call of the API, and the object that it answers. Raises like `Api.call`."""

    async def call() -> dict[str, Any]:
        async with Api() as api:
            answer: dict[str, Any] = await api.call(method, path, body)
            return answer

    return wait_for(call())


class Api:
    """The API at `url`; else that of the settings, or of the running `permaflow up`."""

    def __init__(self, url: str | None = None, key: str = "") -> None:
        if url is None:
            settings = located(load_settings())
            url, key = settings.api_url, settings.api_key.get_secret_value()
        self.url = url.rstrip("/")
        self._client = httpx.AsyncClient(
            base_url=self.url,
            headers={"authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(30.0, connect=5.0),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        **query: Any,
    ) -> Any:
        """The answer's JSON. Raises `CommandError` in the gateway's own words."""
        answer = await self._ask(method, path, body, raw, headers, query)
        return orjson.loads(answer.content) if answer.content else None

    async def text(self, path: str, **query: Any) -> str:
        """What a GET answers, as text. Raises like `call`."""
        return (await self._ask("GET", path, None, None, None, query)).text

    async def _ask(
        self,
        method: str,
        path: str,
        body: Any,
        raw: bytes | None,
        headers: Mapping[str, str] | None,
        query: Mapping[str, Any],
    ) -> httpx.Response:
        content = raw if raw is not None else None if body is None else orjson.dumps(body)
        try:
            answer = await self._client.request(
                method,
                path,
                content=content,
                headers={"content-type": "application/json", **(headers or {})},
                params={name: value for name, value in query.items() if value is not None},
            )
        except httpx.HTTPError as error:
            raise self._unreachable(error) from error
        if answer.is_error:
            raise self._refused(answer.status_code, answer.content)
        return answer

    async def pages(self, path: str, limit: int, **query: Any) -> list[dict[str, Any]]:
        """Up to `limit` items of a list, over as many pages as that takes."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        while len(found) < limit:
            page = await self.call(
                "GET", path, limit=min(PAGE, limit - len(found)), cursor=cursor, **query
            )
            found += page["data"]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        return found

    async def events(self, run_id: str) -> AsyncIterator[Event]:
        """What happens to a run, from its beginning to its end; broken streams are taken up again.

        Raises `CommandError` when the gateway cannot be reached or refuses.
        """
        last, broken, over = "", 0, False
        while True:
            try:
                headers = {"last-event-id": last} if last else {}
                timeout = httpx.Timeout(45.0, connect=5.0)
                async with self._client.stream(
                    "GET", f"{RUNS}/{run_id}/stream", headers=headers, timeout=timeout
                ) as answer:
                    if answer.status_code == 204:
                        return
                    if answer.is_error:
                        raise self._refused(answer.status_code, await answer.aread())
                    async for event in _events(answer.aiter_lines()):
                        last, broken = event.id or last, 0
                        over = event.name == "run_completed"
                        yield event
                if over:  # and it was not retried
                    return
            except httpx.HTTPError as error:
                broken += 1
                if broken > 5:
                    raise self._unreachable(error) from error

    async def workflow_id(self, given: str) -> str:
        """The id of a workflow that is given by id or by name."""
        try:
            return str(UUID(given))
        except ValueError:
            found = await self.named(given)
        if not found:
            raise CommandError(
                f"There is no workflow {given!r}. `permaflow workflow list` shows what there is.",
                code="not_found",
            )
        if len(found) > 1:
            ids = ", ".join(each["id"] for each in found)
            raise CommandError(f"{len(found)} workflows are named {given!r}: give an id of {ids}.")
        return str(found[0]["id"])

    async def named(self, name: str) -> list[dict[str, Any]]:
        """The workflows of this name."""
        every = await self.pages(DEFINITIONS, 100_000)
        return [each for each in every if each["name"] == name]

    def _unreachable(self, error: httpx.HTTPError) -> CommandError:
        reason = str(error) or type(error).__name__
        return CommandError(
            f"The gateway at {self.url} cannot be reached ({reason}). Start it with `permaflow up`,"
            " or set PERMAFLOW_API_URL to where it is.",
            code="unreachable",
        )

    def _refused(self, status: int, body: bytes) -> CommandError:
        try:
            problem = orjson.loads(body)
            detail, code = str(problem["detail"]), str(problem["code"])
            errors = problem.get("errors") or ()
        except (ValueError, KeyError, TypeError):
            return CommandError(f"The gateway at {self.url} answered {status}.", code="refused")
        if status == 401:
            detail += " Set PERMAFLOW_API_KEY; `permaflow up` keeps its key in <data-dir>/api-key."
        return CommandError(detail, code=code, errors=errors)


async def _events(lines: AsyncIterator[str]) -> AsyncIterator[Event]:
    event_id, name, data = "", "message", ""
    async for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        match field:
            case "id":
                event_id = value
            case "event":
                name = value
            case "data":
                data += value
            case "" if not line:
                if data:
                    yield Event(event_id, name, orjson.loads(data))
                name, data = "message", ""
