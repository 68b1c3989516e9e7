"""What an error of a port means for a step."""

from __future__ import annotations

import pytest

from permaflow.errors import (
    BusUnavailableError,
    ConnectorError,
    InputError,
    StoreUnavailableError,
)
from permaflow.task import Park, Reject, Retry, failure


@pytest.mark.parametrize("error", [StoreUnavailableError("away"), BusUnavailableError("away")])
def test_a_step_is_put_off_while_the_engines_own_store_or_bus_is_away(error) -> None:
    verdict = failure(error)
    assert isinstance(verdict, Park)
    assert verdict.reason == "away"


def test_an_outside_system_in_trouble_costs_a_retry() -> None:
    assert failure(ConnectorError("slow")) == Retry("slow", code="connector")


def test_bad_input_is_refused_for_good() -> None:
    assert failure(InputError("what")) == Reject("what", code="invalid_input")
