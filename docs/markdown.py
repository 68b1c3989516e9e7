"""Tables and notices of generated pages."""

from __future__ import annotations

import re

NOTICE = "<!-- Generated from {source} by `make docs`; edit that file instead. -->"


def row(*cells: str) -> str:
    """A line of a table; a cell may hold any text."""
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def table(*columns: str) -> list[str]:
    return [row(*columns), row(*("---" for _ in columns))]


def opening(title: str, source: str) -> list[str]:
    """The first lines of a page."""
    return [f"# {title}", "", NOTICE.format(source=source), ""]


def sentence(text: str | None) -> str:
    """The first paragraph, on one line."""
    return re.sub(r"\s+", " ", (text or "").strip().partition("\n\n")[0])


def anchor(heading: str) -> str:
    """What a link to a heading of the same page ends with."""
    return "#" + re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
