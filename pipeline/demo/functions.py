"""What the demo's workflows call."""

from __future__ import annotations

from datetime import UTC, datetime

from permaflow.functions import function
from permaflow.plan import Json

STATUSES = ("placed", "paid", "shipped")


@function("validate-order")
async def validate_order(order: Json) -> Json:
    """Whether an order makes sense: `valid`, `problems`, and `checked_at`, the time of the look."""
    problems = []
    row = order if isinstance(order, dict) else {}
    amount = row.get("amount")
    if isinstance(amount, bool) or not isinstance(amount, int | float) or amount <= 0:
        problems.append("amount: it must be a number above 0")
    if row.get("status") not in STATUSES:
        problems.append(f"status: it must be one of {', '.join(STATUSES)}")
    return {
        "valid": not problems,
        "problems": problems,
        "checked_at": datetime.now(UTC).isoformat(),
    }
