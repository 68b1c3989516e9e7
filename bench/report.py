"""What comes out of the benchmarks: lines of a table, and one JSON document."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.usage import memory_bytes, processors
from pipeline.embedded.binaries import find_binary

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results"


@dataclass(frozen=True, slots=True)
class Line:
    """One figure. `met` is None where there is no target."""

    what: str
    reached: str
    target: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True)
class Spread:
    """Percentiles of some times, in milliseconds."""

    count: int
    p50: float
    p90: float
    p99: float
    max: float


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """The percentiles of times that are given in seconds."""
    ordered = sorted(seconds)

    def at(share: float) -> float:
        return round(ordered[max(0, math.ceil(share * len(ordered)) - 1)] * 1e3, 3)

    return asdict(Spread(len(ordered), at(0.5), at(0.9), at(0.99), at(1.0)))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processors": processors(),
        "memory_gb": round(memory_bytes() / 1e9, 1),
        "load_before": round(os.getloadavg()[0], 2),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "postgres": _printed(str(find_binary("postgres")), "--version").rpartition(" ")[2],
        "nats": _printed(str(find_binary("nats-server")), "--version").rpartition(" v")[2],
    }


def _printed(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    return done.stdout.strip()


def commit() -> str:
    """The commit that was measured, with a `+` where the code differs from it."""
    found = _printed("git", "rev-parse", "--short=10", "HEAD") or "unknown"
    tracked = ("permaflow", "pipeline", "stages", "specs", "connectors", "bench")
    changed = _printed("git", "status", "--porcelain", "--", *tracked)
    return found + ("+" if changed else "")


def document(
    scale: str, results: dict[str, Any], lines: dict[str, list[Line]], facts: dict[str, Any]
) -> dict[str, Any]:
    """Everything, as it is written to the file."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "scale": scale,
        "machine": facts,
        "table": [
            {"benchmark": name, **asdict(line)} for name, found in lines.items() for line in found
        ],
        "results": results,
    }


def write(whole: dict[str, Any], path: Path | None) -> Path:
    """Write the document, by default to results/<date>-<commit>.json."""
    if path is None:
        date = datetime.fromisoformat(whole["at"]).strftime("%Y%m%d-%H%M%S")
        path = RESULTS / f"{date}-{whole['commit'].rstrip('+')}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(whole, indent=2) + "\n")
    return path


def print_table(whole: dict[str, Any]) -> None:
    facts = whole["machine"]
    table = Table(
        title=f"Permaflow {whole['commit']} on {facts['processors']} processors, "
        f"Python {facts['python']}, PostgreSQL {facts['postgres']}, NATS {facts['nats']}",
        title_justify="left",
    )
    for column in ("", "what", "target", "reached", "met"):
        table.add_column(column, justify="right" if column == "reached" else "left")
    before = ""
    for row in whole["table"]:
        name = row["benchmark"]
        met = {True: "[green]yes[/]", False: "[red]no[/]", None: ""}[row["met"]]
        table.add_section() if before and name != before else None
        table.add_row(
            name if name != before else "", row["what"], row["target"], row["reached"], met
        )
        before = name
    Console(width=None if Console().is_terminal else 120).print(table)
