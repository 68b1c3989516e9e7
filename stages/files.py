"""Files that a config holds: text, base64, or the id of a stored document."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Protocol

from permaflow.errors import InputError
from permaflow.ports import Document
from permaflow.task import TaskContext

BYTES = "application/octet-stream"

_media_type = re.compile(
    r"[A-Za-z0-9.+_-]{1,60}/[A-Za-z0-9.+_-]{1,80}(\s*;\s*[A-Za-z0-9._-]+=(\"[\x20\x21\x23-\x7e]*\"|[!-~]+))*"
)


class File(Protocol):
    """What a part of a config says of a file; one of the first three is given."""

    @property
    def text(self) -> str | None: ...
    @property
    def base64(self) -> str | None: ...
    @property
    def document(self) -> str | None: ...
    @property
    def content_type(self) -> str | None: ...


async def opened(file: File, name: str | None, pointer: str, ctx: TaskContext) -> Document:
    """The file, with `name` if there is one. Raises `InputError` and `NotFoundError`.

    The type of a stored document is what some server said it is; one that is none is left out.
    """
    if file.document is not None:
        found = await ctx.documents.get(file.document)
        known = found.content_type if _media_type.fullmatch(found.content_type) else BYTES
        return Document(name or found.name, file.content_type or known, found.body)
    if file.text is not None:
        kind = file.content_type or "text/plain; charset=utf-8"
        return Document(name or "", kind, file.text.encode(errors="replace"))
    try:
        content = base64.b64decode(file.base64 or "", validate=True)
    except (binascii.Error, ValueError):
        raise InputError("This is not base64.", pointer=f"{pointer}/base64") from None
    return Document(name or "", file.content_type or BYTES, content)
