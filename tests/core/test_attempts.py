"""An attempt ends at its timeout, whatever its task makes of that."""

import asyncio
from uuid import uuid4

import pytest
from pydantic import BaseModel

from permaflow.errors import UnreachableError
from permaflow.task import Done, Retry, TaskType
from pipeline import attempt as attempts
from pipeline.attempt import attempt
from pipeline.wire import Dispatch, StepDone
from tests.core.no_services import services_for_nothing

LIMIT = 30.0


class Nothing(BaseModel):
    pass


async def result_of(run, timeout=0.05):
    kind = TaskType("t", "s", Nothing, Nothing, run)
    dispatch = Dispatch(uuid4(), "", "n", 1, "t", {}, timeout)
    async with asyncio.timeout(LIMIT):
        found = await attempt(dispatch, {}, str(uuid4()), kind, services_for_nothing())
        assert asyncio.current_task().cancelling() == 0
        return found


async def cancelled():
    """Wait for a cancellation, and lose it, as `asyncio.wait_for` may."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        pass


async def test_a_task_that_loses_its_cancellation_is_cancelled_again(monkeypatch):
    monkeypatch.setattr(attempts, "AGAIN", 0.01)

    async def run(config, ctx):
        await cancelled()
        await cancelled()
        await asyncio.Event().wait()

    async with asyncio.timeout(10):
        result = await result_of(run)

    assert (result.code, result.timed_out, result.retryable) == ("timeout", True, True)


async def raises_ours():
    raise UnreachableError


async def raises_another():
    raise OSError("the connection was cut")


async def gives_up():
    return Retry("the connection was cut")


@pytest.mark.parametrize("end", [raises_ours, raises_another, gives_up])
async def test_what_fails_because_it_was_stopped_has_timed_out(end):
    async def run(config, ctx):
        await cancelled()
        return await end()

    result = await result_of(run)

    assert (result.code, result.timed_out) == ("timeout", True)


async def test_what_is_done_all_the_same_is_done():
    async def run(config, ctx):
        await cancelled()
        return Done(1)

    result = await result_of(run)

    assert isinstance(result, StepDone)


async def test_what_fails_in_time_has_not_timed_out():
    async def run(config, ctx):
        raise UnreachableError

    result = await result_of(run, timeout=LIMIT)

    assert (result.code, result.timed_out) == ("connect", False)
