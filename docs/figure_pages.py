"""The page of measured figures, from the reference measurement in bench/results."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from markdown import opening, row, table

REFERENCE = Path(__file__).parents[1] / "bench" / "results" / "reference.json"


def figures_page() -> Iterator[str]:
    """The table of the reference measurement, if there is one."""
    yield from opening("Figures", "bench/results/reference.json")
    if not REFERENCE.exists():
        yield "There is no reference measurement in this repository. `make bench` measures yours."
        return
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
