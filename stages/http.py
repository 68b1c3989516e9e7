"""`action_http`: make one HTTP request; the answer is the step's output."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from permaflow.errors import InputError, PermaflowError
from permaflow.plan import Json
from permaflow.ports import Document
from permaflow.task import (
    Done,
    HttpResponse,
    Reject,
    Retry,
    TaskContext,
    TaskType,
    Verdict,
    failure,
)
from permaflow.values import parse
from stages.answers import decoded, excerpt, is_json, retry_after
from stages.files import opened
from stages.http_bodies import Part, multipart
from stages.secret_refs import SecretRef


def _text(value: object) -> object:
    """Templates give numbers and booleans; headers and forms hold text."""
    match value:
        case bool():
            return "true" if value else "false"
        case int() | float():
            return str(value)
    return value


def _statuses(value: object) -> object:
    """`200`, `"200-299"` and `"2xx"`, alone or in a list, as a list of ranges."""
    items = value if isinstance(value, (list, tuple)) else [value]
    return tuple(_range(item) for item in items)


def _range(item: object) -> tuple[int, int]:
    text = str(item) if isinstance(item, (int, str)) and not isinstance(item, bool) else ""
    if found := re.fullmatch(r"([1-5])xx", text, re.IGNORECASE):
        low = int(found[1]) * 100
        return low, low + 99
    if found := re.fullmatch(r"([1-5]\d\d)(?:-([1-5]\d\d))?", text):
        return int(found[1]), int(found[2] or found[1])
    raise ValueError('a status is written 200, "200-299" or "2xx"')


Text = Annotated[str, BeforeValidator(_text)]
Statuses = Annotated[
    tuple[tuple[int, int], ...],
    BeforeValidator(_statuses, json_schema_input_type=int | str | list[int | str]),
]


class _Auth(SecretRef):
    """Who asks: a secret by its name."""


class BearerAuth(_Auth):
    """`Authorization: Bearer <secret>`."""

    type: Literal["bearer"]


class BasicAuth(_Auth):
    """`Authorization: Basic …` of a user and the secret as the password."""

    type: Literal["basic"]
    user: str = Field(max_length=200, pattern=r"^[^:\x00-\x1f\x7f]*$", description="The user.")


class HeaderAuth(_Auth):
    """A header of your choice with the secret, behind `prefix`."""

    type: Literal["header"]
    name: str = Field("X-API-Key", min_length=1, max_length=200, description="The header.")
    prefix: str = Field("", max_length=200, description="What stands before the secret.")


class Config(BaseModel):
    """One request. Of `body` (JSON), `form`, `text`, `base64`, `document` (a stored file) and
    `multipart` at most one is given.

    `expected_status` are the answers that count as success; `retry_on` those that may pass. Every
    other one fails for good. `response` says how to read the body: `auto` goes by its
    Content-Type, `reference` stores it as a document. JSON integers beyond 64 bits arrive as text,
    so that none is rounded. `auth` names a secret; what comes back is rid of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(min_length=1, description="Where to, http or https.")
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = Field(
        "GET", description="What to do there."
    )
    auth: Annotated[BearerAuth | BasicAuth | HeaderAuth, Field(discriminator="type")] | None = (
        Field(None, description="Who asks.")
    )
    headers: dict[str, Text | None] = Field({}, description="Further headers.")
    query: dict[str, Text | list[Text] | None] = Field({}, description="Parameters of the URL.")
    body: Json = Field(None, description="A body of JSON.")
    form: dict[str, Text | list[Text] | None] | None = Field(
        None, description="A form, as browsers encode it."
    )
    text: Text | None = Field(None, description="A body of text.")
    base64: str | None = Field(None, description="A body of any bytes.")
    document: str | None = Field(None, description="The id of a document that is the body.")
    content_type: str | None = Field(
        None, max_length=200, description="What `base64` or `document` are."
    )
    multipart: tuple[Part, ...] | None = Field(
        None, min_length=1, max_length=100, description="A form with files."
    )
    timeout_seconds: float = Field(30.0, gt=0, le=3600, description="For the whole exchange.")
    max_bytes: int = Field(
        16_000_000, ge=1, le=16_000_000, description="The largest answer that is read."
    )
    response: Literal["auto", "json", "text", "reference"] = Field(
        "auto", description="How the answer is read."
    )
    expected_status: Statuses = Field(((200, 299),), description="What counts as success.")
    retry_on: Statuses = Field(
        ((408, 408), (425, 425), (429, 429), (500, 599)), description="What may pass."
    )
    follow_redirects: bool = Field(True, description="Go where the answer points, five times.")

    @model_validator(mode="after")
    def _one_body(self) -> Config:
        bodies = (self.body, self.form, self.text, self.base64, self.document, self.multipart)
        if sum(part is not None for part in bodies) > 1:
            raise ValueError("give one of body, form, text, base64, document and multipart")
        return self


class Result(BaseModel):
    """What later steps may refer to; the names of headers are in lower case.

    With `response: reference` the body is `{"id", "link", "content_type", "size"}` of a document.
    """

    status: int
    headers: dict[str, str]
    body: Any


async def run(config: Config, ctx: TaskContext) -> Verdict:
    try:
        headers, body = await compose(config, ctx)
        answer = await ctx.http.request(
            config.method,
            with_query(config.url, config.query),
            headers=headers,
            body=body,
            timeout=min(timedelta(seconds=config.timeout_seconds), ctx.timeout),
            max_bytes=config.max_bytes,
            follow_redirects=config.follow_redirects,
        )
        verdict = judge(config, answer, datetime.now(UTC))
        if config.response == "reference" and isinstance(verdict, Done):
            return await _kept(answer, ctx)
    except PermaflowError as error:
        return failure(error)
    return verdict


async def _kept(answer: HttpResponse, ctx: TaskContext) -> Verdict:
    """The output with the body as a document. Each attempt has its own: they may differ."""
    kind = answer.headers.get("content-type", "application/octet-stream")[:200]
    document = Document(f"{ctx.node}-answer", kind, answer.body)
    stored = await ctx.documents.put(document, key=f"{ctx.idempotency_key}:answer")
    body = {
        "id": stored.id,
        "link": stored.link,
        "content_type": kind,
        "size": len(answer.body),
    }
    return Done({"status": answer.status, "headers": dict(answer.headers), "body": body})


async def compose(config: Config, ctx: TaskContext) -> tuple[dict[str, str], bytes | None]:
    """The headers and the body of the request.

    Every attempt of a step sends the same `Idempotency-Key`, so that a receiver that knows it does
    the work once; `Permaflow-Attempt` tells the attempts apart. A header of the config wins.
    """
    headers = {"Idempotency-Key": ctx.step_key, "Permaflow-Attempt": str(ctx.attempt)}
    body: bytes | None = None
    if config.body is not None:
        headers["Content-Type"] = "application/json"
        body = _json(config.body)
    elif config.form is not None:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
        body = _encoded(config.form).encode()
    elif config.text is not None:
        headers["Content-Type"] = "text/plain; charset=utf-8"
        body = config.text.encode(errors="replace")
    elif config.base64 is not None or config.document is not None:
        file = await opened(config, None, "", ctx)
        headers["Content-Type"], body = file.content_type, file.body
    elif config.multipart is not None:
        headers["Content-Type"], body = await multipart(config.multipart, ctx)
    if config.auth is not None:
        name, value = await _credentials(config.auth, ctx)
        headers[name] = value
    given = {name: value for name, value in config.headers.items() if value is not None}
    lower = {name.lower() for name in given}
    kept = {name: value for name, value in headers.items() if name.lower() not in lower}
    return kept | given, body


async def _credentials(
    auth: BearerAuth | BasicAuth | HeaderAuth, ctx: TaskContext
) -> tuple[str, str]:
    """The header that says who asks."""
    secret = await ctx.secrets.get(auth.secret)
    match auth:
        case BearerAuth():
            return "Authorization", f"Bearer {secret}"
        case BasicAuth():
            pair = base64.b64encode(f"{auth.user}:{secret}".encode()).decode()
            return "Authorization", f"Basic {pair}"
        case HeaderAuth():
            return auth.name, auth.prefix + secret


def _json(value: Json) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError as error:
        raise InputError(f"The body is not JSON: {error}.", pointer="/body") from None


def with_query(url: str, query: Mapping[str, str | list[str] | None]) -> str:
    """The URL with further parameters; those it has already stay."""
    encoded = _encoded(query)
    if not encoded:
        return url
    url, hash_sign, fragment = url.partition("#")
    joint = "&" if "?" in url else "?"
    return f"{url}{joint}{encoded}{hash_sign}{fragment}"


def _encoded(values: Mapping[str, str | list[str] | None]) -> str:
    given = {name: value for name, value in values.items() if value is not None}
    return urlencode(given, doseq=True)


def judge(config: Config, answer: HttpResponse, now: datetime) -> Verdict:
    """What an answer means."""
    status = answer.status
    if _among(status, config.expected_status):
        try:
            body = read_body(config, answer)
        except InputError as error:
            return Reject(f"HTTP {status}, but its body: {error}", code="bad_body")
        return Done({"status": status, "headers": dict(answer.headers), "body": body})
    details = {
        "status": status,
        "headers": {k: v for k, v in answer.headers.items() if k != "set-cookie"},
        "body": excerpt(answer),
    }
    if _among(status, config.retry_on):
        after = retry_after(answer.headers, now)
        return Retry(f"HTTP {status}", code=f"http_{status}", after=after, details=details)
    return Reject(f"HTTP {status}", code=f"http_{status}", details=details)


def _among(status: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(low <= status <= high for low, high in ranges)


def read_body(config: Config, answer: HttpResponse) -> Json:
    """The body as JSON or text. Raises `InputError` for JSON that nobody can carry."""
    if config.response == "reference":
        return None
    if not answer.body:
        return "" if config.response == "text" else None
    if config.response == "json":
        return parse(answer.body)
    if config.response == "auto" and is_json(answer.headers):
        return parse(answer.body)
    return decoded(answer.body, answer.headers)


task_type = TaskType(
    name="action_http",
    stage="http",
    config=Config,
    result=Result,
    run=run,
    doc="Make one HTTP request.",
    label="HTTP request",
    category="Actions",
    icon="globe",
)
