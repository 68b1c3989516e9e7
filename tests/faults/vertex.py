"""One process of a vertex for a fault test, with a bug planted if one is named.

A fault test that cannot tell a planted bug from the sound engine is no test.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

import uvloop

from pipeline import telemetry
from pipeline.serve import serve
from pipeline.settings import load_settings


def no_reconciler() -> None:
    """Silent runs are never looked at: what the bus lost stays lost."""
    from pipeline.clock import Clock

    async def nothing(_self: Clock) -> None:
        return None

    Clock._nudge_silent_runs = nothing  # type: ignore[method-assign]


def ack_before_commit() -> None:
    """Inputs are acked as they come; a crash before the commit loses them."""
    from pipeline.orchestrator import Orchestrator

    sound = Orchestrator.handle

    async def hasty(self: Orchestrator, messages: object) -> None:
        for message in messages:  # type: ignore[attr-defined]
            message.ack()
        await sound(self, messages)  # type: ignore[arg-type]

    Orchestrator.handle = hasty  # type: ignore[method-assign,assignment]
    no_reconciler()


def no_attempt_guard() -> None:
    """Any result counts, also that of an attempt that was given up."""
    from pipeline.core import decide
    from pipeline.core.state import NodeState

    def anything(self: decide._Turn, event: object) -> NodeState | None:
        scope = self.run.scopes.get(event.scope)  # type: ignore[attr-defined]
        return scope.nodes.get(event.node) if scope else None  # type: ignore[attr-defined]

    decide._Turn._current = anything  # type: ignore[method-assign,assignment]


def never_stops() -> None:
    """A vertex that blocks its event loop when it is to stop, in a process with little patience."""
    from pipeline import serve as serving
    from pipeline.clock import Clock

    async def hang(_self: Clock) -> None:
        time.sleep(60)  # noqa: ASYNC251

    Clock.stop = hang  # type: ignore[method-assign]
    serving.DRAIN = serving.GOODBYE = 0.1


PLANTS: dict[str, Callable[[], None]] = {
    "no_reconciler": no_reconciler,
    "ack_before_commit": ack_before_commit,
    "no_attempt_guard": no_attempt_guard,
    "never_stops": never_stops,
}


def main() -> None:
    vertex, *plants = sys.argv[1:]
    for plant in plants:
        PLANTS[plant]()
    settings = load_settings()
    telemetry.configure(settings.log_level, "json")

    def ready(port: int) -> None:
        import os

        with open(os.environ["PERMAFLOW_READY_FILE"], "w") as file:
            file.write(f"{port}\n")

    uvloop.run(serve(vertex, settings, ready=ready))


if __name__ == "__main__":
    main()
