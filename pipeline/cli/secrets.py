"""`permaflow secret`: what steps refer to by name. Nobody can read one again."""

from __future__ import annotations

import sys
from typing import Annotated, Any
from urllib.parse import quote

import typer

from pipeline.cli.show import CommandError, Json, as_json, note, table, when

app = typer.Typer(no_args_is_help=True, help="Secrets that steps refer to by name.")

Name = Annotated[str, typer.Argument(help="The name that steps use.")]


Hosts = Annotated[
    list[str] | None,
    typer.Option(
        "--host",
        help="A host that it may be sent to, `crm.example.com` or `*.example.com`; several times "
        "for several. Without this it keeps those that it has.",
    ),
]
AnyHost = Annotated[
    bool, typer.Option("--any-host", help="It may be sent anywhere, whatever was said before.")
]


@app.command("set")
def set_secret(
    name: Name, host: Hosts = None, any_host: AnyHost = False, json: Json = False
) -> None:
    """Set a secret. It is asked for, or read from a pipe: it belongs into no history of commands.

    \b
    permaflow secret set crm-token --host crm.example.com < token.txt
    """
    from pipeline.cli.client import SECRETS, Api, wait_for

    if host and any_host:
        raise typer.BadParameter("Give --host or --any-host, not both.")
    hosts = [] if any_host else host or None
    if sys.stdin.isatty():
        value = typer.prompt("Secret", hide_input=True)
    else:
        try:
            value = sys.stdin.buffer.read().decode().removesuffix("\n")
        except UnicodeDecodeError as error:
            raise CommandError(
                "A secret is text in UTF-8, and this is none.", code="file"
            ) from error

    async def put() -> None:
        async with Api() as api:
            body = {"value": value} | ({} if hosts is None else {"hosts": hosts})
            await api.call("PUT", f"{SECRETS}/{quote(name, safe='')}", body)

    wait_for(put())
    if json:
        as_json({"name": name})
    else:
        note(f"Steps may refer to {name} from now on.")


@app.command("list")
def list_secrets(
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 50, json: Json = False
) -> None:
    """Show the names of secrets, their hosts, and who set them.

    \b
    permaflow secret list
    """
    from pipeline.cli.client import SECRETS, Api, wait_for

    async def look() -> list[dict[str, Any]]:
        async with Api() as api:
            return await api.pages(SECRETS, limit)

    found = wait_for(look())
    if json:
        as_json(found)
        return
    table(
        ("name", "hosts", "set by", "at"),
        [
            (
                each["name"],
                ", ".join(each["hosts"]) or "any",
                each["updated_by"],
                when(each["updated_at"]),
            )
            for each in found
        ],
    )


@app.command()
def remove(name: Name, json: Json = False) -> None:
    """Remove a secret. Steps that refer to it fail from now on.

    \b
    permaflow secret remove crm-token
    """
    from pipeline.cli.client import SECRETS, Api, wait_for

    async def delete() -> None:
        async with Api() as api:
            await api.call("DELETE", f"{SECRETS}/{quote(name, safe='')}")

    wait_for(delete())
    if json:
        as_json({"name": name, "removed": True})
    else:
        note(f"{name} is gone.")
