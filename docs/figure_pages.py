"""What the reference measurement in bench/results says: a page, and a table for the README."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from markdown import opening, row, table

REFERENCE = Path(__file__).parents[1] / "bench" / "results" / "reference.json"


def figures_page() -> Iterator[str]:
    """The table of the reference measurement, if there is one."""
    yield from opening("Figures", "bench/results/reference.json")
    whole = json.loads(REFERENCE.read_text(encoding="utf-8"))
    facts = whole["machine"]
    yield f"Measured at {whole['at']} on commit `{whole['commit']}`: {facts['processors']}"
    yield f"processors, {facts['memory_gb']} GB, {facts['system']}, Python {facts['python']},"
    yield f"PostgreSQL {facts['postgres']}, NATS {facts['nats']}. A missed target is a line, too."
    yield "`make bench` measures yours; how to read it: [bench/README.md](../../bench/README.md)."
    yield ""
    yield from table("Benchmark", "What", "Reached", "Target", "Met")
    for line in whole["table"]:
        met = {True: "yes", False: "no", None: ""}[line["met"]]
        yield row(f"`{line['benchmark']}`", line["what"], line["reached"], line["target"], met)


def other_engines() -> Iterator[str]:
    """The same chain of steps on other engines, as the README tells it."""
    whole = json.loads(REFERENCE.read_text(encoding="utf-8"))
    ours = whole["results"]["throughput"]["steps_per_s"]["median"]
    facts = whole["machine"]
    machine = (
        f"{facts['processors']} processors ({whole['at'][:10]}; Permaflow {ours:,.0f} steps/s)"
    )
    yield "The same chain of ten steps on each engine, durable, one after the other in one call of"
    yield f"`make bench` on {machine}. A ratio above 1 is in favour of Permaflow."
    yield "Restate and DBOS work a step off in the process of its run; here it goes to a runner."
    yield ""
    yield from table("", "Steps/s", "Throughput, ratio", "One step p50, ratio", "p99, ratio")
    for name, found in whole["results"]["peers"].items():
        ratios = found["ratios"]
        yield row(
            f"{name.capitalize().replace('Dbos', 'DBOS')} {found['version']}",
            f"{found['throughput_steps_s']:,.0f}",
            *(f"{ratios[key]:.1f} ×" for key in ("throughput", "step_p50", "step_p99")),
        )
