"""What commands print: data on stdout, as tables for people or JSON for scripts; all else on
stderr. Colours follow the terminal and NO_COLOR.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

DONE, FAILED, USAGE, TIMED_OUT, INTERRUPTED = 0, 1, 2, 124, 130
"""Exit codes."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]

COLOURS = {
    "completed": "green",
    "active": "green",
    "ok": "green",
    "running": "cyan",
    "waiting": "yellow",
    "retrying": "yellow",
    "paused": "yellow",
    "warn": "yellow",
    "failed": "red",
    "fail": "red",
    "timed_out": "red",
    "cancelled": "magenta",
}


class CommandError(Exception):
    """A command cannot do what it was asked for. `errors` are further lines, one for each fault."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "failed",
        status: int = FAILED,
        errors: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.errors = tuple(errors)

    def complain(self, in_json: bool) -> int:
        return complain(in_json, self.code, str(self), self.status, self.errors)


def complain(
    in_json: bool,
    code: str,
    message: str,
    status: int,
    errors: Sequence[Mapping[str, Any]] = (),
) -> int:
    """Tell stderr what went wrong; gives the exit code."""
    if in_json:
        body: dict[str, Any] = {"code": code, "message": message}
        if errors:
            body["errors"] = list(errors)
        print(_dump({"error": body}), file=sys.stderr)
        return status
    print(f"permaflow: {message}", file=sys.stderr)
    for each in errors:
        if len(errors) == 1 and each.get("message", each) in message:
            break  # it has been told
        where = each.get("pointer", "")
        print(f"  {where + ': ' if where else ''}{each.get('message', each)}", file=sys.stderr)
    return status


def as_json(value: Any) -> None:
    """One line of JSON on stdout."""
    print(_dump(value), flush=True)


def say(text: str) -> None:
    """Something asked for, on stdout."""
    print(text, flush=True)


def note(text: str) -> None:
    """Something by the way, on stderr."""
    print(text, file=sys.stderr, flush=True)


def console(stderr: bool = False) -> Console:
    """A console that never cuts a line short for a pipe."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 400
    return Console(stderr=stderr, width=width, highlight=False, soft_wrap=not stream.isatty())


_LONG = frozenset({"error", "what to do", "message", "scopes", "comment"})
_LEAST = 30
"""Columns that take several lines where the terminal is narrow, and how wide they are then."""


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table on stdout; empty ones say so. What is cut off cannot be used: lines may be longer
    than a narrow terminal.
    """
    from rich.table import Table
    from rich.text import Text

    found = [[str(cell) for cell in row] for row in rows]
    if not found:
        note("There are none.")
        return
    grid = Table(box=None, header_style="bold", pad_edge=False)
    least = 0
    for column, cells in zip(columns, zip(*found, strict=True), strict=True):
        width = max(map(len, (column, *cells)))
        if column in _LONG:
            width = min(width, _LEAST)
        grid.add_column(column, no_wrap=column not in _LONG, min_width=width)
        least += width + 2
    for row in found:
        grid.add_row(*(Text(cell, COLOURS.get(cell, "")) for cell in row))
    _print(grid, least)


def fields(pairs: Iterable[tuple[str, Any]]) -> None:
    """Names and values, one a line."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(box=None, show_header=False, pad_edge=False)
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        if value not in (None, ""):
            grid.add_row(name, Text(str(value), COLOURS.get(str(value), "")))
    _print(grid)


def _print(grid: Table, least: int = 0) -> None:
    """On stdout; for a pipe without the blanks that fill up columns."""
    screen = console()
    if screen.is_terminal:
        screen.width = max(screen.width, least)
        screen.print(grid, crop=False)
        return
    with screen.capture() as captured:
        screen.print(grid)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def when(text: str | None) -> str:
    """A time of the API in the reader's own zone."""
    if not text:
        return ""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(milliseconds: float | None) -> str:
    """A duration, short."""
    if milliseconds is None:
        return ""
    if milliseconds < 1_000:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1_000
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def since(text: str) -> float:
    """Milliseconds from a time of the API until now."""
    return (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds() * 1_000


def _dump(value: Any) -> str:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS, default=str).decode()
