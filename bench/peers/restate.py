"""Restate: one server, and a service of the TypeScript SDK whose steps are `ctx.run` calls."""

import json
import shutil
import urllib.request
from collections.abc import Callable

from bench.peers.environment import Home, app, pinned
from bench.peers.process import Processes, free_ports, listening, until
from bench.peers.workload import Figures, PeerError, Workload, figures

SERVER = "node_modules/.bin/restate-server"

# Measured on two cores: 1,500 steps/s with 20 chains in flight, 4,600 with 300, 6,000 with 1,000
# and 4 partitions instead of 24. The Python SDK reached 1,400 under Hypercorn, 2,400 under Granian.
IN_FLIGHT = 1_000
PARTITIONS = 4


async def measure(home: Home, workload: Workload) -> Figures:
    node = shutil.which("node")
    if node is None:
        raise PeerError("node is needed to run the service; install Node 20 or newer")
    data = home.fresh_data()
    internal, ingress, admin, service = free_ports(4)
    script = home.path / "restate_app.mjs"  # Node looks for packages beside the file it runs
    shutil.copy(app("restate_app.mjs"), script)
    settings = {
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_DEFAULT_NUM_PARTITIONS": str(PARTITIONS),
        "RESTATE_BIND_PORT": str(internal),
        "RESTATE_INGRESS__BIND_PORT": str(ingress),
        "RESTATE_ADMIN__BIND_PORT": str(admin),
    }
    options = ["--listen-mode", "tcp", "--bind-ip", "127.0.0.1", "--no-logo", "--base-dir", data]
    async with Processes(home.logs) as processes:
        server = await processes.start("restate", [home.path / SERVER, *options], env=settings)
        worker = await processes.start("restate-service", [node, script, "serve", str(service)])
        await until(listening(service), worker)
        await until(_answers(f"http://127.0.0.1:{admin}/health"), server)
        uri = {"uri": f"http://127.0.0.1:{service}"}
        await until(_answers(f"http://127.0.0.1:{admin}/deployments", uri), server)
        await until(_answers(f"http://127.0.0.1:{ingress}/restate/health"), server)
        load = [node, script, "load", f"http://127.0.0.1:{ingress}"]
        output = await processes.run(
            "restate-load", [*load, *workload.arguments(IN_FLIGHT)], workload.timeout
        )
    pins = pinned("restate")
    return figures(
        output,
        version=pins["@restatedev/restate-server"],
        durability="fsync of the replicated log on, as by default; one node",
        notes=f"TypeScript SDK {pins['@restatedev/restate-sdk']}, {PARTITIONS} partitions, "
        f"{IN_FLIGHT} runs in flight; a step runs inside the service's process",
    )


def _answers(url: str, document: dict[str, str] | None = None) -> Callable[[], bool]:
    body = None if document is None else json.dumps(document).encode()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})

    def ready() -> bool:
        try:
            with urllib.request.urlopen(request, timeout=10) as response:
                return response.status < 300
        except OSError:
            return False

    return ready
