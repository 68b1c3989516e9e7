"""`permaflow key`: who may come in over HTTP."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.db import Url, database_url
from pipeline.cli.show import Json, as_json, note, table

if TYPE_CHECKING:
    from pipeline.store.database import Database
    from pipeline.store.keys import ApiKey
    from pipeline.store.orgs import Org

app = typer.Typer(no_args_is_help=True, help="API keys, which are made in the database itself.")

OrgName = Annotated[str, typer.Option("--org", help="The organisation, by its slug.")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for; people read it.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="What it may do, e.g. runs:write; may be given several times. All."),
    ] = None,
    user: Annotated[
        str,
        typer.Option(
            help="Whose key it is: the user that approvals and audits name, and who is notified."
        ),
    ] = "",
    org: OrgName = "default",
    url: Url = None,
    json: Json = False,
) -> None:
    """Make an API key and print it. It cannot be shown again.

    The organisation is made if there is none of that name; the schema has to be there
    (`permaflow db migrate`).

    \b
    permaflow key create ci --scope runs:write --scope runs:read
    permaflow key create "ana's laptop" --user ana --scope approvals:read --scope approvals:write
    export PERMAFLOW_API_KEY=$(permaflow key create laptop)
    """
    from permaflow.errors import InputError
    from pipeline.bootstrap import SCOPES
    from pipeline.cli.client import wait_for

    unknown = sorted(set(scope or ()) - set(SCOPES))
    if unknown:
        raise InputError(f"There is no scope {unknown[0]}; there are {', '.join(SCOPES)}.")
    made, text = wait_for(_create(database_url(url), org, name, scope or list(SCOPES), user))
    if json:
        as_json({"id": made.id, "org": org, "scopes": made.scopes, "user": user, "key": text})
    else:
        print(text)
        note(f"Key {made.id} of {org}. Keep it: only its hash is stored.")


@app.command("list")
def show(org: OrgName = "default", url: Url = None, json: Json = False) -> None:
    """Show the keys of an organisation, without their secrets.

    \b
    permaflow key list
    """
    from pipeline.cli.client import wait_for

    found = wait_for(_list(database_url(url), org))
    if json:
        as_json(
            [
                {
                    "id": key.id,
                    "name": key.name,
                    "scopes": key.scopes,
                    "created_at": key.created_at.isoformat(),
                    "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
                }
                for key in found
            ]
        )
    else:
        rows = [
            (key.id, key.name, "revoked" if key.revoked_at else "valid", ", ".join(key.scopes))
            for key in found
        ]
        table(("key", "name", "state", "scopes"), rows)


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(help="The id, as `key list` shows it.")],
    org: OrgName = "default",
    url: Url = None,
    json: Json = False,
) -> None:
    """End a key for good; gateways refuse it within five seconds.

    \b
    permaflow key revoke 3f2a9c1e5b7d8046
    """
    from pipeline.cli.client import wait_for

    wait_for(_revoke(database_url(url), org, key_id))
    if json:
        as_json({"id": key_id, "org": org, "revoked": True})
    else:
        note(f"Key {key_id} is revoked.")


async def _create(
    url: str, slug: str, name: str, scopes: list[str], user: str
) -> tuple[ApiKey, str]:
    from pipeline.store import keys, orgs
    from pipeline.store.database import Database

    async with Database(url, size=1) as database:
        org = await database.run(orgs.ensure, slug)
        return await database.run(keys.create, org.id, name, scopes, user_name=user)


async def _list(url: str, slug: str) -> list[ApiKey]:
    from pipeline.store import keys
    from pipeline.store.database import Database

    async with Database(url, size=1) as database:
        return await database.run(keys.find, (await _org(database, slug)).id)


async def _revoke(url: str, slug: str, key_id: str) -> None:
    from pipeline.store import keys
    from pipeline.store.database import Database

    async with Database(url, size=1) as database:
        await database.run(keys.revoke, (await _org(database, slug)).id, key_id)


async def _org(database: Database, slug: str) -> Org:
    from permaflow.errors import NotFoundError
    from pipeline.store import orgs

    found = await database.run(orgs.by_slug, slug)
    if found is None:
        raise NotFoundError(f"There is no organisation {slug}.")
    return found
