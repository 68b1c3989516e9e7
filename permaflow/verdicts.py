"""From what a function gives back to a verdict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from permaflow.errors import InputError
from permaflow.plan import Json
from permaflow.task import Done, Park, Reject, Retry, Verdict
from permaflow.values import plain

MAX_DETAILS = 32_000


def verdict_of(returned: Any, *, who: str = "function") -> Verdict:
    """A verdict stands for itself; `{"success": false, "error": …}` is a failed step, which is
    tried again unless it also says `"retryable": false`; all else is the step's output.

    `who` gave it back: a word for messages and codes (`function_failed`). Models and dataclasses
    are plain objects.
    """
    match returned:
        case Retry() | Reject() | Park():
            return returned
        case Done(output=output, port=port):
            pass
        case BaseModel():
            output, port = returned.model_dump(mode="json", by_alias=True), None
        case _:
            output, port = returned, None
    if not isinstance(returned, Done) and _says_failed(output):
        return _failed(output, who)
    try:
        return Done(plain(output), port)
    except InputError as error:
        where = f" at {error.pointer}" if error.pointer else ""
        return Reject(f"The {who}'s result is not JSON{where}: {error}", code="bad_result")


def _says_failed(output: Any) -> bool:
    return isinstance(output, Mapping) and output.get("success") is False


def _failed(output: Mapping[str, Json], who: str) -> Verdict:
    error = output.get("error")
    message = error if isinstance(error, str) and error else f"The {who} says that it failed."
    code = f"{who}_failed"
    try:
        details = plain(dict(output), max_bytes=MAX_DETAILS)
    except InputError:
        details = None
    if output.get("retryable") is False:
        return Reject(message, code=code, details=details)
    return Retry(message, code=code, details=details)
