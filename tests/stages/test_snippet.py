"""`code_snippet`, with real processes of the jail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from permaflow.plan import Json
from permaflow.task import Done, Reject, Retry, Verdict
from permaflow.testing.task import check_task_type, config_of, make_context
from stages.jail.pool import Pool, PoolLimits
from stages.jail.snippets import JailedSnippets
from stages.snippet import task_type

MEGABYTE = 1 << 20


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    async with Pool(PoolLimits()) as made:
        yield made


class Step:
    """Runs code as a step of `acme` would."""

    def __init__(self, pool: Pool) -> None:
        self.lines: list[str] = []
        self._pool = pool

    async def __call__(self, code: str, given: Json = None, **config: Any) -> Verdict:
        snippets = JailedSnippets(self._pool, "acme", output=1_000_000, memory=256 * MEGABYTE)
        context = make_context(snippets=snippets, log=self.lines.append)
        return await task_type.run(config_of(task_type, code=code, input=given, **config), context)


@pytest.fixture
def step(pool: Pool) -> Step:
    return Step(pool)


def rejected(verdict: Verdict) -> Reject:
    assert isinstance(verdict, Reject)
    return verdict


def test_it_keeps_the_promises_of_a_task_type() -> None:
    sound = {"code": "return 1", "input": {"a": [1]}, "timeout_seconds": 2}
    check_task_type(task_type, sound=sound, unsound={**sound, "language": "perl"})


async def test_what_the_code_returns_is_the_output(step: Step) -> None:
    code = "const total = input.lines.reduce((sum, line) => sum + line.price, 0);\nreturn {total};"
    given = {"lines": [{"price": 2}, {"price": 3.5}]}
    assert await step(code, given) == Done({"total": 5.5})


async def test_code_may_await(step: Step) -> None:
    assert await step("return await Promise.all([1, Promise.resolve(2)]);") == Done([1, 2])


async def test_code_that_returns_nothing_has_the_output_null(step: Step) -> None:
    assert await step("input.a = 1;", {}) == Done(None)


async def test_text_of_every_kind_goes_in_and_comes_out(step: Step) -> None:
    given = {"text": "naïve \u2028 “quoted” 😀 \\ \" ' ` ${x} {{x}}"}
    assert await step("return input", given) == Done(given)


async def test_an_error_is_told_with_its_line(step: Step) -> None:
    verdict = rejected(await step("const a = 1;\n\nthrow new TypeError('no such thing');"))
    assert verdict.message == "TypeError: no such thing (line 3)"
    assert verdict.code == "snippet_failed"
    assert verdict.details == {"line": 3, "column": 11, "name": "TypeError"}


async def test_an_error_of_the_language_is_told_with_its_line(step: Step) -> None:
    verdict = rejected(await step("const a = 1;\nreturn a.b.c;"))
    assert verdict.message.endswith("(line 2)")
    assert "TypeError" in verdict.message


async def test_code_that_is_no_code_is_told_with_its_line(step: Step) -> None:
    verdict = rejected(await step("const a = 1;\nconst = 2;"))
    assert verdict.message.startswith("SyntaxError: ")
    assert verdict.message.endswith("(line 2)")


@pytest.mark.parametrize(
    ("thrown", "message"),
    [("'out of stock'", "out of stock"), ("{code: 7}", '{"code":7}'), ("undefined", "undefined")],
)
async def test_whatever_is_thrown_is_told(step: Step, thrown: str, message: str) -> None:
    assert rejected(await step(f"throw {thrown}")).message == message


@pytest.mark.parametrize(
    "value", ["10n", "() => 1", "Symbol('x')", "(() => {const a = {}; a.a = a; return a})()"]
)
async def test_an_output_that_is_no_json_is_refused(step: Step, value: str) -> None:
    verdict = rejected(await step(f"return {value}"))
    assert verdict.message.startswith("The output cannot be written as JSON: ")


async def test_an_output_that_no_parser_takes_is_refused(step: Step) -> None:
    verdict = rejected(await step("let a = []; for (let i = 0; i < 2000; i++) a = [a]; return a"))
    assert verdict.message.startswith("The output is not JSON")


async def test_a_promise_that_nobody_keeps_is_told_at_once(step: Step) -> None:
    verdict = rejected(await step("await new Promise(() => {});"))
    assert verdict.message == "It waits for something that never comes."


async def test_code_that_takes_too_long_is_stopped_and_may_be_tried_again(step: Step) -> None:
    verdict = await step("while (true);", timeout_seconds=0.2)
    assert verdict == Retry("The code took longer than its 0.2 seconds.", code="snippet_timeout")


async def test_code_that_needs_too_much_memory_is_stopped(step: Step) -> None:
    code = "const a = []; while (true) a.push(new Array(1000).fill('x'));"
    verdict = rejected(await step(code, memory_mb=16))
    assert verdict.code == "snippet_limit"
    assert "16 MB" in verdict.message


async def test_an_output_above_the_limit_is_refused(step: Step) -> None:
    verdict = rejected(await step("return 'x'.repeat(1_000_001)"))
    assert verdict.message == "The output has 1000003 bytes; at most 1,000,000 are allowed."


async def test_what_is_written_to_the_console_goes_to_the_log(step: Step) -> None:
    await step("console.log('total', 3, {a: [1]}); console.error(new Error('odd').message);")
    assert step.lines == ['total 3 {"a":[1]}', "odd"]


async def test_the_log_of_code_that_was_stopped_is_kept(step: Step) -> None:
    await step("console.log('before'); while (true);", timeout_seconds=0.2)
    assert step.lines == ["before"]


async def test_a_flood_of_lines_is_cut_off_and_that_is_said(step: Step) -> None:
    code = "for (let i = 0; i < 100_000; i++) console.log('line ' + i); return 'done'"
    assert await step(code) == Done("done")
    assert len(step.lines) == 201
    assert step.lines[-1] == "… more lines are left out"


async def test_code_is_taken_as_it_stands(step: Step) -> None:
    assert await step("return '{{trigger.name}}'") == Done("{{trigger.name}}")


async def test_nothing_of_one_run_is_there_in_the_next(step: Step, pool: Pool) -> None:
    await step("globalThis.kept = 1; Array.prototype.kept = 2; Object.prototype.kept = 3;")
    before = set(pool.pids)
    assert await step("return [typeof kept, [].kept ?? null, ({}).kept ?? null]") == Done(
        ["undefined", None, None]
    )
    assert before & set(pool.pids), "it was the same process"


async def test_there_is_nothing_around_the_code_but_the_language(step: Step) -> None:
    names = (
        "require process module exports fetch XMLHttpRequest WebSocket std os Deno Bun tell print"
    )
    code = f"return '{names}'.split(' ').filter((name) => name in globalThis)"
    assert await step(code) == Done([])


async def test_python_has_no_choice_of_engines(step: Step) -> None:
    with pytest.raises(ValueError, match="engine is for JavaScript"):
        await step("1", language="python", engine="v8")
