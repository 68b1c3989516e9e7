"""`permaflow up`: it starts, it stops, and it leaves nothing behind however it ends."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fix_up import READY_WITHIN, STOPS_WITHIN, Permaflow, Up, gone, processes_of

pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(sys.platform != "linux", reason="looks at processes through /proc"),
]

MANUAL = {
    "nodes": [
        {"id": "start", "type": "trigger_manual"},
        {
            "id": "say",
            "type": "code_function",
            "config": {"function_slug": "echo", "input": "{{trigger.word}}"},
        },
    ],
    "edges": [{"id": "e", "source": "start", "target": "say"}],
}


def apply(permaflow: Permaflow, name: str) -> None:
    done = permaflow(
        "workflow", "apply", "-", "--name", name, "--activate", given=json.dumps(MANUAL)
    )
    assert done.returncode == 0, done.stderr


def said(permaflow: Permaflow, name: str, word: str) -> str:
    data = json.dumps({"word": word})
    run = permaflow.json("run", "start", name, "--data", data, "--wait", "--timeout", 60)
    return str(run["output"]["echo"])


def test_after_ctrl_c_nothing_is_left_and_the_next_start_has_the_same_data(
    permaflow: Permaflow,
) -> None:
    with permaflow.up() as first:
        assert len(first.pids) == 10
        assert (permaflow.data_dir / "endpoints.json").stat().st_mode & 0o777 == 0o600
        apply(permaflow, "kept")
    assert first.process.returncode == 0
    assert all(gone(pid) for pid in first.pids)
    assert not processes_of(permaflow.data_dir)
    assert not (permaflow.data_dir / "endpoints.json").exists()

    with permaflow.up() as second:
        assert second.facts["api_key"] == first.facts["api_key"]
        assert said(permaflow, "kept", "again") == "again"


@pytest.mark.parametrize("reached", ["lock", "run/postgres.json", "api-key"])
def test_ctrl_c_during_the_start_leaves_nothing_behind(permaflow: Permaflow, reached: str) -> None:
    with permaflow.started("up", "--json", "--port", "0") as process:
        until(process, permaflow.data_dir / reached)
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=STOPS_WITHIN)
        assert process.returncode == 0, errors
        assert out == ""
    assert all(gone(pid) for pid in processes_of(permaflow.data_dir))
    assert not (permaflow.data_dir / "endpoints.json").exists()


def until(process: subprocess.Popen[str], path: Path) -> None:
    """Until the start has come so far; it must not end before."""
    watch = os.pidfd_open(process.pid)
    try:
        for _ in range(int(READY_WITHIN / 0.01)):
            if path.exists():
                return
            assert not select.select([watch], [], [], 0.01)[0], process.communicate()
    finally:
        os.close(watch)
    pytest.fail(f"{path} did not appear")


def test_killing_it_leaves_no_process_and_the_next_start_works(permaflow: Permaflow) -> None:
    with permaflow.up() as up:
        every = up.pids | processes_of(permaflow.data_dir)
        up.process.kill()
        assert all(gone(pid) for pid in every)
    assert not processes_of(permaflow.data_dir)
    with permaflow.up():
        apply(permaflow, "after")
        assert said(permaflow, "after", "alive") == "alive"


def test_a_second_one_on_the_same_data_directory_is_refused_with_a_sentence(running: Up) -> None:
    again = running.permaflow("up", "--port", "0")
    assert again.returncode == 1
    assert f"is in use by process {running.process.pid}" in again.stderr
    assert "Traceback" not in again.stderr
    assert running.process.poll() is None


def test_a_port_in_use_is_refused_with_a_sentence_that_names_the_way_out(
    permaflow: Permaflow,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = permaflow("up", "--port", port)
    assert refused.returncode == 1
    assert f"Port {port} of 127.0.0.1 cannot be used" in refused.stderr
    assert "--port" in refused.stderr
    assert not permaflow.data_dir.exists()


def test_on_its_own_port_the_refusal_names_the_one_that_runs(running: Up) -> None:
    port = running.facts["api_url"].rpartition(":")[2]
    again = running.permaflow("up", "--port", port)
    assert again.returncode == 1
    assert f"process {running.process.pid}" in again.stderr


def test_a_vertex_that_is_killed_is_replaced_and_work_goes_on(running: Up) -> None:
    permaflow = running.permaflow
    apply(permaflow, "survivor")
    for vertex in ("orchestrator", "runner"):
        pid = running.pid(vertex)
        os.kill(pid, signal.SIGKILL)
        assert gone(pid)
    assert said(permaflow, "survivor", "still here") == "still here"


def test_servers_of_your_own_are_used_and_none_is_started(
    permaflow: Permaflow, running: Up
) -> None:
    """Two of them on the same servers share the work."""
    urls = {f"PERMAFLOW_{name.upper()}": url for name, url in running.facts["urls"].items()}
    with permaflow.up(**urls) as other:
        assert other.facts["servers"] == {}
        assert other.facts["urls"] == running.facts["urls"]
        apply(permaflow, "shared")
        assert said(permaflow, "shared", "there") == "there"
        assert "shared" in [each["name"] for each in running.permaflow.json("workflow", "list")]
        refused = permaflow("up", "--port", "0", **urls)
        assert f"is in use by process {other.process.pid}" in refused.stderr
    assert other.process.returncode == 0
    assert not any(gone(pid, 0) for pid in running.facts["servers"].values())


def test_a_server_that_is_killed_is_brought_back_and_without_its_fork_server_it_ends(
    permaflow: Permaflow,
) -> None:
    with permaflow.up() as up:
        parent = parent_of(up.pid("clock"))
        apply(permaflow, "patient")
        for server in ("nats", "postgres"):
            os.kill(up.facts["servers"][server], signal.SIGKILL)
            assert gone(up.facts["servers"][server])
        data = json.dumps({"word": "back"})
        until_it_works(permaflow, "run", "start", "patient", "--data", data, "--wait")

        os.kill(parent, signal.SIGKILL)
        assert up.process.wait(STOPS_WITHIN) == 1
    log = permaflow.data_dir.with_suffix(".log").read_text()
    assert "server.ended" in log
    assert "The process that the vertices are born from was killed" in log
    assert all(gone(pid) for pid in processes_of(permaflow.data_dir))


def until_it_works(permaflow: Permaflow, *arguments: object) -> None:
    """A command that may be refused while a server starts; each try takes its time."""
    for _ in range(30):
        done = permaflow(*arguments, "--timeout", 60)
        if done.returncode == 0:
            return
    pytest.fail(done.stderr)


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
