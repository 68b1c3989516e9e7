"""`permaflow approval`: what waits for people, and what they decide."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipeline.cli.runs import read_data
from pipeline.cli.show import Json, as_json, fields, note, table, when

app = typer.Typer(no_args_is_help=True, help="Approvals: list, show, approve, reject, hand over.")


def _approval_id(given: str) -> str:
    from uuid import UUID

    try:
        return str(UUID(given))
    except ValueError:
        raise typer.BadParameter(
            f"{given!r} is no id of an approval; `permaflow approval list` shows them."
        ) from None


Id = Annotated[str, typer.Argument(help="Id of an approval.", callback=_approval_id)]
Comment = Annotated[str, typer.Option(help="Why; everybody who sees the approval reads it.")]
User = Annotated[
    str | None, typer.Option(help="For whom you speak; needs a key with the scope admin.")
]


@app.command("list")
def list_approvals(
    user: User = None,
    run: Annotated[str | None, typer.Option(help="Only those of this run.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many.")] = 50,
    json: Json = False,
) -> None:
    """List the approvals that wait for you.

    With the key of an admin that is nobody's, all that wait.

    \b
    permaflow approval list --json | jq -r '.[].id'
    """
    from pipeline.cli.client import APPROVALS, Api, wait_for

    async def look() -> list[dict[str, Any]]:
        async with Api() as api:
            return await api.pages(f"{APPROVALS}/pending", limit, user=user, run_id=run)

    found = wait_for(look())
    if json:
        as_json(found)
        return
    table(
        ("id", "title", "asked", "until", "assignees"),
        [
            (
                each["id"],
                each["title"],
                when(each["asked_at"]),
                when(each["expires_at"]) if each["expires_at"] else "",
                "anybody" if each["assignees"] is None else ", ".join(each["assignees"]),
            )
            for each in found
        ],
    )


@app.command()
def show(approval: Id, json: Json = False) -> None:
    """Show an approval with all that was done about it.

    \b
    permaflow approval show 019a…
    """
    from pipeline.cli.client import APPROVALS, ask

    found = ask("GET", f"{APPROVALS}/{approval}")
    if json:
        as_json(found)
        return
    waiting = found["waiting_for"]
    fields(
        (
            ("approval", found["id"]),
            ("status", found["status"]),
            ("title", found["title"]),
            ("description", found["description"]),
            ("data", _text(found["data"])),
            ("form", _text(found["form"])),
            ("run", found["run_id"]),
            ("requester", found["requester"]),
            ("asked", when(found["asked_at"])),
            ("until", when(found["expires_at"]) if found["expires_at"] else ""),
            ("waits for", "anybody" if waiting is None else ", ".join(waiting)),
            ("closed by", found["closed_by"]),
        )
    )
    print()
    table(
        ("what", "user", "when", "comment"),
        [
            (each["kind"], each["user"], when(each["at"]), each["comment"])
            for each in found["events"]
        ],
    )


@app.command()
def approve(
    approval: Id,
    data: Annotated[
        str, typer.Option(help="The form: JSON, @file, or @- for standard input.")
    ] = "{}",
    comment: Comment = "",
    user: User = None,
    json: Json = False,
) -> None:
    """Approve.

    \b
    permaflow approval approve 019a… --data '{"budget": "2026"}' --comment "fine"
    """
    body = {"decision": "approve", "data": read_data(data), "comment": comment}
    _post(approval, "respond", body, user, json)


@app.command()
def reject(approval: Id, comment: Comment = "", user: User = None, json: Json = False) -> None:
    """Reject.

    \b
    permaflow approval reject 019a… --comment "too dear"
    """
    _post(approval, "respond", {"decision": "reject", "comment": comment}, user, json)


@app.command()
def delegate(
    approval: Id,
    to: Annotated[str, typer.Argument(help="The user who is to decide.")],
    comment: Comment = "",
    user: User = None,
    json: Json = False,
) -> None:
    """Let another decide in your place, where the workflow allows it.

    \b
    permaflow approval delegate 019a… carl
    """
    _post(approval, "delegate", {"to": to, "comment": comment}, user, json)


def _text(value: Any) -> str:
    import orjson

    return "" if value is None else orjson.dumps(value).decode()


def _post(approval: str, door: str, body: dict[str, Any], user: str | None, json: bool) -> None:
    from pipeline.cli.client import APPROVALS, ask

    sent = body if user is None else {**body, "user": user}
    found = ask("POST", f"{APPROVALS}/{approval}/{door}", sent)
    if json:
        as_json(found)
    else:
        note(f"Noted. The approval is {found['status']}.")
