"""`action_record`: create, read, change, find, delete records, built-in or in a database."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID, uuid5

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    RootModel,
    Tag,
)

from permaflow.errors import PermaflowError
from permaflow.plan import Json
from permaflow.task import Done, Reject, TaskContext, TaskType, Verdict, failure
from stages.record_questions import Conditions, Limit, Sort, question

_IDS = UUID("9b2f0f0c-6b0c-5d6e-9a51-7f3f3f0f5a10")


def _id(value: object) -> object:
    """Templates may give a number where an id is meant."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Name = Annotated[str, Field(min_length=1, max_length=200)]
RecordId = Annotated[str, BeforeValidator(_id), Field(min_length=1, max_length=200)]
Values = Annotated[dict[str, Json], Field(min_length=1)]


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CreateRecord(_Model):
    """A new record of the built-in store. Without an `id` it gets one that every attempt gives."""

    operation: Literal["create"]
    object: Name
    data: dict[str, Json]
    id: RecordId | None = None


class GetRecord(_Model):
    """One record, by its id."""

    operation: Literal["get"]
    object: Name
    id: RecordId


class UpdateRecord(_Model):
    """Set some fields of a record; the others stay."""

    operation: Literal["update"]
    object: Name
    id: RecordId
    data: dict[str, Json]


class UpsertRecord(_Model):
    """Set some fields of a record, which is made if it is not there."""

    operation: Literal["upsert"]
    object: Name
    id: RecordId
    data: dict[str, Json]


class QueryRecords(_Model):
    """Records that pass all filters. A field is a path in the data (`address.city`), or `$id`,
    `$version`, `$created_at` or `$updated_at`.
    """

    operation: Literal["query"]
    object: Name
    filter: Conditions = ()
    sort: Sort = ()
    limit: Limit = 100


class DeleteRecord(_Model):
    """Remove a record. One that is not there is no failure."""

    operation: Literal["delete"]
    object: Name
    id: RecordId


class CreateRow(_Model):
    """A new row of a table (`table` or `schema.table`) of a configured database."""

    operation: Literal["create"]
    source: Name
    table: Name
    values: dict[str, Json]


class GetRow(_Model):
    """The first row whose columns have these values."""

    operation: Literal["get"]
    source: Name
    table: Name
    match: Values


class UpdateRows(_Model):
    """Set columns of the rows whose columns have these values; null matches null."""

    operation: Literal["update"]
    source: Name
    table: Name
    match: Values
    values: Values


class UpsertRow(_Model):
    """Set columns of the row that matches, which is made if it is not there. The columns of `match`
    must be unique together.
    """

    operation: Literal["upsert"]
    source: Name
    table: Name
    match: Values
    values: dict[str, Json] = {}


class QueryRows(_Model):
    """Rows that pass all filters."""

    operation: Literal["query"]
    source: Name
    table: Name
    filter: Conditions = ()
    sort: Sort = ()
    limit: Limit = 100


class DeleteRows(_Model):
    """Remove the rows whose columns have these values; null matches null."""

    operation: Literal["delete"]
    source: Name
    table: Name
    match: Values


def _kind(value: Any) -> str:
    """`record.create` or `row.create`: a config that names a source or a table means rows."""
    if not isinstance(value, dict):
        return f"{'row' if hasattr(value, 'table') else 'record'}.{getattr(value, 'operation', '')}"
    store = "row" if "source" in value or "table" in value else "record"
    operation = value.get("operation")
    return f"{store}.{operation if isinstance(operation, str) else ''}"


Records = CreateRecord | GetRecord | UpdateRecord | UpsertRecord | QueryRecords | DeleteRecord
Rows = CreateRow | GetRow | UpdateRows | UpsertRow | QueryRows | DeleteRows

Work = Annotated[
    Annotated[CreateRecord, Tag("record.create")]
    | Annotated[GetRecord, Tag("record.get")]
    | Annotated[UpdateRecord, Tag("record.update")]
    | Annotated[UpsertRecord, Tag("record.upsert")]
    | Annotated[QueryRecords, Tag("record.query")]
    | Annotated[DeleteRecord, Tag("record.delete")]
    | Annotated[CreateRow, Tag("row.create")]
    | Annotated[GetRow, Tag("row.get")]
    | Annotated[UpdateRows, Tag("row.update")]
    | Annotated[UpsertRow, Tag("row.upsert")]
    | Annotated[QueryRows, Tag("row.query")]
    | Annotated[DeleteRows, Tag("row.delete")],
    Discriminator(
        _kind,
        custom_error_type="operation",
        custom_error_message="operation must be create, get, update, upsert, query or delete",
    ),
]


class Config(RootModel[Work]):
    """`object` and `id` for the built-in store; `source`, `table` and `match` for a database."""

    model_config = ConfigDict(frozen=True)


class Result(BaseModel):
    """`record` is what was made, read, changed or removed (the first, if there are several);
    `records` are all of a query, or of an update or delete in a table; `count` says how many there
    were.
    """

    count: int
    record: Any
    records: list[Any] | None = None


async def run(config: Config, ctx: TaskContext) -> Verdict:
    try:
        work = config.root
        return await (_on_rows(work, ctx) if isinstance(work, Rows) else _on_records(work, ctx))
    except PermaflowError as error:
        return failure(error)


async def _on_records(work: Records, ctx: TaskContext) -> Verdict:
    """Every write carries the key of the step, not of the attempt: an attempt that was given up
    after it had written is not followed by a second write.
    """
    match work:
        case CreateRecord():
            record_id = work.id or str(uuid5(_IDS, ctx.step_key))
            made = await ctx.records.create(work.object, work.data, record_id=record_id)
            if work.id is not None and made["data"] != work.data:
                return Reject(f"There is a {work.object} {work.id!r} already.", code="exists")
            return done(made)
        case GetRecord():
            return done(await ctx.records.get(work.object, work.id))
        case UpdateRecord():
            record = await ctx.records.update(work.object, work.id, work.data)
            if record is None:
                return Reject(f"There is no {work.object} {work.id!r}.", code="not_found")
            return done(record)
        case UpsertRecord():
            return done(await ctx.records.upsert(work.object, work.id, work.data))
        case QueryRecords():
            filters, order = question(work.filter, work.sort)
            return done_all(await ctx.records.query(work.object, filters, order, work.limit))
        case DeleteRecord():
            record = await ctx.records.get(work.object, work.id)
            deleted = await ctx.records.delete(work.object, work.id)
            return done(record if deleted else None)


async def _on_rows(work: Rows, ctx: TaskContext) -> Verdict:
    match work:
        case CreateRow():
            return done(
                await ctx.tables.create(work.source, work.table, work.values, key=ctx.step_key)
            )
        case GetRow():
            return done(await ctx.tables.get(work.source, work.table, work.match))
        case UpdateRows():
            return done_all(
                await ctx.tables.update(
                    work.source, work.table, work.match, work.values, key=ctx.step_key
                )
            )
        case UpsertRow():
            return done(
                await ctx.tables.upsert(
                    work.source, work.table, work.match, work.values, key=ctx.step_key
                )
            )
        case QueryRows():
            filters, order = question(work.filter, work.sort)
            return done_all(
                await ctx.tables.query(work.source, work.table, filters, order, work.limit)
            )
        case DeleteRows():
            return done_all(
                await ctx.tables.delete(work.source, work.table, work.match, key=ctx.step_key)
            )


def done(record: Json) -> Verdict:
    """One record, or none."""
    return Done({"count": int(record is not None), "record": record})


def done_all(rows: list[Json]) -> Verdict:
    """Any number of rows."""
    return Done({"count": len(rows), "record": rows[0] if rows else None, "records": rows})


task_type = TaskType(
    name="action_record",
    stage="record",
    config=Config,
    result=Result,
    run=run,
    doc="Create, read, change, find or delete records.",
    label="Record",
    category="Actions",
    icon="database",
)
