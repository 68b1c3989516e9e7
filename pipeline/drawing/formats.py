"""The formats of pictures, by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pipeline.drawing.model import Drawing
from pipeline.drawing.svg import svg
from pipeline.drawing.text import dot, mermaid

Format = Literal["mermaid", "svg", "dot"]

FORMATS: dict[Format, tuple[str, Callable[[Drawing], str]]] = {
    "mermaid": ("text/plain; charset=utf-8", mermaid),
    "svg": ("image/svg+xml", svg),
    "dot": ("text/vnd.graphviz; charset=utf-8", dot),
}
"""Name → media type, and what writes it."""
