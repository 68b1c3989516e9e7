"""How long a delay waits."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from permaflow.errors import EvaluationError
from permaflow.plan import Context, Delay, Retry
from pipeline.core.events import AttemptFailed
from pipeline.core.state import NodeState
from pipeline.core.unknown import RESOLVED

_GOLDEN = 0.618_033_988_749_895
LONGEST = timedelta(days=3_660)


def read_delay(delay: Delay, node: str, context: Context) -> tuple[float | None, str | None]:
    """Seconds to wait, or the moment to wait for, in the form that every database reads.

    Raises `EvaluationError` for what is no time, and for a duration of more than ten years.
    """
    if delay.until is not None:
        return None, _moment(delay.until.evaluate(context), node)
    value = delay.duration.evaluate(context) if delay.duration is not None else 0.0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise EvaluationError(
            f"`duration` of `{node}` is {value!r}, which is no number of seconds."
        )
    if not value <= LONGEST.total_seconds():  # NaN is not
        raise EvaluationError(
            f"`duration` of `{node}` is {value} s; at most ten years are allowed."
        )
    return max(0.0, float(value)), None


def bounded(seconds: float) -> float:
    """A wait that somebody else asked for: up to ten years, and nothing if it is no number."""
    return min(seconds, LONGEST.total_seconds()) if seconds > 0 else 0.0


def _moment(value: object, node: str) -> str:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
        if moment is not None and moment.tzinfo is not None:
            # In UTC: databases know no offset of 20 hours, or of a part of a minute.
            return moment.astimezone(UTC).isoformat()
    except (ValueError, OverflowError):
        pass
    raise EvaluationError(
        f"`until` of `{node}` is {value!r}; it must be a time with its offset from UTC, as in "
        "2030-01-31T09:00:00+01:00."
    )


def wait_before(retry: Retry, state: NodeState, event: AttemptFailed, chance: float) -> float:
    """The seconds before the next attempt; the other side may have asked for some."""
    if event.code == RESOLVED:
        return 0.0
    delay = retry.delay(state.retries + 1, chance).total_seconds()
    if event.after is not None:
        delay = max(delay, min(event.after, retry.max_delay.total_seconds()))
    return delay


def spread(chance: float, number: int) -> float:
    """Another number in [0, 1) for each retry: what fails together need not come back together."""
    return (chance + number * _GOLDEN) % 1.0
