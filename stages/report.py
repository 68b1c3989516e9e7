"""`action_report`: rows become a document, kept and linked: CSV, HTML or Markdown."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field

from permaflow.errors import PermaflowError
from permaflow.plan import Json
from permaflow.ports import Document
from permaflow.task import Done, Reject, TaskContext, TaskType, Verdict, failure

MAX_BYTES = 16_000_000
MAX_COLUMNS = 200

TYPES = {
    "csv": "text/csv; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "markdown": "text/markdown; charset=utf-8",
}
ENDINGS = {"csv": ".csv", "html": ".html", "markdown": ".md"}

_number = re.compile(r"[+-]?\d+(\.\d+)?([eE][+-]?\d+)?")

Row = dict[str, Json]


class Column(BaseModel):
    """A column: which member of the rows, and what stands above it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str = Field(min_length=1, max_length=200, description="The member of each row.")
    title: str | None = Field(None, max_length=200, description="The heading; the name without.")


class Config(BaseModel):
    """`rows` are objects, most likely `{{steps.….output.records}}`. Without `columns`, every
    member that a row has becomes one, in the order in which they first appear.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    rows: list[Row] = Field(max_length=100_000, description="What is told, line by line.")
    columns: Annotated[list[str | Column], Field(min_length=1, max_length=MAX_COLUMNS)] | None = (
        Field(None, description="Members to show, in order.")
    )
    format: Literal["csv", "html", "markdown"] = Field("csv", description="What is written.")
    title: str = Field("", max_length=500, description="The heading of HTML and Markdown.")
    name: str = Field(
        "report",
        min_length=1,
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f/\\]+$",
        description="The name of the file; its ending is added.",
    )


class Result(BaseModel):
    """Where the document is. `id` is what an attachment of a mail refers to as `document`."""

    id: str
    link: str
    name: str
    content_type: str
    size: int
    row_count: int


async def run(config: Config, ctx: TaskContext) -> Verdict:
    columns = columns_of(config)
    if len(columns) > MAX_COLUMNS:
        return Reject(
            f"A report has at most {MAX_COLUMNS} columns, not {len(columns)}.", "too_wide"
        )
    text = WRITERS[config.format](config.title, columns, config.rows)
    body = text.encode(errors="replace")
    if len(body) > MAX_BYTES:
        return Reject(f"The report has {len(body):,} bytes; {MAX_BYTES:,} are kept.", "too_large")
    document = Document(_file_name(config), TYPES[config.format], body)
    try:
        stored = await ctx.documents.put(document, key=f"{ctx.step_key}:report")
    except PermaflowError as error:
        return failure(error)
    return Done(
        {
            "id": stored.id,
            "link": stored.link,
            "name": document.name,
            "content_type": document.content_type,
            "size": len(body),
            "row_count": len(config.rows),
        }
    )


Columns = Sequence[tuple[str, str]]
"""Member and heading."""


def columns_of(config: Config) -> Columns:
    if config.columns is None:
        return [(name, name) for name in dict.fromkeys(name for row in config.rows for name in row)]
    return [
        (each, each) if isinstance(each, str) else (each.field, each.title or each.field)
        for each in config.columns
    ]


def _file_name(config: Config) -> str:
    ending = ENDINGS[config.format]
    return config.name if config.name.endswith(ending) else config.name + ending


def as_csv(_title: str, columns: Columns, rows: Sequence[Row]) -> str:
    """RFC 4180. A text that a spreadsheet would take for a formula gets an apostrophe in front, as
    OWASP advises against CSV injection; numbers stay numbers.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([_harmless(title) for _, title in columns])
    for row in rows:
        writer.writerow([_harmless(_cell(row, field)) for field, _ in columns])
    return out.getvalue()


def _harmless(text: str) -> str:
    if text[:1] in ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠") and not (
        _number.fullmatch(text)
    ):
        return "'" + text
    return text


def as_html(title: str, columns: Columns, rows: Sequence[Row]) -> str:
    """A page by itself, without scripts; every value is escaped."""
    head = "".join(f"<th>{html.escape(title)}</th>" for _, title in columns)
    lines = [
        "<tr>"
        + "".join(f"<td>{html.escape(_cell(row, name))}</td>" for name, _ in columns)
        + "</tr>"
        for row in rows
    ]
    shown = html.escape(title)
    heading = f"<h1>{shown}</h1>\n" if title else ""
    return (
        f'<!doctype html>\n<html><head><meta charset="utf-8"><title>{shown or "Report"}</title>\n'
        "<style>body{font-family:sans-serif}table{border-collapse:collapse}"
        "th,td{border:1px solid #999;padding:.3em .6em;text-align:left}</style></head>\n"
        f"<body>\n{heading}<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n"
        + "\n".join(lines)
        + "\n</tbody>\n</table>\n</body></html>\n"
    )


def as_markdown(title: str, columns: Columns, rows: Sequence[Row]) -> str:
    """A table of GitHub's Markdown; nothing in a value is markup."""
    heading = f"# {_plain(title)}\n\n" if title else ""
    lines = [
        "| " + " | ".join(_plain(title) for _, title in columns) + " |",
        "|" + " --- |" * len(columns),
    ]
    lines += [
        "| " + " | ".join(_plain(_cell(row, name)) for name, _ in columns) + " |" for row in rows
    ]
    return heading + "\n".join(lines) + "\n"


_markup = re.compile(r"([\\`*_\[\]#!|~$@]|:(?=//))")


def _plain(text: str) -> str:
    """One line in which every character stands for itself."""
    escaped = _markup.sub(r"\\\1", html.escape(text, quote=False))
    return " ".join(escaped.split())


def _cell(row: Mapping[str, Any], name: str) -> str:
    match row.get(name):
        case None:
            return ""
        case str() as text:
            return text
        case bool() as flag:
            return "true" if flag else "false"
        case value:
            return orjson.dumps(value).decode()


WRITERS = {"csv": as_csv, "html": as_html, "markdown": as_markdown}

task_type = TaskType(
    name="action_report",
    stage="report",
    config=Config,
    result=Result,
    run=run,
    doc="Write rows into a document and keep it.",
    label="Report",
    category="Actions",
    icon="file-text",
)
