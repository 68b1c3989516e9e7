"""`permaflow demo`: real input, counted runs, and an end that says whether they agree."""

from __future__ import annotations

import json
import select
import signal
from pathlib import Path

import pytest

from tests.fix_up import READY_WITHIN, Permaflow

pytestmark = [pytest.mark.service, pytest.mark.slow]


def test_it_ends_by_itself_with_a_summary_in_which_no_run_is_lost_or_doubled(
    permaflow: Permaflow, server_dir: Path
) -> None:
    scratch = server_dir / "scratch"
    scratch.mkdir(mode=0o711)
    done = permaflow("demo", "--seconds", 5, "--rate", 40, "--json", TMPDIR=str(scratch))
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout)
    assert summary["agrees"] is True
    assert summary["faults"] == []
    assert summary["orders"] > 100
    assert summary["kafka_messages"] > 50
    started = summary["runs_started"]
    assert started == summary["runs_completed"] == summary["runs_expected"]
    assert all(counts["completed"] > 0 for counts in summary["workflows"].values())
    assert summary["workflows"].keys() == {"order-notify", "order-audit", "payment-check"}
    assert summary["notified"] == summary["workflows"]["order-notify"]["expected"]
    assert summary["first_step_ms"]["p50"] > 0
    assert done.stderr == ""
    assert list(scratch.iterdir()) == []
    assert not permaflow.data_dir.exists()


def test_ctrl_c_closes_the_shop_and_counts(permaflow: Permaflow) -> None:
    data = permaflow.data_dir.with_name("demo")
    with permaflow.started("demo", "--data-dir", data, "--rate", 40) as process:
        assert process.stderr is not None
        seen = ""
        while " orders, " not in seen:
            assert select.select([process.stderr], [], [], READY_WITHIN)[0], seen
            line = process.stderr.readline()
            assert line, seen
            seen += line
        process.send_signal(signal.SIGINT)
        out, errors = process.communicate(timeout=90)
    assert process.returncode == 0, out + errors
    assert "None lost, none doubled." in out
    assert (data / "postgres").is_dir()


def test_it_takes_no_server_from_the_settings(permaflow: Permaflow) -> None:
    """A stranger's database would get a table of orders."""
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    done = permaflow(
        "demo",
        "--seconds",
        1,
        "--json",
        PERMAFLOW_DATABASE_URL=nowhere,
        PERMAFLOW_NATS_URL="nats://x",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["agrees"] is True
