"""GET /workflows/v1/metrics: what the runs of a span of time came to."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated

from pydantic import BeforeValidator
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response

from pipeline.gateway.answers import answer
from pipeline.gateway.auth import caller_of
from pipeline.gateway.ports import Ports
from pipeline.gateway.shapes import MetricsView, MetricView
from pipeline.store import stats
from pipeline.store.runs import OPEN

PATH = "/workflows/v1/metrics"


def _no_number(text: str) -> str:
    """A bare number would be taken for Unix time, and so would a date without its dashes."""
    try:
        float(text)
    except ValueError:
        return text
    raise PydanticCustomError("datetime_parsing", "A number is no time")


Moment = Annotated[datetime, BeforeValidator(_no_number)]
"""A time in ISO 8601, of the query."""


class Metrics:
    """The handler."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def get_run_metrics(
        self, request: Request, since: Moment | None = None, until: Moment | None = None
    ) -> Response:
        """Counts, success rate and durations of the runs that were started in a span of time."""
        org = caller_of(request).org
        groups = await self._ports.pool.run_as(
            org, stats.by_status, org, since=aware(since), until=aware(until)
        )
        by_status: Counter[str] = Counter()
        by_type: Counter[str] = Counter()
        for group in groups:
            by_status[group.status] += group.count
            by_type[group.type] += group.count
        ended = sum(count for status, count in by_status.items() if status not in OPEN)
        view = MetricsView(
            total=by_status.total(),
            by_status=dict(by_status),
            by_type=dict(by_type),
            success_rate=by_status["completed"] / ended if ended else None,
            groups=[MetricView.model_validate(group, from_attributes=True) for group in groups],
        )
        return answer(view)


def aware(moment: datetime | None) -> datetime | None:
    """A time without a zone is UTC."""
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment
