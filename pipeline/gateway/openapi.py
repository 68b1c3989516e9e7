"""The description of the API: made from the doors, the hot ones included."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from pipeline.gateway.auth import PUBLIC
from pipeline.gateway.doors import Door, Doors
from pipeline.gateway.problems import MEDIA_TYPE
from pipeline.gateway.shapes import ProblemView

_REF = "#/components/schemas/"


def describe(doors: Doors) -> dict[str, Any]:
    """The OpenAPI document."""
    described = get_openapi(
        title="Permaflow",
        version=version("permaflow"),
        description="Workflows as documents: save them, start them, watch their runs.",
        routes=[door.documented for door in doors.all],
    )
    components = described.setdefault("components", {})
    bodies = {door.body for door in doors.all if door.body is not None}
    _, schemas = models_json_schema(
        [
            *((body, "validation") for body in sorted(bodies, key=lambda body: body.__name__)),
            (ProblemView, "serialization"),
        ],
        ref_template=_REF + "{model}",
    )
    shapes = components.setdefault("schemas", {})
    shapes.update(schemas["$defs"])
    for unused in ("HTTPValidationError", "ValidationError"):
        shapes.pop(unused, None)
    components["securitySchemes"] = {"api_key": {"type": "http", "scheme": "bearer"}}
    for door in doors.all:
        _complete(described["paths"][door.path][door.method.lower()], door)
    return described


def _complete(operation: dict[str, Any], door: Door) -> None:
    problem = {"content": {MEDIA_TYPE: {"schema": {"$ref": f"{_REF}ProblemView"}}}}
    answers = operation["responses"]
    answers.pop("422", None)
    answers["4XX"] = {"description": "The request is refused.", **problem}
    if door.path != "/readyz":
        answers["503"] = {"description": "Not at present; try again.", **problem}
    if door.needs != PUBLIC:
        operation["security"] = [{"api_key": []}]
        operation["x-scope"] = door.needs
    if door.body is not None:
        schema = {"$ref": _REF + door.body.__name__}
        content = {"application/json": {"schema": schema}}
        operation["requestBody"] = {"required": True, "content": content}
