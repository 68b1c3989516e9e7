import asyncio
import threading
from datetime import timedelta

import pytest

from permaflow.errors import ConnectorError, InputError
from permaflow.functions import function
from permaflow.task import Done, Park, Reject, Retry, TaskContext
from permaflow.testing.task import check_task_type, config_of, make_context
from permaflow.verdicts import verdict_of
from stages import functions as builtin
from stages.code import task_type


async def call(target, given=None, **overrides):
    context = make_context(functions={"f": target}, **overrides)
    config = config_of(task_type, function_slug="f", input=given)
    return await task_type.run(config, context)


def test_it_keeps_the_promises_of_a_task_type():
    check_task_type(
        task_type, sound={"function_slug": "f", "input": [1]}, unsound={"function_slug": 5}
    )


async def test_an_async_function_gets_the_input_and_gives_the_output():
    async def double(given):
        return {"twice": given["n"] * 2}

    assert await call(double, {"n": 21}) == Done({"twice": 42})


async def test_without_an_input_the_function_gets_an_empty_object():
    context = make_context(functions=[builtin.noop])
    config = config_of(task_type, function_slug="noop")

    assert await task_type.run(config, context) == Done({})


async def test_a_sync_function_runs_in_another_thread_and_leaves_the_loop_free():
    ticked = threading.Event()

    def waits_for_the_loop(given):
        return {"ticked": ticked.wait(timeout=5), "thread": threading.get_ident()}

    asyncio.get_running_loop().call_soon(ticked.set)
    verdict = await call(waits_for_the_loop)

    assert isinstance(verdict, Done)
    assert verdict.output["ticked"] is True
    assert verdict.output["thread"] != threading.get_ident()


async def test_a_function_with_a_second_parameter_gets_the_context():
    async def who(given, ctx: TaskContext):
        return [ctx.org, ctx.step_key]

    verdict = await call(who, node="who")

    assert verdict == Done(["acme", make_context(node="who").step_key])


async def test_a_second_parameter_with_a_default_is_left_alone():
    async def scaled(given, factor=3):
        return given * factor

    assert await call(scaled, 2) == Done(6)


async def test_an_object_with_an_async_call_is_awaited():
    class Greeter:
        async def __call__(self, given):
            return f"hello {given}"

    assert await call(Greeter(), "you") == Done("hello you")


async def test_an_unknown_slug_is_rejected_with_a_hint():
    verdict = await task_type.run(config_of(task_type, function_slug="nowhere"), make_context())

    assert isinstance(verdict, Reject)
    assert verdict.code == "unknown_function"
    assert "PERMAFLOW_FUNCTIONS" in verdict.message


async def test_success_false_is_a_failed_step():
    async def fails(given):
        return {"success": False, "error": "no stock", "sku": 7}

    verdict = await call(fails)

    assert verdict == Retry(
        "no stock",
        code="function_failed",
        details={"success": False, "error": "no stock", "sku": 7},
    )


async def test_success_false_that_is_not_retryable_is_rejected():
    async def fails(given):
        return {"success": False, "error": "no such sku", "retryable": False}

    assert isinstance(await call(fails), Reject)


async def test_success_true_is_an_output_like_any_other():
    async def works(given):
        return {"success": True, "messageId": "m1"}

    assert await call(works) == Done({"success": True, "messageId": "m1"})


@pytest.mark.parametrize(
    "verdict",
    [Retry("later", after=timedelta(seconds=3)), Reject("never"), Park("busy", timedelta(1))],
)
async def test_a_returned_verdict_stands(verdict):
    async def decides(given):
        return verdict

    assert await call(decides) == verdict


async def test_the_output_of_a_returned_done_is_checked_too():
    assert verdict_of(Done((1, 2), port="high")) == Done([1, 2], port="high")
    assert isinstance(verdict_of(Done({1, 2})), Reject)


async def test_an_exception_is_a_failure_that_may_pass():
    async def raises(given):
        raise ValueError("odd")

    assert await call(raises) == Retry("ValueError: odd", code="function_raised")


@pytest.mark.parametrize("error", [StopIteration("x"), SystemExit(1), ValueError("x")])
async def test_whatever_a_sync_function_raises_is_a_verdict(error):
    def raises(given):
        raise error

    async with asyncio.timeout(5):
        assert isinstance(await call(raises), Retry)


async def test_an_error_of_ours_says_itself_whether_to_try_again():
    async def refused(given):
        raise InputError("not this")

    async def unreachable(given):
        raise ConnectorError("gone")

    assert await call(refused) == Reject("not this", code="invalid_input")
    assert await call(unreachable) == Retry("gone", code="connector")


async def test_cancellation_reaches_the_caller():
    started = asyncio.Event()

    async def hangs(given):
        started.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(call(hangs))
    await asyncio.wait_for(started.wait(), 5)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize(
    ("returned", "where"),
    [
        ({"a": [1, {"b": float("nan")}]}, "/a/1/b"),
        ({"a": {"x/y": object()}}, "/a/x~1y"),
        ({"a": 2**64}, "/a"),
        ({"a": "nul\0"}, "/a"),
        ({"a": "\ud800"}, "/a"),
        ([{1: 2}], "/0"),
        ({"a": {1, 2}}, "/a"),
    ],
)
async def test_a_result_that_is_not_json_is_rejected_and_the_place_is_named(returned, where):
    async def bad(given):
        return returned

    verdict = await call(bad)

    assert isinstance(verdict, Reject)
    assert verdict.code == "bad_result"
    assert f" at {where}:" in verdict.message


async def test_a_result_above_the_limit_is_rejected():
    async def large(given):
        return "x" * 16_000_001

    verdict = await call(large)

    assert isinstance(verdict, Reject)
    assert "16,000,000" in verdict.message


async def test_big_integers_survive():
    async def exact(given):
        return {"id": 9007199254740993, "given": given}

    assert await call(exact, 2**63) == Done({"id": 9007199254740993, "given": 2**63})


async def test_the_output_shares_nothing_with_what_the_function_keeps():
    kept = {"items": [1]}

    async def keeps(given):
        return kept

    verdict = await call(keeps)
    kept["items"].append(2)

    assert verdict == Done({"items": [1]})


async def test_the_echo_function_gives_back_its_input():
    context = make_context(functions=[builtin.echo])
    config = config_of(task_type, function_slug="echo", input="hi")

    assert await task_type.run(config, context) == Done({"echo": "hi"})


def test_a_marked_function_is_still_a_function():
    @function("plain")
    def add(given):
        return given + 1

    assert add(1) == 2
