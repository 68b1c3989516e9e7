"""Pictures as text that other programs draw: Mermaid and DOT."""

from __future__ import annotations

from collections.abc import Iterator

from permaflow.plan import ROOT
from pipeline.drawing.model import Box, Drawing

_MERMAID = {
    "trigger": ('(["', '"])'),
    "branch": ('{"', '"}'),
    "wait": ('[["', '"]]'),
    "route": ('("', '")'),
    "task": ('["', '"]'),
}
_DOT = {
    "trigger": "oval",
    "branch": "diamond",
    "wait": "component",
    "route": "circle",
    "task": "box",
}


def mermaid(drawing: Drawing) -> str:
    """A flowchart in Mermaid's language. Ids are numbered, so no name can break it."""
    ids = {box.id: f"n{number}" for number, box in enumerate(drawing.boxes)}

    def lines(scope: str, indent: str) -> Iterator[str]:
        for box in drawing.within(scope):
            if box.shape == "loop":
                yield f'{indent}subgraph {ids[box.id]}["{_entities(_title(box))}"]'
                yield from lines(box.id, indent + "  ")
                yield f"{indent}end"
            else:
                before, after = _MERMAID[box.shape]
                yield f"{indent}{ids[box.id]}{before}{_entities(_title(box))}{after}"

    found = ["flowchart TD", *lines(ROOT, "  ")]
    for arrow in drawing.arrows:
        line = "-.->" if arrow.back else "-->"
        said = f'|"{_entities(arrow.label)}"|' if arrow.label else ""
        found.append(f"  {ids[arrow.source]} {line}{said} {ids[arrow.target]}")
    return "\n".join(found) + "\n"


def dot(drawing: Drawing) -> str:
    """A graph in the language of Graphviz."""
    ids = {box.id: f"n{number}" for number, box in enumerate(drawing.boxes)}
    loops = {box.id for box in drawing.boxes if box.shape == "loop"}
    inner = {scope: ids[drawing.within(scope)[0].id] for scope in loops if drawing.within(scope)}

    def lines(scope: str, indent: str) -> Iterator[str]:
        for box in drawing.within(scope):
            if box.shape == "loop":
                yield f"{indent}subgraph cluster_{ids[box.id]} {{"
                yield f"{indent}  label={_quoted(_title(box))};"
                yield f"{indent}  {ids[box.id]} [shape=point, style=invis];"
                yield from lines(box.id, indent + "  ")
                yield f"{indent}}}"
            else:
                look = f"shape={_DOT[box.shape]}, label={_quoted(_title(box))}"
                yield f"{indent}{ids[box.id]} [{look}];"

    found = ["digraph workflow {", "  compound=true;", *lines(ROOT, "  ")]
    for arrow in drawing.arrows:
        options = [f"label={_quoted(arrow.label)}"] if arrow.label else []
        if arrow.back:
            options += ["style=dashed", "constraint=false"]
        if arrow.target in inner:
            options.append(f"lhead=cluster_{ids[arrow.target]}")
        if arrow.source in inner:
            options.append(f"ltail=cluster_{ids[arrow.source]}")
        ends = [inner.get(end, ids[end]) for end in (arrow.source, arrow.target)]
        said = f" [{', '.join(options)}]" if options else ""
        found.append(f"  {ends[0]} -> {ends[1]}{said};")
    return "\n".join([*found, "}"]) + "\n"


def _title(box: Box) -> str:
    return box.label if box.type == box.label else f"{box.label}\n{box.type}"


def _entities(text: str) -> str:
    """Text inside of Mermaid's quotes: everything that could end it, as entities."""
    kept = (
        "<br/>" if c == "\n" else c if c.isalnum() or c in " _-.,:/!?…" else f"#{ord(c)};"
        for c in text
    )
    return "".join(kept)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
