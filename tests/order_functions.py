"""The function that the first example calls."""

from __future__ import annotations

from permaflow.functions import function
from permaflow.plan import Json


@function("validate-order")
async def validate_order(order: Json) -> Json:
    """Every order is a good one."""
    return {"valid": True, "order": order}
