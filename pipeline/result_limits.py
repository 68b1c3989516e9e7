"""What tasks give back, made fit to be carried through the bus, the journal and a browser.

Outputs that are not fit are refused; messages and details of failures are mended, because a
failure has to be told in any case.
"""

from __future__ import annotations

import orjson

from permaflow.plan import Json
from permaflow.values import MAX_DEPTH
from specs.json_limits import shape_problems
from specs.reading import Report

MAX_OUTPUT_DEPTH = MAX_DEPTH + 8
"""What came in may be nested `MAX_DEPTH` deep, and tasks put something around it."""

MAX_MESSAGE = 10_000
MAX_DETAILS = 32_000


def fault_of(value: Json) -> str | None:
    """Why a value cannot be carried, and where in it; None if it can."""
    report = Report()
    shape_problems(value, report, max_depth=MAX_OUTPUT_DEPTH)
    if not report.problems:
        return None
    first = report.problems[0]
    return f"{first.message} ({first.pointer or 'the whole'})"


def readable(text: str) -> str:
    """A text without what no text column and no message can hold, and of a bounded length."""
    if len(text) <= MAX_MESSAGE and text.isascii() and "\0" not in text:
        return text
    return text[:MAX_MESSAGE].replace("\0", "␀").encode(errors="replace").decode()


def details(value: Json) -> Json:
    """What a failure tells beside its message, or why that is left out."""
    if value is None:
        return None
    fault = fault_of(value)
    if fault is None:
        size = len(orjson.dumps(value))
        if size <= MAX_DETAILS:
            return value
        fault = f"They have {size:,} bytes; at most {MAX_DETAILS:,} are kept."
    return {"left_out": fault}
