"""/secrets/v1: what steps refer to by name. What is set here is read by runners and nobody else."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Path
from starlette.requests import Request
from starlette.responses import Response

from pipeline.gateway import answers
from pipeline.gateway.auth import caller_of, name_of
from pipeline.gateway.bodies import read
from pipeline.gateway.definitions import Limit
from pipeline.gateway.ports import Ports
from pipeline.gateway.shapes import SecretValue, SecretView
from pipeline.store import audit, named_secrets
from pipeline.store.database import Connection
from pipeline.store.secrets import SecretBox

ROOT = "/secrets/v1"
LARGEST = 100_000

SecretName = Annotated[str, Path(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}$")]


class Secrets:
    """The handlers."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def list_secrets(
        self, request: Request, limit: Limit = 50, cursor: str | None = None
    ) -> Response:
        """The names of secrets; what they are is told to nobody."""
        org = caller_of(request).org
        after = answers.decode_cursor(cursor) or ""
        found = await self._ports.pool.run_as(
            org, named_secrets.find, org, after=after, limit=limit + 1
        )
        shown = found[:limit]
        views = [SecretView.model_validate(each, from_attributes=True) for each in shown]
        return answers.page(request, found, limit, views, shown[-1].name if shown else "")

    async def put_secret(self, request: Request, secret_name: SecretName) -> Response:
        """Set a secret. Steps that begin from now on get the new one."""
        caller = caller_of(request)
        body = await read(request, SecretValue, LARGEST)
        await self._ports.pool.run_as(
            caller.org,
            _put,
            caller.org,
            secret_name,
            body,
            self._ports.box,
            name_of(caller),
        )
        return Response(status_code=204)

    async def delete_secret(self, request: Request, secret_name: SecretName) -> Response:
        """Remove a secret. Steps that refer to it fail from now on."""
        caller = caller_of(request)
        await self._ports.pool.run_as(caller.org, _delete, caller.org, secret_name, name_of(caller))
        return Response(status_code=204)


async def _put(
    connection: Connection, org: UUID, name: str, body: SecretValue, box: SecretBox, by: str
) -> None:
    hosts = await named_secrets.put(
        connection, org, name, body.value, box=box, by=by, hosts=body.hosts
    )
    await audit.add(connection, org, by, "secret.set", name, {"hosts": list(hosts)})


async def _delete(connection: Connection, org: UUID, name: str, by: str) -> None:
    await named_secrets.delete(connection, org, name)
    await audit.add(connection, org, by, "secret.deleted", name, {})
