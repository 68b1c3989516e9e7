"""/records/v1/{object}: the built-in store of documents; every change can start workflows."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import quote
from uuid import UUID

from fastapi import Path
from starlette.requests import Request
from starlette.responses import Response

from permaflow.errors import InputError, NotFoundError, StateError
from permaflow.plan import Json
from pipeline.gateway import answers
from pipeline.gateway.answers import answer, etag
from pipeline.gateway.auth import caller_of
from pipeline.gateway.bodies import read
from pipeline.gateway.definitions import Limit
from pipeline.gateway.ports import Ports
from pipeline.gateway.shapes import RecordBody, RecordData, RecordView
from pipeline.store import records
from pipeline.store.database import Connection
from pipeline.store.records import Record

ROOT = "/records/v1"
ENVELOPE = 1_000

ObjectName = Annotated[str, Path(pattern=r"^[A-Za-z_][A-Za-z0-9_.\-]{0,99}$")]
RecordId = Annotated[str, Path(min_length=1, max_length=200)]
_UNREACHABLE = (".", "..")
"""Ids under which no record is made here. There may be some that steps have made."""


class Records:
    """The handlers."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def create_record(self, request: Request, object_name: ObjectName) -> Response:
        """Store a new record, under an id of yours or of ours."""
        org = caller_of(request).org
        body = await read(request, RecordBody, self._limit)
        _check_reachable(body.id, "/id")
        record, fresh = await self._ports.pool.run_as(
            org, records.create, org, object_name, body.data, body.id
        )
        if not fresh:
            raise StateError(f"There is a record {record.id!r} already; PUT or PATCH changes it.")
        return _show(record, 201)

    async def list_records(
        self,
        request: Request,
        object_name: ObjectName,
        limit: Limit = 50,
        cursor: str | None = None,
    ) -> Response:
        """Records of an object, by id."""
        org = caller_of(request).org
        found = await self._ports.pool.run_as(
            org,
            records.find,
            org,
            object_name,
            after=answers.decode_cursor(cursor) or "",
            limit=limit + 1,
        )
        shown = found[:limit]
        views = [_view(record) for record in shown]
        return answers.page(request, found, limit, views, shown[-1].id if shown else "")

    async def get_record(
        self, request: Request, object_name: ObjectName, record_id: RecordId
    ) -> Response:
        """One record."""
        org = caller_of(request).org
        record = await self._ports.pool.run_as(org, records.get, org, object_name, record_id)
        return _show(_found(record, record_id))

    async def replace_record(
        self, request: Request, object_name: ObjectName, record_id: RecordId
    ) -> Response:
        """Store these fields and no others; makes the record if it is not there."""
        return await self._write(request, object_name, record_id, merge=False)

    async def merge_record(
        self, request: Request, object_name: ObjectName, record_id: RecordId
    ) -> Response:
        """Set these fields and keep the others."""
        return await self._write(request, object_name, record_id, merge=True)

    async def delete_record(
        self, request: Request, object_name: ObjectName, record_id: RecordId
    ) -> Response:
        """Remove a record."""
        org = caller_of(request).org
        await self._ports.pool.run_as(
            org, _delete, org, object_name, record_id, answers.expected_version(request)
        )
        return Response(status_code=204)

    async def _write(
        self, request: Request, object_name: str, record_id: str, *, merge: bool
    ) -> Response:
        org = caller_of(request).org
        body = await read(request, RecordData, self._limit)
        record, fresh = await self._ports.pool.run_as(
            org,
            _change,
            org,
            object_name,
            record_id,
            body.data,
            merge,
            answers.expected_version(request),
        )
        return _show(record, 201 if fresh else 200)

    @property
    def _limit(self) -> int:
        return self._ports.settings.max_document_bytes + ENVELOPE


def _view(record: Record) -> RecordView:
    return RecordView.model_validate(record, from_attributes=True)


def _show(record: Record, status: int = 200) -> Response:
    headers = etag(record.version)
    if status == 201:
        headers["location"] = f"{ROOT}/{record.object}/{quote(record.id, safe='')}"
    return answer(_view(record), status, headers)


def _check_reachable(record_id: str | None, pointer: str) -> None:
    if record_id in _UNREACHABLE:
        detail = "`.` and `..` are no ids of records: clients take them out of an address."
        raise InputError(detail, pointer=pointer)


def _found(record: Record | None, record_id: str) -> Record:
    if record is None:
        raise NotFoundError(f"There is no record {record_id!r}.")
    return record


async def _change(
    connection: Connection,
    org: UUID,
    object_name: str,
    record_id: str,
    data: dict[str, Json],
    merge: bool,
    expected: int | None,
) -> tuple[Record, bool]:
    if not merge and expected is None:
        record, fresh = await records.upsert(
            connection, org, object_name, record_id, data, merge=False
        )
        if fresh:
            _check_reachable(record_id, "/path/record_id")
        return record, fresh
    try:
        changed = await records.update(
            connection, org, object_name, record_id, data, merge=merge, expected=expected
        )
    except StateError as error:
        raise answers.changed(str(error)) from None
    return _found(changed, record_id), False


async def _delete(
    connection: Connection, org: UUID, object_name: str, record_id: str, expected: int | None
) -> None:
    if await records.delete(connection, org, object_name, record_id, expected=expected):
        return
    found = _found(await records.get(connection, org, object_name, record_id), record_id)
    raise answers.changed(f"The record is at version {found.version}, not {expected}.")
