"""`permaflow run`: runs started, watched and ended."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.show import (
    DONE,
    FAILED,
    TIMED_OUT,
    CommandError,
    Json,
    as_json,
    fields,
    note,
    since,
    span,
    table,
    when,
)

if TYPE_CHECKING:
    from pipeline.cli.client import Api

app = typer.Typer(no_args_is_help=True, help="Runs: start, list, look at, watch, end.")


def _run_id(text: str) -> str:
    from uuid import UUID

    try:
        return str(UUID(text))
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is no id of a run; `permaflow run list` shows them."
        ) from None


Id = Annotated[str, typer.Argument(help="Id of a run.", callback=_run_id)]


@app.command()
def start(
    workflow: Annotated[str, typer.Argument(help="Id or name of an active workflow.")],
    data: Annotated[
        str, typer.Option(help="The trigger's data: JSON, @file, or @- for standard input.")
    ] = "{}",
    wait: Annotated[bool, typer.Option("--wait", help="Wait for its end.")] = False,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="With --wait: for so many seconds; then 124.")
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Idempotency key: the same key starts one run only.")
    ] = None,
    json: Json = False,
) -> None:
    """Start a run. With --wait the exit code tells how it ended.

    \b
    permaflow run start "New orders" --data '{"id": 7, "amount": 120}'
    permaflow run start "New orders" --data @order.json --wait --timeout 60
    """
    from shlex import quote

    from pipeline.cli.client import RUNS, Api, wait_for

    if timeout is not None and not wait:
        raise typer.BadParameter("--timeout says how long to wait; give --wait as well.")
    given = read_data(data)

    async def work() -> tuple[int, dict[str, Any]]:
        async with Api() as api:
            body = {"workflow_id": await api.workflow_id(workflow), "trigger_data": given}
            headers = {"idempotency-key": key} if key else None
            try:
                started: dict[str, Any] = await api.call("POST", RUNS, body, headers=headers)
            except CommandError as error:
                if error.code != "not_found":
                    raise
                raise CommandError(
                    f"{error}. `permaflow workflow activate {quote(workflow)}` switches it on.",
                    code=error.code,
                ) from error
            if not wait:
                return DONE, started
            if not json:
                note(f"Run {started['id']}")
            return await _until_end(api, started["id"], timeout, json, quiet=True)

    code, found = wait_for(work())
    if json:
        as_json(found)
    elif wait:
        _show(found)
    else:
        print(found["id"])
    raise typer.Exit(code)


@app.command("list")
def list_runs(
    workflow: Annotated[str | None, typer.Option(help="Id or name of a workflow.")] = None,
    status: Annotated[
        str | None, typer.Option(help="Only these, by commas: running,waiting,failed …")
    ] = None,
    after: Annotated[
        str | None, typer.Option("--since", help="Started at this time or later (ISO 8601).")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 50,
    json: Json = False,
) -> None:
    """List runs, newest first.

    \b
    permaflow run list --status failed --since 2026-01-31
    permaflow run list --workflow "New orders" --json | jq -r '.[].id'
    """
    from pipeline.cli.client import RUNS, Api, wait_for

    async def look() -> list[dict[str, Any]]:
        async with Api() as api:
            chosen = await api.workflow_id(workflow) if workflow else None
            return await api.pages(RUNS, limit, workflow_id=chosen, status=status, since=after)

    found = wait_for(look())
    if json:
        as_json(found)
        return
    table(
        ("id", "status", "source", "started", "took", "error"),
        [
            (
                run["id"],
                run["status"],
                run["source"],
                when(run["created_at"]),
                span(run["duration_ms"]) or f"{span(since(run['created_at']))} …",
                (run["error"] or {}).get("message", ""),
            )
            for run in found
        ],
    )


@app.command()
def get(run: Id, json: Json = False) -> None:
    """Show a run with its steps.

    \b
    permaflow run get 019a… --json | jq .output
    """
    from pipeline.cli.client import RUNS, Api, wait_for

    async def look() -> tuple[dict[str, Any], list[dict[str, Any]]]:
        async with Api() as api:
            path = f"{RUNS}/{run}"
            return await api.call("GET", path), await api.pages(f"{path}/steps", 1_000)

    found, steps = wait_for(look())
    if json:
        as_json({**found, "step_list": steps})
        return
    _show(found)
    print()
    table(
        ("step", "type", "status", "attempts", "took", "error"),
        [
            (
                f"{step['scope']}/{step['node']}" if step["scope"] else step["node"],
                step["type"],
                step["status"],
                step["attempts"],
                span(step["duration_ms"]),
                (step["error"] or {}).get("message", ""),
            )
            for step in steps
        ],
    )
    for step in steps:
        for line in step["log"]:
            print(f"{step['node']}: {line}")


@app.command()
def watch(
    run: Id,
    timeout: Annotated[
        float | None, typer.Option(min=0.1, help="Stop watching after so many seconds; then 124.")
    ] = None,
    json: Json = False,
) -> None:
    """Follow a run to its end, from its beginning on. The exit code tells how it ended.

    With --json every event is one line on stdout.

    \b
    permaflow run watch 019a…
    """
    from pipeline.cli.client import Api, wait_for

    async def follow() -> int:
        async with Api() as api:
            return (await _until_end(api, run, timeout, json))[0]

    raise typer.Exit(wait_for(follow()))


@app.command()
def cancel(
    run: Id,
    reason: Annotated[str, typer.Option(help="Why.")] = "",
    json: Json = False,
) -> None:
    """Ask for the end of a run.

    \b
    permaflow run cancel 019a… --reason "wrong price list"
    """
    from pipeline.cli.client import RUNS, ask

    found = ask("POST", f"{RUNS}/{run}/cancel", {"reason": reason})
    if json:
        as_json(found)
    else:
        note(f"The end of the run is asked for; it is {found['status']}.")


def _control(run: str, name: str, json: bool) -> dict[str, Any]:
    from pipeline.cli.client import RUNS, ask

    found = ask("POST", f"{RUNS}/{run}/{name}")
    if json:
        as_json(found)
    return found


@app.command()
def retry(run: Id, json: Json = False) -> None:
    """Let a failed run go on from the step that failed.

    The same for one that timed out or was cancelled: it goes on where that happened.

    It stays the same run. What has succeeded in it is not done again.

    \b
    permaflow run retry 019a…
    """
    _control(run, "retry", json)
    if not json:
        note("The run goes on.")


@app.command()
def rerun(
    run: Id,
    start_at: Annotated[
        str | None, typer.Option("--from", help="The step to begin at; all of it without.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(help="Other data of the trigger: JSON, @file, or @- for standard input."),
    ] = None,
    version: Annotated[
        str, typer.Option(help="Of the workflow: same, latest, or a number.")
    ] = "same",
    json: Json = False,
) -> None:
    """Do a run again, as a new run: all, or from a step on.

    \b
    permaflow run rerun 019a… --version latest
    permaflow run rerun 019a… --from charge --data @order.json
    """
    from pipeline.cli.client import RUNS, ask

    body: dict[str, Any] = {"version": int(version) if version.isdecimal() else version}
    if start_at is not None:
        body["from"] = start_at
    if data is not None:
        body["input"] = read_data(data)
    found = ask("POST", f"{RUNS}/{run}/rerun", body)
    if json:
        as_json(found)
    else:
        print(found["id"])


@app.command()
def migrate(
    run: Id,
    version: Annotated[
        int | None, typer.Option(min=1, help="Of the workflow; the current one without.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say whether it can.")] = False,
    json: Json = False,
) -> None:
    """Let an open run go on by another version of its workflow.

    \b
    permaflow run migrate 019a… --dry-run
    """
    from pipeline.cli.client import RUNS, ask

    found = ask("POST", f"{RUNS}/{run}/migrate", {"version": version, "dry_run": dry_run})
    if json:
        as_json(found)
    else:
        note("It can." if dry_run else f"The run goes on by version {found['version']}.")


@app.command()
def resolve(
    run: Id,
    step: Annotated[str, typer.Argument(help="The step that waits because nobody knows.")],
    outcome: Annotated[str, typer.Argument(help="What became of it: done, fail, or retry.")],
    output: Annotated[
        str | None,
        typer.Option(help="What it gave back, if done: JSON, @file, or @- for standard input."),
    ] = None,
    port: Annotated[str | None, typer.Option(help="Through which it leaves, if done.")] = None,
    scope: Annotated[str, typer.Option(help="Of a step in a loop, such as each[3].")] = "",
    message: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    json: Json = False,
) -> None:
    """Say what became of an attempt that nobody heard of again.

    \b
    permaflow run resolve 019a… charge done --output '{"id": 7}'
    permaflow run resolve 019a… charge retry --message "the bank knows nothing of it"
    """
    from urllib.parse import quote

    from pipeline.cli.client import RUNS, ask

    if outcome not in ("done", "fail", "retry"):
        raise typer.BadParameter("OUTCOME is done, fail or retry.")
    body: dict[str, Any] = {"outcome": outcome, "scope": scope, "message": message}
    if output is not None:
        body["output"] = read_data(output, "--output")
    if port is not None:
        body["port"] = port
    found = ask("POST", f"{RUNS}/{run}/steps/{quote(step, safe='')}/resolve", body)
    if json:
        as_json(found)
    else:
        became = {"done": "is done", "fail": "has failed", "retry": "is tried again"}
        note(f"Noted: {step} {became[outcome]}.")


@app.command()
def pause(run: Id, json: Json = False) -> None:
    """Hold a run: nothing new begins in it.

    What the steps that have begun come to is taken in.

    \b
    permaflow run pause 019a…
    """
    _control(run, "pause", json)
    if not json:
        note("The run is paused.")


@app.command()
def resume(run: Id, json: Json = False) -> None:
    """Let a run go on that is paused.

    \b
    permaflow run resume 019a…
    """
    _control(run, "resume", json)
    if not json:
        note("The run goes on.")


async def _until_end(
    api: Api, run_id: str, timeout: float | None, json: bool, *, quiet: bool = False
) -> tuple[int, dict[str, Any]]:
    """Exit code and the run, once it has ended or the time is over."""
    import asyncio

    from pipeline.cli.client import RUNS

    try:
        async with asyncio.timeout(timeout):
            async for event in api.events(run_id):
                if json and not quiet:
                    as_json({"event": event.name, **event.data})
                elif not json:
                    _tell(event.name, event.data)
    except TimeoutError:
        if not json:
            note(f"The run has not ended after {timeout:g} s; it goes on.")
        return TIMED_OUT, await api.call("GET", f"{RUNS}/{run_id}")
    found = await api.call("GET", f"{RUNS}/{run_id}")
    return DONE if found["status"] == "completed" else FAILED, found


def _tell(name: str, data: dict[str, Any]) -> None:
    """One line on stderr for an event."""
    scope, node = data.get("scope") or "", data.get("node") or ""
    where = f"{scope}/{node}" if scope else node
    error = data.get("error") or {}
    what = " ".join(
        part for part in (where, data.get("status", ""), error.get("message", "")) if part
    )
    note(f"{when(data.get('at'))}  {name.replace('_', ' '):16} {what}".rstrip())


def _show(run: dict[str, Any]) -> None:
    import orjson

    def text(value: Any) -> str:
        return "" if value is None else orjson.dumps(value).decode()

    fields(
        (
            ("id", run["id"]),
            ("status", run["status"]),
            ("workflow", f"{run['workflow_id']} version {run['version']}"),
            ("source", run["source"]),
            ("started", when(run["created_at"])),
            ("took", span(run["duration_ms"])),
            ("error", (run["error"] or {}).get("message")),
            ("data", text(run["trigger_data"])),
            ("output", text(run["output"])),
        )
    )


def read_data(text: str, option: str = "--data") -> Any:
    """The JSON of an option; @file reads a file, @- standard input. Raises `typer.BadParameter`."""
    import sys

    import orjson

    raw: str | bytes = text
    if text == "@-":
        raw = sys.stdin.buffer.read()
    elif text.startswith("@"):
        try:
            raw = Path(text[1:]).read_bytes()
        except OSError as error:
            raise typer.BadParameter(f"{option}: {text[1:]}: {error.strerror}.") from error
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"{option} is not JSON: {error}.") from error
