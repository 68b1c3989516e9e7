"""Named queries from queries/*.sql.

A file holds queries of one subject, each headed by its name and a sentence of purpose::

    -- name: get
    -- One run of the organisation.
    select ... where id = %(run_id)s;

`query("runs.get")` is its text. Modules bind their queries to constants, so that a wrong name
fails at import; a query without a purpose or with a name used twice fails at import as well.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, LiteralString, cast

_FOLDER = Path(__file__).with_name("queries")
_HEAD = re.compile(r"^-- name: *(.*)$", re.MULTILINE)
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def parse(text: str, subject: str) -> dict[str, str]:
    """The queries of one file: name → text without its head. Raises `ValueError`."""
    first, *parts = _HEAD.split(text)
    if first.strip():
        raise ValueError(f"queries/{subject}.sql: there is text before the first `-- name:`")
    found: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        if not _NAME.fullmatch(name):
            raise ValueError(f"queries/{subject}.sql: `{name}` is not a name")
        if name in found:
            raise ValueError(f"queries/{subject}.sql: `{name}` stands there twice")
        lines = body.strip().splitlines()
        purpose = [line for line in lines if line.startswith("--")]
        if not lines or not lines[0].startswith("-- ") or len(purpose) == len(lines):
            raise ValueError(
                f"queries/{subject}.sql: `{name}` needs a line of purpose and a statement"
            )
        found[name] = "\n".join(line for line in lines if line not in purpose).rstrip(";")
    return found


def load(folder: Path) -> dict[str, str]:
    """All queries of a folder, by `<file>.<name>`."""
    return {
        f"{path.stem}.{name}": text
        for path in sorted(folder.glob("*.sql"))
        for name, text in parse(path.read_text(encoding="utf-8"), path.stem).items()
    }


QUERIES = load(_FOLDER)


def query(name: str) -> LiteralString:
    """The text of a query, as literal as if it stood in the code. Raises `KeyError`."""
    text: LiteralString = cast(Any, QUERIES[name])
    return text
