"""`permaflow workflow`: documents checked, saved and switched on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli import pictures
from pipeline.cli.dry_run import dry_run
from pipeline.cli.show import FAILED, CommandError, Json, as_json, fields, note, table, when

if TYPE_CHECKING:
    from pipeline.cli.client import Api

app = typer.Typer(no_args_is_help=True, help="Workflows: check, save, list, switch on and off.")

app.command("dry-run")(dry_run)
app.command()(pictures.graph)
app.command()(pictures.schema)

Which = Annotated[str, typer.Argument(help="Id or name of a workflow.")]


@app.command()
def validate(
    files: Annotated[list[Path], typer.Argument(help="Documents; - is standard input.")],
    json: Json = False,
) -> None:
    """Check documents without a server; show each problem in its line. Exit code 1 if any.

    Every problem is told with its place. A file holds a document, or what the API takes: an object
    with it as `definition`.

    \b
    permaflow workflow validate examples/*.json
    """
    from pipeline.cli.documents import check, read

    reports = [check(read(path)) for path in files]
    if json:
        as_json([report.as_json() for report in reports])
    else:
        for report in reports:
            for finding in report.findings:
                print(f"{report.file}:{finding}")
                for line in finding.excerpt:
                    print(line)
            if report.valid:
                print(f"{report.file}: a sound {report.dialect}")
    if not all(report.valid for report in reports):
        raise typer.Exit(FAILED)


@app.command()
def apply(
    file: Annotated[Path, typer.Argument(help="A document; - is standard input.")],
    name: Annotated[
        str | None, typer.Option(help="Its name; else that in the file, else the file's own.")
    ] = None,
    activate: Annotated[bool, typer.Option("--activate", help="Switch it on, too.")] = False,
    json: Json = False,
) -> None:
    """Save a document as a new workflow, or as its next version.

    Workflows are told apart by their names.

    \b
    permaflow workflow apply examples/order-notify.json --activate
    permaflow workflow apply flow.json --name "New orders"
    """
    from pipeline.cli.client import Api, wait_for
    from pipeline.cli.documents import read

    document = read(file)
    chosen = name or document.name

    async def save() -> dict[str, Any]:
        async with Api() as api:
            saved = await _save(api, chosen, document.body(chosen))
            if activate and saved["status"] != "active":
                saved |= await _set_status(api, saved["id"], "active")
            return saved

    saved = wait_for(save())
    if json:
        as_json(saved)
        return
    print(saved["id"])
    note(f"{saved['name']}, version {saved['version']}, is {saved['status']}.")
    _warn_of_tables(saved)
    for warning in saved.get("warnings", ()):
        note(f"warning: {warning['pointer']}: {warning['message']}")
    for hook in saved.get("webhooks", ()):
        note(f"webhook {hook['node']}: {hook['url']}")


@app.command("list")
def list_workflows(
    status: Annotated[
        str | None, typer.Option(help="Only draft, active, paused or archived ones.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, newest first.")] = 100,
    json: Json = False,
) -> None:
    """List workflows, newest first.

    \b
    permaflow workflow list --status active
    """
    from pipeline.cli.client import DEFINITIONS, Api, wait_for

    async def look() -> list[dict[str, Any]]:
        async with Api() as api:
            return await api.pages(DEFINITIONS, limit, status=status)

    found = wait_for(look())
    if json:
        as_json(found)
        return
    table(
        ("id", "name", "status", "version", "trigger", "updated"),
        [
            (
                w["id"],
                w["name"],
                w["status"],
                w["version"],
                w["trigger_type"],
                when(w["updated_at"]),
            )
            for w in found
        ],
    )


@app.command()
def get(
    workflow: Which,
    document: Annotated[
        bool, typer.Option("--document", help="Print the document alone, as it was written.")
    ] = False,
    json: Json = False,
) -> None:
    """Show a workflow.

    \b
    permaflow workflow get "New orders" --document > new-orders.json
    """
    from pipeline.cli.client import DEFINITIONS, Api, wait_for

    async def look() -> dict[str, Any]:
        async with Api() as api:
            found: dict[str, Any] = await api.call(
                "GET", f"{DEFINITIONS}/{await api.workflow_id(workflow)}"
            )
            return found

    found = wait_for(look())
    if document:
        import orjson

        print(orjson.dumps(found["definition"], option=orjson.OPT_INDENT_2).decode())
    elif json:
        as_json(found)
    else:
        _show(found)


@app.command()
def activate(workflow: Which, json: Json = False) -> None:
    """Switch a workflow on. Its triggers fire, and runs may be started.

    \b
    permaflow workflow activate "New orders"
    """
    _switch(workflow, "active", json)


@app.command()
def pause(workflow: Which, json: Json = False) -> None:
    """Switch a workflow off: its triggers fire no more. Open runs go on.

    \b
    permaflow workflow pause "New orders"
    """
    _switch(workflow, "paused", json)


@app.command("migrate-runs")
def migrate_runs(
    workflow: Which,
    version: Annotated[
        int | None, typer.Option("--from", min=1, help="Only runs of this version.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which can.")] = False,
    before: Annotated[
        str | None, typer.Option(help="Go on where a call stopped: with the run that it named.")
    ] = None,
    json: Json = False,
) -> None:
    """Let open runs go on by the current version, those that can.

    Says of the others why they cannot. 500 runs are looked at in one call.

    \b
    permaflow workflow migrate-runs "New orders" --dry-run
    permaflow workflow migrate-runs "New orders" --from 3
    """
    from pipeline.cli.client import DEFINITIONS, Api, wait_for

    async def ask() -> dict[str, Any]:
        async with Api() as api:
            path = f"{DEFINITIONS}/{await api.workflow_id(workflow)}/migrate-runs"
            body: dict[str, Any] = {"dry_run": dry_run}
            if version is not None:
                body["from"] = version
            if before is not None:
                body["before"] = before
            found: dict[str, Any] = await api.call("POST", path, body)
            return found

    found = wait_for(ask())
    if json:
        as_json(found)
        return
    if refused := found["refused"]:
        rows = [(each["run_id"], each["version"], " ".join(each["reasons"])) for each in refused]
        table(("run", "version", "why not"), rows)
    done = "can go over" if dry_run else "went over"
    note(f"{found['migrated']} of {found['checked']} runs {done} to version {found['version']}.")
    if found["has_more"]:
        note(f"There are more runs to look at: go on with --before {found['next_before']}")


def _show(found: dict[str, Any]) -> None:
    stats = found["stats"]
    fields(
        (
            ("id", found["id"]),
            ("name", found["name"]),
            ("description", found["description"]),
            ("status", found["status"]),
            ("version", f"{found['version']} ({found['dialect']})"),
            ("trigger", found["trigger_type"]),
            ("updated", when(found["updated_at"])),
            (
                "runs",
                f"{stats['run_count']}: {stats['success_count']} completed, "
                f"{stats['failure_count']} failed, {stats['open_count']} open",
            ),
            ("last run", when(stats["last_run_at"])),
            *((f"webhook {hook['node']}", hook["url"]) for hook in found["webhooks"]),
        )
    )


def _switch(workflow: str, status: str, json: bool) -> None:
    from pipeline.cli.client import Api, wait_for

    async def switch() -> dict[str, Any]:
        async with Api() as api:
            return await _set_status(api, await api.workflow_id(workflow), status)

    found = wait_for(switch())
    if json:
        as_json(found)
    else:
        note(f"{found['name']} is {found['status']}.")
        _warn_of_tables(found)


def _warn_of_tables(found: dict[str, Any]) -> None:
    if found.get("watched") is False:
        note(
            "warning: changes do not count yet: a table that a trigger names is not there or "
            "not watched, or ingest was not heard in time."
        )


async def _set_status(api: Api, workflow_id: str, status: str) -> dict[str, Any]:
    from pipeline.cli.client import DEFINITIONS

    path = f"{DEFINITIONS}/{workflow_id}/status"
    found: dict[str, Any] = await api.call("PATCH", path, {"status": status})
    return found


async def _save(api: Api, name: str, body: bytes) -> dict[str, Any]:
    from pipeline.cli.client import DEFINITIONS

    known = await api.named(name)
    if len(known) > 1:
        ids = ", ".join(each["id"] for each in known)
        raise CommandError(f"{len(known)} workflows are named {name!r} ({ids}); choose a --name.")
    if known:
        path, method = f"{DEFINITIONS}/{known[0]['id']}", "PUT"
    else:
        path, method = DEFINITIONS, "POST"
    saved: dict[str, Any] = await api.call(method, path, raw=body)
    return saved
