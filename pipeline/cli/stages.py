"""`permaflow stage`: what waits in the stages of the pipeline, and holding one back."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from pipeline.cli.show import CommandError, Json, as_json, note, table

if TYPE_CHECKING:
    from pipeline.bus.jetstream import JetStreamBus

app = typer.Typer(no_args_is_help=True, help="What waits in the stages, and holding one back.")

T = TypeVar("T")

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_LONGEST = timedelta(days=3650)
"""Until somebody resumes it."""


@app.command("list")
def list_stages(json: Json = False) -> None:
    """Show what waits in every stage, what is in work, what is paused.

    \b
    permaflow stage list
    permaflow stage list --json | jq '.[] | select(.pending > 1000)'
    """

    async def look(bus: JetStreamBus) -> list[dict[str, Any]]:
        found = []
        for name in await known(bus):
            from pipeline.bus.subjects import step_channel

            backlog = await bus.backlog(step_channel(name))
            found.append(
                {
                    "stage": name,
                    "pending": backlog.pending,
                    "in_flight": backlog.in_flight,
                    "paused": backlog.paused,
                }
            )
        return found

    found = _on_bus(look)
    if json:
        as_json(found)
        return
    table(
        ("stage", "waiting", "in work", ""),
        [
            (s["stage"], s["pending"], s["in_flight"], "paused" if s["paused"] else "")
            for s in found
        ],
    )


@app.command()
def pause(
    name: Annotated[str, typer.Argument(help="A stage, as `stage list` shows it.")],
    duration: Annotated[
        str | None, typer.Option("--for", help="How long: 90s, 10m, 2h, 1d. Else until `resume`.")
    ] = None,
    json: Json = False,
) -> None:
    """Deliver nothing to a stage for a while. What is in work goes on; nothing is lost.

    \b
    permaflow stage pause http --for 10m
    """
    span = _LONGEST if duration is None else read_duration(duration)

    async def hold(bus: JetStreamBus) -> None:
        await _pause(bus, name, span)

    _on_bus(hold)
    if json:
        as_json({"stage": name, "paused": True, "seconds": duration and span.total_seconds()})
    else:
        note(f"{name} is paused " + (f"for {duration}." if duration else "until it is resumed."))


@app.command()
def resume(
    name: Annotated[str, typer.Argument(help="A stage, as `stage list` shows it.")],
    json: Json = False,
) -> None:
    """Deliver to a stage again.

    \b
    permaflow stage resume http
    """

    async def let_go(bus: JetStreamBus) -> None:
        await _pause(bus, name, None)

    _on_bus(let_go)
    if json:
        as_json({"stage": name, "paused": False})
    else:
        note(f"{name} goes on.")


def read_duration(text: str) -> timedelta:
    """`90s`, `10m`, `2h`, `1d`; a bare number is seconds."""
    found = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhd]?)", text.strip())
    if found is None or float(found[1]) <= 0:
        raise typer.BadParameter(f"{text!r} is no duration; write 90s, 10m, 2h or 1d.")
    return timedelta(seconds=float(found[1]) * _UNITS[found[2] or "s"])


async def known(bus: JetStreamBus) -> list[str]:
    """The stages that exist: those of the settings, and those with a consumer on the bus."""
    from pipeline.bus.subjects import STEPS, stage_of
    from pipeline.settings import load_settings

    made = [name for each in await bus.channels(STEPS) if (name := stage_of(each)) is not None]
    return sorted({*load_settings().stage_names, *made})


async def _pause(bus: JetStreamBus, name: str, span: timedelta | None) -> None:
    from pipeline.bus.subjects import step_channel

    stages = await known(bus)
    if name not in stages:
        raise CommandError(
            f"There is no stage {name!r}; there are {', '.join(stages)}.", code="not_found"
        )
    await bus.pause(step_channel(name), span)


def _on_bus(work: Callable[[JetStreamBus], Awaitable[T]]) -> T:
    from pipeline import telemetry
    from pipeline.bus.jetstream import connect
    from pipeline.cli.client import wait_for
    from pipeline.endpoints import needed
    from pipeline.settings import load_settings

    url = needed(load_settings(), "nats_url")
    telemetry.configure("ERROR", "auto")

    async def run() -> T:
        bus = await connect(url, name="permaflow stage")
        try:
            return await work(bus)
        finally:
            await bus.close()

    return wait_for(run())
