"""`permaflow db`: the schema of the database."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.show import FAILED, Json, as_json, note, table

app = typer.Typer(no_args_is_help=True, help="The schema of the database.")

Url = Annotated[
    str | None,
    typer.Option("--url", help="The database; PERMAFLOW_DATABASE_URL, or that of `permaflow up`."),
]


def database_url(given: str | None) -> str:
    """The database that a command works on. Raises `SettingsError`."""
    from pipeline.endpoints import needed
    from pipeline.settings import load_settings

    return given or needed(load_settings(), "database_url")


@app.command()
def migrate(
    url: Url = None,
    until: Annotated[str | None, typer.Option(help="The last one to apply, e.g. 0001.")] = None,
    json: Json = False,
) -> None:
    """Bring the database to the schema of this version.

    Several may run at once: one works, the others wait. To deploy without a pause, apply the `pre`
    migrations before the new version starts and the `post` ones after the old one is gone.

    \b
    permaflow db migrate
    permaflow db migrate --until 0003
    """
    from pipeline.cli.client import wait_for
    from pipeline.store.migrate import migrate as apply

    applied = wait_for(apply(database_url(url), until=until))
    if json:
        as_json({"applied": applied})
    else:
        for version in applied:
            print(version)
        note(f"{len(applied)} applied." if applied else "Nothing to do: the database is at head.")


@app.command()
def status(url: Url = None, json: Json = False) -> None:
    """Show which migrations are applied. Exit code 1 if one is pending.

    \b
    permaflow db status
    permaflow db status --json | jq .pending
    """
    from pipeline.cli.client import wait_for
    from pipeline.store.migrate import status as look

    found = wait_for(look(database_url(url)))
    if json:
        as_json({"applied": list(found.applied), "pending": list(found.pending)})
    else:
        rows = [(each, "applied") for each in found.applied]
        table(("migration", "status"), rows + [(each, "pending") for each in found.pending])
    if found.pending:
        raise typer.Exit(FAILED)
