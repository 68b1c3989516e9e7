"""/workflows/v1/groups: groups of users, whom approvals ask by one name."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Query
from starlette.requests import Request
from starlette.responses import Response

from pipeline.gateway import answers
from pipeline.gateway.answers import answer
from pipeline.gateway.auth import caller_of, name_of
from pipeline.gateway.bodies import read
from pipeline.gateway.ports import Ports
from pipeline.gateway.problems import Refusal
from pipeline.gateway.shapes_approvals import GroupBody, GroupView
from pipeline.store import audit, groups
from pipeline.store.database import Connection
from pipeline.store.groups import Group
from pipeline.store.keys import Caller

ROOT = "/workflows/v1/groups"
MOST_BYTES = 1_000_000
_NAME = re.compile(r"[^\x00-\x1f\x7f/]{1,200}")


class Groups:
    """The handlers."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def list_groups(
        self,
        request: Request,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        cursor: str | None = None,
    ) -> Response:
        """The groups, by name."""
        org = caller_of(request).org
        after = answers.decode_cursor(cursor)
        found = await self._ports.pool.run_as(org, groups.find, org, after=after, limit=limit + 1)
        shown = found[:limit]
        views = [_view(group) for group in shown]
        return answers.page(request, found, limit, views, shown[-1].name if shown else "")

    async def get_group(self, request: Request, group: str) -> Response:
        """A group with its members."""
        org = caller_of(request).org
        return answer(_view(await self._ports.pool.run_as(org, groups.get, org, group)))

    async def put_group(self, request: Request, group: str) -> Response:
        """Give a group these members and no others; make it if it is not there."""
        caller = caller_of(request)
        if not _NAME.fullmatch(group) or group != group.strip():
            raise Refusal(
                422, "invalid_input", "A group has a name of 1 to 200 characters, none of them `/`."
            )
        body = await read(request, GroupBody, MOST_BYTES)
        made, is_new = await self._ports.pool.run_as(caller.org, _put, caller, group, body.members)
        return answer(_view(made), 201 if is_new else 200)

    async def delete_group(self, request: Request, group: str) -> Response:
        """Remove a group. What it was asked waits for the others, or for its timeout."""
        caller = caller_of(request)
        await self._ports.pool.run_as(caller.org, _delete, caller, group)
        return Response(status_code=204)


async def _put(
    connection: Connection, caller: Caller, name: str, members: list[str]
) -> tuple[Group, bool]:
    made = await groups.put(connection, caller.org, name, members)
    details = {"members": len(made[0].members)}
    await audit.add(connection, caller.org, name_of(caller), "group.put", f"group:{name}", details)
    return made


async def _delete(connection: Connection, caller: Caller, name: str) -> None:
    await groups.delete(connection, caller.org, name)
    await audit.add(connection, caller.org, name_of(caller), "group.delete", f"group:{name}", {})


def _view(group: Group) -> GroupView:
    return GroupView(
        name=group.name,
        members=group.members,
        created_at=group.created_at,
        updated_at=group.updated_at,
    )
