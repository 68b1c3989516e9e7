"""What the bench harness makes of the line that a peer's load prints."""

import json

import pytest

from bench.peers.workload import Figures, PeerError, Workload, figures, quantile

MS = 1_000_000


def _figures(output: str) -> Figures:
    return figures(output, version="1.0", durability="fsync", notes="")


def _line(**changes: object) -> str:
    told: dict[str, object] = {
        "completed": 40,
        "seconds": 2.0,
        "steps": 10,
        "starts_ns": [[0, 2 * MS, 5 * MS], [900 * MS, 901 * MS]],
    }
    return json.dumps(told | changes)


def test_throughput_counts_the_steps_of_completed_runs_only():
    assert _figures(_line(completed=40, seconds=2.0, steps=10)).throughput_steps_s == 200.0


def test_a_step_lasts_from_its_start_to_the_next_one_of_the_same_chain():
    result = _figures(_line())
    assert (result.samples, result.step_p50_ms, result.step_p99_ms) == (3, 2.0, 3.0)


def test_only_the_last_line_is_read():
    assert _figures(f"a warning\n{_line()}\n").runs == 40


@pytest.mark.parametrize("output", ["", "no json", "[]", "null", '{"completed": 1}'])
def test_a_load_that_prints_no_result_is_an_error(output: str):
    with pytest.raises(PeerError, match="printed no result"):
        _figures(output)


@pytest.mark.parametrize("change", [{"completed": 0}, {"starts_ns": []}, {"starts_ns": [[1]]}])
def test_nothing_completed_is_an_error(change: dict[str, object]):
    with pytest.raises(PeerError, match="completed within the time"):
        _figures(_line(**change))


def test_a_quantile_is_a_value_that_was_measured():
    values = [float(value) for value in range(100, 0, -1)]
    assert (quantile(values, 0.5), quantile(values, 0.99), quantile([7.0], 0.99)) == (50, 99, 7)


def test_the_command_line_of_a_load_has_the_order_that_every_app_reads():
    workload = Workload(runs=1, steps=2, seconds=3.5, chains=4, chain_steps=5)
    assert workload.arguments(6) == ["1", "2", "3.5", "4", "5", "6"]
