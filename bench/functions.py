"""A function for steps that shall say when they ran."""

from __future__ import annotations

import time

from permaflow.functions import function
from permaflow.plan import Json


@function("moment")
async def moment(given: Json) -> Json:
    """What came in, and the time at which it did."""
    return {"given": given, "at": time.time()}
