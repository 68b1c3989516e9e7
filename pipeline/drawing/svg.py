"""Pictures as SVG: one text that needs no other file, no script and no font.

Names are text and nothing else: every character that could begin something is escaped.
"""

from __future__ import annotations

from collections.abc import Iterator
from xml.sax.saxutils import escape

from pipeline.drawing.layout import TITLE, Layout, Placed, lay_out
from pipeline.drawing.model import Arrow, Drawing

MARGIN = 20.0

_STYLE = """\
text{font:12px ui-sans-serif,system-ui,sans-serif;fill:#1f2933;text-anchor:middle}
.type{font-size:10px;fill:#52606d}
.box{fill:#fff;stroke:#52606d;stroke-width:1.2}
.trigger{fill:#e3f8ee;stroke:#199473}
.branch{fill:#fff8e1;stroke:#b7791f}
.wait{fill:#eef2ff;stroke:#4c51bf}
.route{fill:#f5f7fa}
.loop{fill:#f5f7fa;stroke-dasharray:5 3}
.arrow{fill:none;stroke:#52606d;stroke-width:1.2}
.back{stroke:#c53030;stroke-dasharray:4 3}
.label{font-size:10px;paint-order:stroke;stroke:#fff;stroke-width:4px}
"""


def svg(drawing: Drawing) -> str:
    """The picture, laid out."""
    layout = lay_out(drawing)
    width, height = layout.width + 2 * MARGIN, layout.height + 2 * MARGIN
    right = max((1 for arrow in drawing.arrows if arrow.back), default=0) * 40
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" '
        f'viewBox="0 0 {width + right:.0f} {height:.0f}" '
        f'width="{width + right:.0f}" height="{height:.0f}">',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
        'markerHeight="7" orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="#52606d"/>'
        "</marker></defs>",
        f'<g transform="translate({MARGIN:.0f} {MARGIN:.0f})">',
        # What holds others is drawn first.
        *(_box(each) for each in _outer_first(layout)),
        *(line for arrow in drawing.arrows for line in _arrow(arrow, layout)),
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _outer_first(layout: Layout) -> list[Placed]:
    return sorted(
        layout.placed.values(), key=lambda p: (-p.width * p.height, p.box.shape != "loop")
    )


def _box(placed: Placed) -> str:
    box = placed.box
    x, y, w, h = placed.x, placed.y, placed.width, placed.height
    kind = f'class="box {box.shape}"'
    if box.shape == "branch":
        right, middle, low = x + w, y + h / 2, y + h
        corners = ((x, middle), (x + 14, y), (right - 14, y), (right, middle), (right - 14, low))
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in (*corners, (x + 14, low)))
        drawn = f'<polygon {kind} points="{points}"/>'
    else:
        round_by = h / 2 if box.shape == "trigger" else 6
        drawn = (
            f'<rect {kind} x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" '
            f'rx="{round_by:.0f}"/>'
        )
    return f"<g>{drawn}{''.join(_titles(placed))}</g>"


def _titles(placed: Placed) -> Iterator[str]:
    box, middle = placed.box, placed.middle
    if box.shape == "loop":
        text = f"{box.label} · {box.type}" if box.type != box.label else box.label
        yield _text(middle, placed.y + TITLE - 8, text)
    elif box.type == box.label:
        yield _text(middle, placed.y + 24, box.label)
    else:
        yield _text(middle, placed.y + 17, box.label)
        yield _text(middle, placed.y + 31, box.type, "type")


def _text(x: float, y: float, text: str, kind: str = "") -> str:
    said = f' class="{kind}"' if kind else ""
    return f'<text{said} x="{x:.1f}" y="{y:.1f}">{_escaped(text)}</text>'


def _arrow(arrow: Arrow, layout: Layout) -> Iterator[str]:
    source, target = layout.placed.get(arrow.source), layout.placed.get(arrow.target)
    if source is None or target is None:
        return
    if arrow.back:
        edge = max(source.x + source.width, target.x + target.width) + 24
        x1, y1 = source.x + source.width, source.y + source.height / 2
        x2, y2 = target.x + target.width, target.y + target.height / 2
        path = f"M{x1:.1f} {y1:.1f}C{edge:.1f} {y1:.1f} {edge:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
        label_at = (edge - 4, (y1 + y2) / 2)
    else:
        x1, y1, x2, y2 = source.middle, source.bottom, target.middle, target.y
        half = max(18.0, (y2 - y1) / 2)
        path = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {y1 + half:.1f} {x2:.1f} {y2 - half:.1f} "
        path += f"{x2:.1f} {y2:.1f}"
        label_at = ((x1 + x2) / 2, (y1 + y2) / 2 + 4)
    kind = "arrow back" if arrow.back else "arrow"
    yield f'<path class="{kind}" d="{path}" marker-end="url(#head)"/>'
    if arrow.label:
        yield _text(*label_at, arrow.label, "label")


def _escaped(text: str) -> str:
    return escape(text, {'"': "&quot;", "'": "&#39;"})
