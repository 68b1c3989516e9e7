"""The bench measures the real system, and says what it has measured."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from bench import against, large, latency, loops, report, snippet, throughput, usage
from bench.documents import long_body
from bench.report import Line
from bench.stand import BenchError, Stand, stand
from bench.webhook_load import Connection, Load

ROOT = Path(__file__).parents[2]
Answer = Callable[[], Awaitable[bytes]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def system() -> AsyncIterator[Stand]:
    async with stand() as found:
        yield found


@pytest.mark.service
@pytest.mark.asyncio(loop_scope="module")
async def test_throughput_counts_the_steps_of_runs_that_were_completed(system: Stand):
    result = await throughput.measure(system, 10, 3, 1)
    (only,) = result["rounds"]
    assert only["steps_per_s"] == pytest.approx(30 / only["seconds"], rel=0.05)
    assert only["steps_per_s"] == result["steps_per_s"]["median"]
    assert set(only["cpu_us_per_step"]) >= {"orchestrator", "runner", "gateway", "postgres", "nats"}
    assert throughput.lines(result)[0].target == "≥ 15,000"


@pytest.mark.service
@pytest.mark.asyncio(loop_scope="module")
async def test_latency_has_a_time_for_each_step_of_each_run(system: Stand):
    result = await latency.measure(system, 10, 2)
    step = result["step_ms"]
    assert step["count"] == 20
    assert 0 < step["p50"] <= step["p99"] <= step["max"]


async def test_a_code_step_is_measured_through_the_runner_itself():
    took = await snippet.in_the_runner(20)
    assert len(took) == 20
    assert all(0 < each < 10_000 for each in took)


async def test_a_code_step_that_did_not_run_is_not_measured(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(snippet, "TRIVIAL", "throw 1")
    with pytest.raises(BenchError, match="came back as"):
        await snippet.in_the_runner(1)


@pytest.mark.service
@pytest.mark.asyncio(loop_scope="module")
async def test_a_loop_is_measured_by_its_items_and_by_the_memory_it_takes(system: Stand):
    result = await loops.measure(system, long_body(), 10, 2, 30)
    assert [each["items"] for each in result["rounds"]] == [10, 10, 30]
    cost, memory = result["us_per_item"], result["orchestrator_mb"]
    assert cost["large"] * 30 / 1e6 == pytest.approx(result["large"]["seconds"], abs=0.001)
    assert memory["peak_large"] >= memory["before"] > 1
    told = {line.what: line for line in loops.lines({**result, "three_nodes": result})}
    assert told["orchestrator's memory at its highest, large loop ÷ small"].met


@pytest.mark.service
@pytest.mark.asyncio(loop_scope="module")
async def test_a_deep_sequence_is_held_against_a_short_one_and_a_wide_graph_ends(system: Stand):
    result = await large.measure(system, 2, 30, 40)
    deep, short = result["deep"], result["short"]
    assert deep["ms_per_step"] == pytest.approx(deep["seconds"] / 30 * 1e3, rel=0.1)
    assert short["ms_per_step"] > 0
    assert result["wide"]["seconds"] > 0
    assert large.lines(result)[0].what == "sequence 30 deep"


def test_a_cost_or_a_peak_that_grows_with_the_loop_is_missed():
    cost, memory = {"small": 10.0, "large": 13.0}, {"peak_small": 80.0, "peak_large": 100.0}
    half = {
        "small": {"items": 1, "seconds": 1.0},
        "large": {"items": 10, "seconds": 10.0},
        "us_per_item": cost,
        "orchestrator_mb": {**memory, "after_first": 80.0, "after_last": 100.0},
    }
    missed = [line.what for line in loops.lines({**half, "three_nodes": half}) if line.met is False]
    assert len(missed) == 5


@pytest.mark.service
async def test_nothing_that_was_started_is_left():
    async with stand(vertices=["clock"]) as system:
        folder, pids = system.folder, list(system.pids.values())
        assert len(pids) == 3
        assert all(_lives(pid) for pid in pids)
    assert not any(_lives(pid) for pid in pids)
    assert not folder.exists()


@pytest.mark.service
async def test_a_vertex_that_cannot_start_is_told_with_what_it_said():
    with pytest.raises(BenchError, match=r"clock ended with status 1: .*PERMAFLOW_CONCURRENCY"):
        async with stand(vertices=["clock"], concurrency="many"):
            pass


async def test_an_unknown_benchmark_is_refused_with_the_names_there_are():
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench", "thruput"),
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == 2
    assert "no benchmark 'thruput'; choose from throughput, latency" in said.decode()


async def test_a_webhook_that_waits_for_a_connection_is_late_from_its_own_moment_on():
    """Three at once over one connection to a server that takes 50 ms for each."""
    told = await _load(_answer_slowly, rate=1_000, seconds=0.003)
    times: Any = told["times"]
    assert told["runs"] == ["r", "r", "r"]
    assert times[0] >= 0.045
    assert times[1] >= 0.095
    assert times[2] >= 0.145


async def test_an_answer_other_than_202_is_a_failure_with_its_status():
    told = await _load(_refuse, rate=1_000, seconds=0.002)
    assert (told["runs"], told["failed"]) == ([], {"429": 2})


def test_percentiles_are_times_that_were_measured():
    told = report.spread([number / 1_000 for number in range(1, 101)])
    assert told == {"count": 100, "p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}


def test_above_one_is_better_for_us_in_every_ratio():
    ours = {
        "throughput": {"steps_per_s": {"median": 10_000}},
        "latency": {"step_ms": {"p50": 1.0, "p99": 4.0}},
    }
    theirs = {"throughput_steps_s": 500.0, "step_p50_ms": 2.0, "step_p99_ms": 2.0}
    assert against.ratios(theirs, ours)["ratios"] == {
        "throughput": 20.0,
        "step_p50": 2.0,
        "step_p99": 0.5,
    }


def test_a_peer_that_failed_is_shown_with_its_error():
    found = against.lines({"dbos": {"error": "dbos: it did not start"}})
    assert found == [Line("dbos", "dbos: it did not start", met=False)]


async def test_nothing_is_compared_when_we_failed_ourselves():
    with pytest.raises(BenchError, match="nothing to compare with: NATS is away"):
        await against.bench("quick", {"throughput": {"error": "NATS is away"}, "latency": {}})


def test_the_document_holds_every_line_and_is_written_whole(tmp_path: Path):
    line = Line("steps/s", "12", "≥ 10", met=True)
    whole = report.document("quick", {"a": {"x": 1}}, {"a": [line]}, {"processors": 2})
    path = report.write(whole, tmp_path / "deep" / "result.json")
    read = json.loads(path.read_text())
    assert read["results"] == {"a": {"x": 1}}
    assert read["table"] == [
        {"benchmark": "a", "what": "steps/s", "reached": "12", "target": "≥ 10", "met": True}
    ]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_meter_sees_the_time_that_a_process_uses():
    meter = usage.Meter({"me": os.getpid()})
    end = os.times().user + 0.1
    while os.times().user < end:
        sum(range(1_000))
    assert 0.05 <= meter.seconds()["me"] <= 2.0


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def _load(answer: Answer, rate: float, seconds: float) -> dict[str, Any]:
    """The load over one connection to a server that answers each request so."""
    ended = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
                writer.write(await answer())
        except asyncio.IncompleteReadError:
            writer.close()
            await writer.wait_closed()
            ended.set()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        loop = asyncio.get_running_loop()
        transport, connection = await loop.create_connection(Connection, "127.0.0.1", port)
        try:
            return await Load("x", "/hook", [connection]).run(rate, seconds, 0)
        finally:
            transport.close()
            await ended.wait()


async def _answer_slowly() -> bytes:
    await asyncio.sleep(0.05)  # what is measured
    body = b'{"run_id": "r"}'
    return b"HTTP/1.1 202 Accepted\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)


async def _refuse() -> bytes:
    return b"HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
