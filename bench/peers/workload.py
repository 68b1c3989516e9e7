"""What every peer is asked to do, and the figures that come back.

A step is a no-op whose value is the moment its body ran. Throughput is steps per second over the
runs that completed. The latency of a step is the time from one body of a chain to the next one, on
an idle system: it holds everything that the engine does in between, the durable write included.
"""

import json
import math
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any


class PeerError(Exception):
    """A peer could not be installed, started or measured; the text says why."""


@dataclass(frozen=True, slots=True)
class Workload:
    """R chains of N steps, for at most `seconds`; then, one at a time, long chains for as long."""

    runs: int = 2_000
    steps: int = 10
    seconds: float = 30.0
    chains: int = 5
    chain_steps: int = 200

    def arguments(self, in_flight: int) -> list[str]:
        """The command line that every app in apps/ understands."""
        numbers = (
            self.runs,
            self.steps,
            self.seconds,
            self.chains,
            self.chain_steps,
            in_flight,
        )
        return [str(number) for number in numbers]

    @property
    def timeout(self) -> float:
        """How long a load may take: both phases, their warm-ups and the last chain of each."""
        return 4 * self.seconds + 120


@dataclass(frozen=True, slots=True)
class Figures:
    """One peer's result, in the form that is printed."""

    version: str
    throughput_steps_s: float
    step_p50_ms: float
    step_p99_ms: float
    runs: int
    steps: int
    durability: str
    notes: str
    samples: int = field(default=0)

    def document(self) -> dict[str, Any]:
        return asdict(self)


def quantile(values: list[float], q: float) -> float:
    """The smallest value that at least the share `q` of all values does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(q * len(ordered)) - 1)]


def figures(output: str, *, version: str, durability: str, notes: str) -> Figures:
    """Reads the last line of an app's output.

    It is `{"completed": runs, "seconds": s, "steps": n, "starts_ns": [[...], ...]}`, one list of
    starts for each long chain, read from one monotonic clock.
    """
    lines = output.strip().splitlines()
    try:
        told = json.loads(lines[-1])
        completed, seconds, steps = told["completed"], told["seconds"], told["steps"]
        gaps = [
            (later - earlier) / 1e6
            for starts in told["starts_ns"]
            for earlier, later in pairwise(starts)
        ]
    except (IndexError, KeyError, TypeError, ValueError) as error:
        raise PeerError(
            f"the load printed no result as its last line: {output[-300:]!r}"
        ) from error
    if not completed or not seconds:
        raise PeerError("no run completed within the time allowed")
    if not gaps:
        raise PeerError("no long chain completed within the time allowed")
    return Figures(
        version=version,
        throughput_steps_s=round(completed * steps / seconds, 1),
        step_p50_ms=round(quantile(gaps, 0.5), 3),
        step_p99_ms=round(quantile(gaps, 0.99), 3),
        runs=completed,
        steps=steps,
        durability=durability,
        notes=notes,
        samples=len(gaps),
    )
