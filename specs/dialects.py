"""The dialects, and the way from any document to a plan."""

from __future__ import annotations

from permaflow.plan import Compiled, Dialect, Json, Problem, TaskTypes
from specs.dag import DagDialect
from specs.graph import GraphDialect
from specs.steps.dialect import StepsDialect

DIALECTS: tuple[Dialect, ...] = (GraphDialect(), DagDialect(), StepsDialect())


def compile_document(document: Json, types: TaskTypes) -> Compiled:
    """The plan and the triggers of a document, or every problem with it. Never raises."""
    for dialect in DIALECTS:
        if dialect.recognises(document):
            return dialect.compile(document, types)
    problem = Problem(
        "",
        "unknown_dialect",
        'This is no workflow. Write `{"nodes": […], "edges": […]}` (a graph), '
        '`{"dag": {"entrypoint": …, "exitpoints": […], "tasks": […]}}` (blocks) or '
        '`{"triggerEvent": …, "steps": […]}` (steps).',
    )
    return Compiled(None, problems=(problem,))
