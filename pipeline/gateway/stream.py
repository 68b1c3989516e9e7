"""GET /workflows/v1/runs/{run_id}/stream: what happens to a run, as server-sent events.

First what is in the journal already, then what is added. The id of an event is `seq.place`, its
place in the journal, so a client that was cut off goes on with `Last-Event-ID` and misses nothing.
`run_completed` is the last event of every run and tells its status; then the stream ends, and a
client that asks again with that id is answered 204, which tells it to stop. Only a run that is
retried goes on after it.

If a doorbell is lost the stream looks by itself after a few seconds. A client that does not read is
dropped after a while; so is one whose API key was revoked.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import UUID

import orjson
from starlette.requests import Request
from starlette.responses import Response

from permaflow.errors import NotFoundError
from pipeline.core.approval import KIND as APPROVAL
from pipeline.core.view import RUN_COMPLETED, tell
from pipeline.gateway import event_stream
from pipeline.gateway.auth import Guard, bearer, caller_of
from pipeline.gateway.event_stream import EventStream, event, news
from pipeline.gateway.feed import Feed, Watcher
from pipeline.gateway.histories import approval_of, entries_of, reference
from pipeline.gateway.ports import Ports
from pipeline.gateway.problems import Refusal
from pipeline.store import runs
from pipeline.store.runs import JournalRow, Run

SLICE = 200
_ID = re.compile(r"(\d{1,9})\.(\d{1,9})", re.ASCII)

Place = tuple[int, int]
"""Row and place in it: the last event that a client has."""

Told = tuple[int, str, dict[str, Any]]
"""Place in the row, name and data of an event."""


class Streams:
    """The handler."""

    def __init__(self, ports: Ports, feed: Feed[UUID], guard: Guard) -> None:
        self._ports = ports
        self._feed = feed
        self._guard = guard

    async def stream_run(self, request: Request) -> Response:
        """Watch a run: server-sent events, from the beginning or from `Last-Event-ID` on."""
        org = caller_of(request).org
        run_id = _run_id(request)
        last = _last_event(request)
        run = await self._ports.pool.run_as(org, runs.get, org, run_id)
        if last is not None and run.finished_at is not None:
            rows = await self._rows(org, run_id, last)
            if not any(True for row in rows for _ in _after(row, last)):
                return Response(status_code=204)
        key = bearer(request)
        return EventStream(
            self._feed.watch(org, run_id),
            lambda watcher: self.serve(run, last or (0, 0), key, watcher),
        )

    async def serve(
        self, run: Run, last: Place, key: str, watcher: Watcher
    ) -> AsyncIterator[bytes]:
        """The text of the stream."""
        org, run_id = run.org_id, run.id
        clock = asyncio.get_running_loop().time
        checked_at = sent_at = clock()
        yield event_stream.RETRY
        over = False
        while not watcher.gone:
            watcher.news.clear()
            rows = await self._rows(org, run_id, last)
            fresh = [(row, place) for row in rows for place in _after(row, last)]
            for row, (place, name, data) in fresh:
                yield _event(run_id, row, place, name, data)
                over = name == RUN_COMPLETED
            if over and (not fresh or len(rows) < SLICE):
                return
            if fresh:
                sent_at = clock()
                last = (fresh[-1][0].seq, fresh[-1][1][0])
                continue
            pause = min(event_stream.LOOK_AGAIN, event_stream.HEARTBEAT - (clock() - sent_at))
            if run.finished_at is not None or not await news(watcher, pause):
                if (end := await self._end(org, run_id, last)) is not None:
                    yield end
                    return
                if clock() - sent_at >= event_stream.HEARTBEAT:
                    sent_at = clock()
                    yield event_stream.PING
            if clock() - checked_at >= event_stream.CHECK_KEY:
                checked_at = clock()
                if await self._guard.find(key) is None:
                    return

    async def _rows(self, org: UUID, run_id: UUID, last: Place) -> list[JournalRow]:
        """From the row of the last event on: there may be more in it."""
        return await self._ports.pool.run_as(
            org, runs.journal, org, run_id, after=max(0, last[0] - 1), limit=SLICE
        )

    async def _end(self, org: UUID, run_id: UUID, last: Place) -> bytes | None:
        """The last event of a run that ended without a word in its journal."""
        run = await self._ports.pool.run_as(org, runs.get, org, run_id)
        if run.finished_at is None:
            return None
        rows = await self._rows(org, run_id, last)
        return None if any(True for row in rows for _ in _after(row, last)) else _ended(run, last)


def _after(row: JournalRow, last: Place) -> Iterator[Told]:
    """The events of a row that come after the last one."""
    for place, entry in enumerate(entries_of(row), start=1):
        if (row.seq, place) > last:
            yield place, *tell(entry)


def _event(run_id: UUID, row: JournalRow, place: int, name: str, data: dict[str, Any]) -> bytes:
    ref = data.pop("ref", None)
    if ref is not None:
        data["output"] = reference(run_id, str(ref))
    if data.get("kind") == APPROVAL:
        data["approval"] = approval_of(run_id, data["scope"], data["node"], data["attempt"])
    return _text(f"{row.seq}.{place}", name, {"run_id": run_id, "at": row.at, **data})


def _ended(run: Run, last: Place) -> bytes:
    data = {
        "run_id": run.id,
        "at": run.finished_at,
        "status": run.status,
        "error": None if run.error is None else orjson.loads(run.error),
    }
    return _text(f"{last[0]}.{last[1]}", RUN_COMPLETED, data)


def _text(event_id: str, name: str, data: dict[str, object]) -> bytes:
    return event(event_id, name, orjson.dumps(data, option=orjson.OPT_UTC_Z))


def _run_id(request: Request) -> UUID:
    text = str(request.path_params["run_id"])
    try:
        return UUID(text)
    except ValueError:
        raise NotFoundError(f"There is no run {text[:50]}.") from None


def _last_event(request: Request) -> Place | None:
    """The last event that the client has; EventSource sends it, others may put it in the query."""
    text = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    if not text:
        return None
    found = _ID.fullmatch(text)
    if found is None:
        raise Refusal(400, "bad_parameter", f"{text[:50]!r} is no id of an event of ours.")
    return int(found[1]), int(found[2])
