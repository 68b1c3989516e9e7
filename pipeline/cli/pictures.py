"""`permaflow workflow graph` and `schema`: pictures, and what editors complete documents with."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.cli.show import CommandError, Json, as_json, note

Output = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write into this file, not to the screen.")
]


class PictureFormat(StrEnum):
    mermaid = "mermaid"
    svg = "svg"
    dot = "dot"


class DialectName(StrEnum):
    graph = "graph"
    dag = "dag"
    steps = "steps"


def graph(
    workflow: Annotated[
        str, typer.Argument(help="A file (- is standard input), or the id or name of a workflow.")
    ],
    picture: Annotated[
        PictureFormat, typer.Option("--format", "-f", help="Text of Mermaid or Graphviz, or SVG.")
    ] = PictureFormat.mermaid,
    output: Output = None,
    json: Json = False,
) -> None:
    """Draw a workflow, from a file or from the server.

    \b
    permaflow workflow graph examples/order-notify.json
    permaflow workflow graph "New orders" --format svg -o orders.svg
    """
    path = Path(workflow)
    if workflow == "-" or path.is_file():
        drawn = _draw_file(path, picture)
    elif path.suffix == ".json" or "/" in workflow:
        raise CommandError(f"{workflow} cannot be read: there is no such file.", code="file")
    else:
        drawn = _draw_saved(workflow, picture)
    if json:
        as_json({"format": picture.value, "picture": drawn})
    else:
        _give(drawn, output)


def schema(
    dialect: Annotated[DialectName, typer.Argument(help="The dialect.")],
    output: Output = None,
    json: Json = False,
) -> None:
    """Print the JSON Schema of a dialect, for editors.

    It has the task types that are installed here.

    \b
    permaflow workflow schema graph -o graph.schema.json
    """
    import orjson

    from pipeline import builtins
    from pipeline.catalogue import Catalogue
    from pipeline.schemas import dialect_schema
    from pipeline.settings import load_settings

    catalogue = Catalogue(builtins.task_types(load_settings()))
    found = dialect_schema(dialect.value, catalogue)
    for error in catalogue.broken():
        note(f"permaflow: {error}")
    if json and output is None:
        as_json(found)
    else:
        _give(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode() + "\n", output)


def _draw_file(path: Path, picture: PictureFormat) -> str:
    from pipeline import builtins
    from pipeline.cli.documents import read
    from pipeline.drawing.formats import FORMATS
    from pipeline.drawing.model import draw
    from pipeline.settings import load_settings
    from specs.dialects import compile_document

    document = read(path)
    compiled = compile_document(document.definition, builtins.task_types(load_settings()))
    if compiled.plan is None:
        count = len(compiled.problems)
        raise CommandError(
            f"{document.file} has {count} problem{'s' * (count != 1)}, so there is nothing to "
            f"draw. Look at them: permaflow workflow validate {document.file}",
            code="invalid_document",
        )
    _, write = FORMATS[picture.value]
    return write(draw(compiled.plan, compiled.triggers))


def _draw_saved(workflow: str, picture: PictureFormat) -> str:
    from pipeline.cli.client import DEFINITIONS, Api, wait_for

    async def look() -> Any:
        async with Api() as api:
            path = f"{DEFINITIONS}/{await api.workflow_id(workflow)}/graph"
            return await api.text(path, format=picture.value)

    return str(wait_for(look()))


def _give(text: str, output: Path | None) -> None:
    if output is None:
        print(text, end="")
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(f"{output} cannot be written: {error.strerror}.", code="file") from error
    note(f"{output} written")
