"""`permaflow catalogue`: what workflows may be made of here, without any server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.show import Json, as_json, fields, note, say, table

if TYPE_CHECKING:
    from pipeline.catalogue import Block, Catalogue

app = typer.Typer(no_args_is_help=True, help="What workflows may be made of here.")


@app.command("list")
def list_blocks(
    category: Annotated[str | None, typer.Option(help="Only this category.")] = None,
    json: Json = False,
) -> None:
    """Show triggers, logic, and the task types installed here.

    \b
    permaflow catalogue list
    permaflow catalogue list --category SMS --json
    """
    catalogue = _open()
    found = [b for b in catalogue.blocks() if category in (None, b.category)]
    for error in catalogue.broken():
        note(f"permaflow: {error}")
    if json:
        as_json([_summary(block) for block in found])
        return
    table(
        ("name", "label", "category", "stage", "what it does"),
        [(b.name, b.label, b.category, b.stage, b.description) for b in found],
    )


@app.command("show")
def show_block(
    name: Annotated[str, typer.Argument(help="A block, as `catalogue list` shows it.")],
    json: Json = False,
) -> None:
    """Show one block: its fields, outputs and ports.

    With --json its schemas, too.

    \b
    permaflow catalogue show action_http
    permaflow catalogue show action_http --json | jq .config
    """
    block = _open().get(name)
    if json:
        as_json(
            {
                **_summary(block),
                "timeout_seconds": block.timeout,
                "ports": block.ports,
                "open_ports": block.open_ports,
                "outputs": [
                    {"field": o.field, "description": o.description} for o in block.outputs
                ],
                "fields": block.fields,
                "config": block.config,
                "result": block.result,
            }
        )
        return
    fields(
        [
            ("name", block.name),
            ("label", block.label),
            ("category", block.category),
            ("description", block.description),
            ("stage", block.stage),
            ("ports", ", ".join(block.ports)),
        ]
    )
    if block.fields:
        say("")
        table(
            ("field", "label", "kind", "required"),
            [(f["key"], f["label"], f["type"], "yes" * f["required"]) for f in block.fields],
        )
    if block.outputs:
        say("")
        table(("output", "what it is"), [(o.field, o.description) for o in block.outputs])


def _open() -> Catalogue:
    from pipeline import builtins
    from pipeline.catalogue import Catalogue
    from pipeline.settings import load_settings

    return Catalogue(builtins.task_types(load_settings()))


def _summary(block: Block) -> dict[str, Any]:
    return {
        "name": block.name,
        "kind": block.kind,
        "label": block.label,
        "category": block.category,
        "description": block.description,
        "icon": block.icon,
        "stage": block.stage,
        "remote": block.remote,
    }
