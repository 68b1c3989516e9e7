"""What others complete and look at documents with: JSON Schemas of the dialects, and pictures."""

from __future__ import annotations

import asyncio
from typing import Annotated
from uuid import UUID

import orjson
from fastapi import Path, Query
from starlette.requests import Request
from starlette.responses import Response

from permaflow.plan import Json
from pipeline.drawing.formats import FORMATS, Format
from pipeline.drawing.model import draw
from pipeline.gateway.auth import caller_of
from pipeline.gateway.ports import Ports
from pipeline.gateway.problems import Refusal
from pipeline.schemas import box_schema, dialect_schema
from pipeline.store import versions, workflows
from pipeline.store.database import Connection

SCHEMAS = "/schemas"
OWN_SCHEMAS = "/workflows/v1/schemas"
SCHEMA_JSON = "application/schema+json"

Dialect = Annotated[str, Path(pattern=r"^[a-z]{1,20}(\.json)?$")]


class Published:
    """The handlers."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def get_schema(self, request: Request, dialect: Dialect) -> Response:
        """The JSON Schema of documents in a dialect, with the types that come in the box."""
        schema = await asyncio.to_thread(box_schema, dialect.removesuffix(".json"))
        return _schema(schema, "public, max-age=3600")

    async def get_own_schema(self, request: Request, dialect: Dialect) -> Response:
        """The JSON Schema of documents in a dialect, with the types of this installation."""
        name, catalogue = dialect.removesuffix(".json"), self._ports.catalogue
        schema = await asyncio.to_thread(dialect_schema, name, catalogue)
        return _schema(schema, "private, max-age=60")

    async def get_definition_graph(
        self,
        request: Request,
        workflow_id: UUID,
        format: Format = "mermaid",  # noqa: A002 - the name of the parameter
        version: Annotated[int | None, Query(ge=1)] = None,
    ) -> Response:
        """A picture of a workflow: Mermaid's or Graphviz's text, or SVG."""
        org = caller_of(request).org
        document = await self._ports.pool.run_as(org, _document, org, workflow_id, version)
        checked = await self._ports.documents.check(orjson.loads(document), len(document))
        plan = checked.compiled.plan
        if plan is None:
            raise Refusal(
                409,
                "invalid_document",
                "This version does not compile here, so there is nothing to draw: "
                f"{checked.compiled.problems[0].message}",
            )
        media_type, write = FORMATS[format]
        drawn = await asyncio.to_thread(lambda: write(draw(plan, checked.triggers)))
        # What somebody else wrote is looked at in nobody's name.
        headers = {
            "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'",
            "x-content-type-options": "nosniff",
        }
        return Response(drawn, media_type=media_type, headers=headers)


def _schema(schema: dict[str, Json], kept: str) -> Response:
    return Response(orjson.dumps(schema), media_type=SCHEMA_JSON, headers={"cache-control": kept})


async def _document(
    connection: Connection, org: UUID, workflow_id: UUID, version: int | None
) -> bytes:
    workflow = await workflows.get(connection, org, workflow_id)
    found = await versions.document(connection, workflow_id, version or workflow.version)
    return found.document
