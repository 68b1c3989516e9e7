"""What a loop runs over, and which of its iterations open next."""

from __future__ import annotations

from permaflow.errors import EvaluationError
from permaflow.plan import Context, Json, Loop
from pipeline.core.state import LoopState

_KINDS = {type(None): "null", bool: "true or false", str: "text"}


def read_items(loop: Loop, context: Context) -> list[Json]:
    """The items of a loop: a list, or the `{key, value}` pairs of an object.

    Raises `EvaluationError` for anything else, and for more items than the loop may have.
    """
    value = loop.items.evaluate(context)
    if isinstance(value, dict):
        value = [{"key": key, "value": item} for key, item in value.items()]
    if not isinstance(value, list):
        kind = _KINDS.get(type(value), "a number")
        raise EvaluationError(f"A loop runs over a list or an object; its `items` are {kind}.")
    if len(value) > loop.max_items:
        message = f"A loop may run over {loop.max_items} items; this one has {len(value)}."
        raise EvaluationError(message)
    return value


def next_iterations(loop: LoopState, parallel: int) -> tuple[int, int]:
    """The first index and the number of iterations that may open now."""
    count = min(len(loop.items) - loop.next, parallel - len(loop.open))
    return loop.next, max(0, count)
