"""Forms with files, as the body of a request."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict, Field, model_validator

from permaflow.errors import InputError, LimitError
from permaflow.task import TaskContext
from stages.files import opened

MAX_BYTES = 16_000_000


class Part(BaseModel):
    """A field of a form: `text`, `base64` or a stored `document`; with `filename` it is a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=200, description="The name of the field.")
    text: str | None = Field(None, description="Its value.")
    base64: str | None = Field(None, description="Its bytes.")
    document: str | None = Field(None, description="The id of a document with its bytes.")
    filename: str | None = Field(None, max_length=200, description="The name of the file.")
    content_type: str | None = Field(
        None,
        max_length=200,
        pattern=r"^[\x21-\x7e]+( *; *[\x21-\x7e]+)*$",
        description="What it is; a document says so itself.",
    )

    @model_validator(mode="after")
    def _one_value(self) -> Part:
        if sum(each is not None for each in (self.text, self.base64, self.document)) != 1:
            raise ValueError("a part has one of text, base64 and document")
        return self


async def multipart(parts: Sequence[Part], ctx: TaskContext) -> tuple[str, bytes]:
    """A body of multipart/form-data (RFC 7578), and its type with the boundary.

    All attempts of a step use the same boundary, so that they send the same bytes.
    """
    boundary = "permaflow-" + hashlib.sha256(f"boundary:{ctx.step_key}".encode()).hexdigest()[:40]
    out: list[bytes] = []
    for index, part in enumerate(parts):
        file = await opened(part, part.filename, f"/multipart/{index}", ctx)
        head = f'Content-Disposition: form-data; name="{_quoted(part.name)}"'
        if file.name:
            head += f'; filename="{_quoted(file.name)}"'
        if file.name or part.content_type or part.text is None:
            head += f"\r\nContent-Type: {file.content_type}"
        if f"--{boundary}".encode() in file.body:
            raise InputError("A part holds the boundary of the form.", pointer="/multipart")
        out += [f"--{boundary}\r\n{head}\r\n\r\n".encode(errors="replace"), file.body, b"\r\n"]
    out.append(f"--{boundary}--\r\n".encode())
    body = b"".join(out)
    if len(body) > MAX_BYTES:
        raise LimitError(f"The form has {len(body):,} bytes; {MAX_BYTES:,} are sent at most.")
    return f"multipart/form-data; boundary={boundary}", body


def _quoted(text: str) -> str:
    """As browsers write names: RFC 7578 and the HTML standard."""
    return text.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22").replace("\0", "")
