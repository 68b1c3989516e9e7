"""The engines that have to be installed: V8, and Monty for Python."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from permaflow.errors import JailError
from permaflow.plan import Json
from permaflow.task import Done, Reject, Retry, Verdict
from permaflow.testing.task import config_of, make_context
from stages.jail.cell import Cell, Job
from stages.jail.confine import LAYERS
from stages.jail.engines import MONTY, V8, Engine
from stages.jail.pool import Pool, PoolLimits
from stages.jail.snippets import JailedSnippets
from stages.snippet import task_type
from tests.stages.hostile import HOSTILE_MACHINE

MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def lines() -> list[str]:
    return []


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    async with Pool(PoolLimits()) as made:
        yield made


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as made:
        yield made


async def did(pool: Pool, lines: list[str], code: str, given: Json, **config: Any) -> Verdict:
    snippets = JailedSnippets(pool, "acme", output=MEGABYTE, memory=256 * MEGABYTE)
    lines.clear()
    context = make_context(snippets=snippets, log=lines.append)
    return await task_type.run(config_of(task_type, code=code, input=given, **config), context)


async def v8(pool: Pool, lines: list[str], code: str, given: Json = None, **more: Any) -> Verdict:
    return await did(pool, lines, code, given, engine="v8", **more)


async def python(
    pool: Pool, lines: list[str], code: str, given: Json = None, **more: Any
) -> Verdict:
    return await did(pool, lines, code, given, language="python", **more)


def rejected(verdict: Verdict) -> Reject:
    assert isinstance(verdict, Reject)
    return verdict


@pytest.mark.parametrize("engine", [V8, MONTY], ids=lambda engine: engine.name)
async def test_it_has_every_layer_that_there_is_here(pool: Pool, engine: Engine) -> None:
    usual = await pool.warm()
    cell = await pool.warm(engine)
    assert cell.layers == usual.layers
    assert {*cell.layers, *cell.missing} == set(LAYERS)


# --- JavaScript, whichever engine -----------------------------------------------------------------

javascript = pytest.mark.parametrize("engine", ["quickjs", "v8"])


@javascript
async def test_half_an_emoji_is_text_like_any_other(
    pool: Pool, lines: list[str], engine: str
) -> None:
    code = "const half = input.slice(0, 3); console.log(half); return {[half]: half, a: 'b😀'}"
    given = "ab😀"
    assert await did(pool, lines, code, given, engine=engine) == Done({"ab�": "ab�", "a": "b😀"})
    assert lines == ["ab�"]
    code = "throw new Error(input.slice(0, 3))"
    assert rejected(await did(pool, lines, code, given, engine=engine)).message == (
        "Error: ab� (line 1)"
    )
    code = r"return 'a whole text: \\ud83d'"
    assert await did(pool, lines, code, given, engine=engine) == Done(r"a whole text: \ud83d")


@javascript
async def test_nothing_is_cut_at_a_nul(pool: Pool, lines: list[str], engine: str) -> None:
    code = r"console.log('a\0b', 'c'); throw new Error('before\0after')"
    verdict = rejected(await did(pool, lines, code, None, engine=engine))
    assert verdict.message == "Error: before␀after (line 1)"
    assert lines == ["a␀b c"]


@javascript
async def test_large_numbers_are_numbers(pool: Pool, lines: list[str], engine: str) -> None:
    code = "return [2 ** 64, -1e19, 1e20, 1e22, 2 ** 53]"
    assert await did(pool, lines, code, None, engine=engine) == Done(
        [2.0**64, -1e19, 1e20, 1e22, 2**53]
    )


@javascript
@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("\n\nreturn JSON.parse('{" + r"\n" * 8 + '"a": bad}\')', 3),
        ("\n\nJSON.parse('{bad')", 3),
        ("\neval('\\n\\n\\n(')", 2),
        ("[1].map(() => {\n  undefined.y })", 2),
        ("await 0;\n\nnull.x", 3),
        ("return " + "(" * 20_000 + "1" + ")" * 20_000, None),
    ],
)
async def test_the_line_of_an_error_is_one_of_the_code(
    pool: Pool, lines: list[str], engine: str, code: str, line: int | None
) -> None:
    message = rejected(await did(pool, lines, code, None, engine=engine)).message
    assert message.endswith(f"(line {line})") if line else "line" not in message


@javascript
async def test_whatever_is_logged_is_shown(pool: Pool, lines: list[str], engine: str) -> None:
    code = (
        "console.log(Object.create(null), NaN, undefined, null, {a: 1}, [1], 1n);"
        "console.log({toJSON() { throw 1 }, toString() { throw 2 }}); return 1"
    )
    assert await did(pool, lines, code, None, engine=engine) == Done(1)
    assert lines == ['{} NaN undefined null {"a":1} [1] 1', "[object]"]


@javascript
async def test_code_that_changes_the_language_still_gives_its_output(
    pool: Pool, lines: list[str], engine: str
) -> None:
    code = (
        "Array.prototype.toJSON = Object.prototype.toJSON = String.prototype.toJSON = () => 1;"
        "Array.prototype.push = Array.prototype.map = Array.prototype.join = () => 1;"
        "String.prototype.toWellFormed = String.prototype.slice = () => 'no';"
        "console.log('yes'); return 'out'"
    )
    assert await did(pool, lines, code, None, engine=engine) == Done("out")
    assert lines == ["yes"]


@javascript
async def test_an_error_that_says_null_is_no_lack_of_memory(
    pool: Pool, lines: list[str], engine: str
) -> None:
    verdict = rejected(await did(pool, lines, "throw new Error('null')", None, engine=engine))
    assert (verdict.code, verdict.message) == ("snippet_failed", "Error: null (line 1)")


@pytest.mark.parametrize(
    ("code", "choice"),
    [
        ("for (let i = 0; i < 201; i++) console.log('😀'.repeat(160))", {"engine": "quickjs"}),
        ("for (let i = 0; i < 201; i++) console.log('😀'.repeat(160))", {"engine": "v8"}),
        ("for i in range(201): print('😀' * 160)", {"language": "python"}),
    ],
)
async def test_a_full_log_says_that_it_is_full(
    pool: Pool, lines: list[str], code: str, choice: dict[str, str]
) -> None:
    assert await did(pool, lines, code, None, **choice) == Done(None)
    assert lines == ["😀" * 160] * 200 + ["… more lines are left out"]


# --- V8 -------------------------------------------------------------------------------------------


async def test_v8_gives_what_the_code_returns(pool: Pool, lines: list[str]) -> None:
    code = "console.log('n', input.n); return {twice: await Promise.resolve(input.n * 2)}"
    assert await v8(pool, lines, code, {"n": 21}) == Done({"twice": 42})
    assert lines == ["n 21"]


async def test_v8_names_the_line_of_an_error(pool: Pool, lines: list[str]) -> None:
    verdict = rejected(await v8(pool, lines, "const a = 1;\n\nthrow new TypeError('no');"))
    assert verdict.message == "TypeError: no (line 3)"
    verdict = rejected(await v8(pool, lines, "const a = 1;\nconst = 2;"))
    assert verdict.message.startswith("SyntaxError: ")
    assert verdict.message.endswith("(line 2)")


async def test_v8_forgets_one_run_before_the_next(pool: Pool, lines: list[str]) -> None:
    await v8(pool, lines, "globalThis.kept = 1; Array.prototype.kept = 2")
    assert await v8(pool, lines, "return [typeof kept, [].kept ?? null]") == Done(
        ["undefined", None]
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (
            "return new Date(0).toString()",
            "Thu Jan 01 1970 00:00:00 GMT+0000 (Coordinated Universal Time)",
        ),
        ("return Intl.DateTimeFormat().resolvedOptions().timeZone", "UTC"),
        (
            "return new Date(0).toLocaleString('de-DE', {timeZone: 'Asia/Tokyo'})",
            "1.1.1970, 09:00:00",
        ),
        ("return new Intl.ListFormat('de').format(['a', 'b', 'c'])", "a, b und c"),
        ("return ['z', 'ä', 'a'].sort(new Intl.Collator('de').compare)", ["a", "ä", "z"]),
    ],
)
async def test_v8_knows_dates_and_languages_without_a_file(
    pool: Pool, lines: list[str], code: str, expected: Json
) -> None:
    assert await v8(pool, lines, code) == Done(expected)


async def test_threads_of_v8_may_ask_for_their_priority(threads: ThreadPoolExecutor) -> None:
    """Its locks do when two threads meet there, which is seldom: one job in a thousand."""
    code = """
libc.pthread_self.restype = ctypes.c_ulong
policy, priority = ctypes.c_int(-1), ctypes.c_int(-1)
itself = ctypes.c_ulong(libc.pthread_self())
out = libc.pthread_getschedparam(itself, ctypes.byref(policy), ctypes.byref(priority))
"""
    cell = await Cell.start(HOSTILE_MACHINE, 64 * MEGABYTE, threads)
    try:
        job = Job(code.encode(), b"null", 3.0, 64 * MEGABYTE, MEGABYTE, lambda line: None)
        assert await cell.run(job) == b"0"
    finally:
        await cell.end()


@pytest.mark.parametrize(
    "code",
    [
        "while (true);",
        "while (true) await 0;",
        "(async () => { while (true) await 0 })(); return 1",
        "Atomics.wait(new Int32Array(new SharedArrayBuffer(8)), 0, 0)",
        "return /^(a+)+$/.test('a'.repeat(60) + '!')",
    ],
)
async def test_v8_is_stopped_when_its_time_is_up(pool: Pool, lines: list[str], code: str) -> None:
    async with asyncio.timeout(10):
        verdict = await v8(pool, lines, code, timeout_seconds=0.3)
    assert isinstance(verdict, Retry)
    assert verdict.code == "snippet_timeout"


async def test_v8_is_stopped_when_its_memory_is_full(pool: Pool, lines: list[str]) -> None:
    code = "const a = []; while (true) a.push({});"
    assert rejected(await v8(pool, lines, code, memory_mb=32)).code == "snippet_limit"
    code = "const a = []; while (true) a.push(new Uint8Array(1 << 24).fill(1));"
    rejected(await v8(pool, lines, code, memory_mb=32, timeout_seconds=20))


# --- Python ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["input['n'] * 2", "return input['n'] * 2"])
async def test_python_gives_its_last_value_or_what_it_returns(
    pool: Pool, lines: list[str], code: str
) -> None:
    assert await python(pool, lines, code, {"n": 21}) == Done(42)


async def test_python_keeps_whole_numbers_and_text(pool: Pool, lines: list[str]) -> None:
    given = {"n": 2**63 - 1, "text": "naïve 😀", "all": [1.5, None, True]}
    assert await python(pool, lines, "input", given) == Done(given)


async def test_what_python_prints_goes_to_the_log(pool: Pool, lines: list[str]) -> None:
    await python(pool, lines, "print('a', 1)\nprint('b', end='')")
    assert lines == ["a 1", "b"]


async def test_python_names_the_line_of_an_error(pool: Pool, lines: list[str]) -> None:
    verdict = rejected(await python(pool, lines, "a = 1\n\nraise ValueError('no')"))
    assert verdict.message == "ValueError: no (line 3)"
    verdict = rejected(await python(pool, lines, "a = 1\nb = = 2"))
    assert verdict.message.startswith("SyntaxError: ")
    assert verdict.message.endswith("(line 2)")


async def test_python_forgets_one_run_before_the_next(pool: Pool, lines: list[str]) -> None:
    await python(pool, lines, "kept = 1")
    assert rejected(await python(pool, lines, "kept")).message.startswith("NameError")


@pytest.mark.parametrize("code", ["while True: pass", "import time\ntime.sleep(60)"])
async def test_python_is_stopped_when_its_time_is_up(
    pool: Pool, lines: list[str], code: str
) -> None:
    verdict = await python(pool, lines, code, timeout_seconds=0.3)
    assert isinstance(verdict, Retry)
    assert verdict.code == "snippet_timeout"


@pytest.mark.parametrize(
    "code", ["a = []\nwhile True: a.append('x' * 1000)", "10 ** (10 ** 8)", "'x' * 10 ** 10"]
)
async def test_python_is_stopped_when_its_memory_is_full(
    pool: Pool, lines: list[str], code: str
) -> None:
    assert rejected(await python(pool, lines, code, memory_mb=32)).code == "snippet_limit"


@pytest.mark.parametrize(
    "code",
    [
        "open('/etc/passwd').read()",
        "import os\nos.environ['PATH']",
        "import os\nos.listdir('/')",
        "import os\nos.system('id')",
        "import socket",
        "import subprocess",
        "__import__('os').system('id')",
        "().__class__.__bases__[0].__subclasses__()",
        "'{0.__class__}'.format(1)",
        "globals()['__builtins__']",
    ],
)
async def test_python_reaches_nothing(pool: Pool, lines: list[str], code: str) -> None:
    rejected(await python(pool, lines, code))


@pytest.mark.parametrize("value", ["{1, 2}", "float('nan')", "b'x'", "2 ** 64 and object"])
async def test_an_output_of_python_that_is_no_json_is_refused(
    pool: Pool, lines: list[str], value: str
) -> None:
    verdict = await python(pool, lines, value)
    assert rejected(verdict).message.startswith("The output cannot be written as JSON: ")


async def test_python_does_not_run_where_its_program_would_see_all_files() -> None:
    async with Pool(PoolLimits(), without=["namespaces", "files", "landlock"]) as pool:
        with pytest.raises(JailError, match=r"neither an empty file tree .* nor Landlock"):
            await pool.warm(MONTY)
