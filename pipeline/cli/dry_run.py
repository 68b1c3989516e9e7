"""`permaflow workflow dry-run`: what a workflow would do, played without doing it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.show import FAILED, CommandError, Json, as_json, fields, note, table

if TYPE_CHECKING:
    from pipeline.cli.documents import Document


def dry_run(
    which: Annotated[str, typer.Argument(help="A file, or the id or name of a workflow.")],
    data: Annotated[
        str | None, typer.Option(help="The trigger's data as JSON; @file reads a file.")
    ] = None,
    mocks: Annotated[
        str | None,
        typer.Option(help="What steps come to, by node, as JSON; @file reads a file."),
    ] = None,
    events: Annotated[
        int | None,
        typer.Option(min=1, max=50, help="Play the last events that started runs of it instead."),
    ] = None,
    events_of: Annotated[
        str | None, typer.Option("--of", help="The events of this workflow; for a file.")
    ] = None,
    version: Annotated[int | None, typer.Option(min=1, help="Play this version.")] = None,
    json: Json = False,
) -> None:
    """Play a workflow to its end; nothing outside happens. Exit code 1 if a run would not complete.

    Steps come to an empty output unless --mocks says otherwise: an "output" (through a "port"), an
    "error", "timed_out": true, or a list of these for successive attempts. A file is played here,
    without a server; with --events, and for a saved workflow, the server does it, steps come to
    what they came to then, and what differs from the active version is told.

    \b
    permaflow workflow dry-run flow.json --data '{"amount": 120}'
    permaflow workflow dry-run flow.json --mocks '{"charge": {"error": {"code": "declined"}}}'
    permaflow workflow dry-run flow.json --events 20 --of "New orders"
    """
    from pipeline.cli.documents import read
    from pipeline.cli.runs import read_data

    if events_of is not None and events is None:
        raise typer.BadParameter("--of says whose events --events plays: give both.")
    body: dict[str, Any] = {"mocks": read_data(mocks, "--mocks") if mocks else {}}
    if data is not None:
        body["trigger_data"] = read_data(data)
    if events is not None:
        body["events"] = events
    if version is not None:
        body["version"] = version
    path = Path(which)
    document = read(path) if which == "-" or path.is_file() else None
    if document is not None and events is None:
        told = _here(document, body)
    else:
        told = _there(which, document, events_of, body)
    if json:
        as_json(told)
    else:
        for event in told["events"]:
            _show(event, told["compared_with"])
    if left_out := told["events_left_out"]:
        note(f"{left_out} more events are left out: their data are too much together.")
    if any(event["starts"] and event["status"] != "completed" for event in told["events"]):
        raise typer.Exit(FAILED)


def _here(document: Document, body: dict[str, Any]) -> dict[str, Any]:
    """Play a file without a server."""
    from pydantic import ValidationError

    from pipeline import builtins
    from pipeline.cli.documents import check
    from pipeline.core.program import Program
    from pipeline.gateway.documents import check_document
    from pipeline.gateway.dry_run_views import DryRunBody, DryRunView
    from pipeline.gateway.playing import Version, by_hand, play
    from pipeline.settings import load_settings

    report = check(document)
    if not report.valid:
        for finding in report.findings:
            note(f"{report.file}:{finding}")
        raise CommandError(f"{report.file} cannot be played.", code="invalid_document")
    settings = load_settings()
    checked = check_document(document.definition, builtins.task_types(settings), settings.limits)
    assert checked.compiled.plan is not None
    try:
        wanted = DryRunBody.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise CommandError(f"{where}: {first['msg']}.", code="invalid_mocks") from error
    program = Program(settings.limits.hold(checked.compiled.plan))
    version = Version(program, checked.triggers)
    happenings = [by_hand(checked.triggers, wanted.trigger_data, wanted.trigger)]
    played = play(version, None, happenings, wanted.mocks)
    view = DryRunView(version=None, compared_with=None, events=played)
    return view.model_dump(mode="json")


def _there(
    which: str, document: Document | None, events_of: str | None, body: dict[str, Any]
) -> dict[str, Any]:
    """Let the server play it."""
    from pipeline.cli.client import DEFINITIONS, Api, wait_for

    async def ask() -> dict[str, Any]:
        async with Api() as api:
            if document is None:
                path = f"{DEFINITIONS}/{await api.workflow_id(which)}/dry-run"
                if events_of is not None:
                    body["events_of"] = await api.workflow_id(events_of)
            else:
                body["definition"] = document.definition
                named = await api.workflow_id(events_of or document.name)
                path = f"{DEFINITIONS}/{named}/dry-run"
            told: dict[str, Any] = await api.call("POST", path, body)
            return told

    return wait_for(ask())


_BROKEN = {"steps": "too many steps", "size": "too much to tell", "time": "it takes too long"}


def _no_end(event: dict[str, Any]) -> str:
    if not event["starts"]:
        return f"no run: {event['why_not']}"
    return f"broken off: {_BROKEN[event['broken_off']]}"


def _show(event: dict[str, Any], compared_with: int | None) -> None:
    import orjson

    def text(value: Any) -> str:
        return "" if value is None else orjson.dumps(value).decode()

    fields(
        (
            ("event", event["run_id"] or "the data given"),
            ("from", event["source"]),
            ("would end as", event["status"] or _no_end(event)),
            ("error", (event["error"] or {}).get("message")),
            ("would wait", f"{event['seconds']:g} s" if event["seconds"] else None),
            ("output", text(event["output"])),
        )
    )
    table(
        ("step", "type", "outcome", "port", "attempts", "answer", "output"),
        [
            (
                "/".join(part for part in (step["scope"], step["node"]) if part),
                step["type"],
                step["status"],
                step["port"] or "",
                str(step["attempts"]),
                step["mock"] or "",
                text((step["error"] or {}).get("message", step["output"])),
            )
            for step in event["steps"]
        ],
    )
    if event["recording"] == "part":
        note("Only part of what was recorded could be read; other steps come to nothing.")
    if compared_with is None:
        return
    if event["starts"] != event["active_starts"]:
        note(
            f"The active version {compared_with} starts no run: {event['active_why_not']}"
            if event["starts"]
            else f"The active version {compared_with} starts a run from this event, this none."
        )
        return
    if event["broken_off"] or event["active_broken_off"]:
        note("One was broken off: what differs after that is not known.")
    if not event["differences"]:
        note(f"The active version {compared_with} would do the same.")
    for each in event["differences"]:
        name = "/".join(part for part in (each["scope"], each["node"]) if part)
        was, now = (each[side] and each[side]["status"] for side in ("active", "this"))
        note(
            f"{name} differs in {', '.join(each['what'])}: {was or 'not there'} in the active "
            f"version {compared_with}, {now or 'not there'} in this."
        )
