"""`action_http`: make one HTTP request; the answer is the step's output."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from permaflow.errors import InputError, PermaflowError
from permaflow.plan import Json
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

LONGEST_WAIT = timedelta(hours=1)
"""A `Retry-After` beyond this counts as this."""

EXCERPT = 2_000

_charsets = re.compile(
    r"utf-?(8|16|32)(-?[bl]e)?|us-ascii|ascii|latin-?1|iso-8859-\d{1,2}|(windows-|cp)125\d|koi8-[ru]"
    r"|shift_jis|euc-(jp|kr)|gb2312|gbk|gb18030|big5",
    re.IGNORECASE,
)
"""Python knows codecs that are no charsets, and some that take quadratic time."""


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


class Config(BaseModel):
    """One request. Of `body` (JSON), `form` and `text` at most one is given.

    `expected_status` are the answers that count as success; `retry_on` those that may pass. Every
    other one fails for good. `response` says how to read the body: `auto` goes by its
    Content-Type. JSON integers beyond 64 bits arrive as text, so that none is rounded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(min_length=1)
    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] = "GET"
    headers: dict[str, Text | None] = {}
    query: dict[str, Text | list[Text] | None] = {}
    body: Json = None
    form: dict[str, Text | list[Text] | None] | None = None
    text: Text | None = None
    timeout_seconds: float = Field(30.0, gt=0, le=3600)
    response: Literal["auto", "json", "text"] = "auto"
    expected_status: Statuses = ((200, 299),)
    retry_on: Statuses = ((408, 408), (425, 425), (429, 429), (500, 599))
    follow_redirects: bool = True

    @model_validator(mode="after")
    def _one_body(self) -> Config:
        if sum(part is not None for part in (self.body, self.form, self.text)) > 1:
            raise ValueError("give one of body, form and text")
        return self


class Result(BaseModel):
    """What later steps may refer to; the names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: Any


async def run(config: Config, ctx: TaskContext) -> Verdict:
    try:
        headers, body = compose(config, ctx)
        answer = await ctx.http.request(
            config.method,
            with_query(config.url, config.query),
            headers=headers,
            body=body,
            timeout=min(timedelta(seconds=config.timeout_seconds), ctx.timeout),
            follow_redirects=config.follow_redirects,
        )
    except PermaflowError as error:
        return failure(error)
    return judge(config, answer, datetime.now(UTC))


def compose(config: Config, ctx: TaskContext) -> tuple[dict[str, str], bytes | None]:
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
        body = config.text.encode()
    given = {name: value for name, value in config.headers.items() if value is not None}
    lower = {name.lower() for name in given}
    kept = {name: value for name, value in headers.items() if name.lower() not in lower}
    return kept | given, body


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
        "body": _decoded(answer.body[:EXCERPT], answer.headers),
    }
    if _among(status, config.retry_on):
        after = retry_after(answer.headers, now)
        return Retry(f"HTTP {status}", code=f"http_{status}", after=after, details=details)
    return Reject(f"HTTP {status}", code=f"http_{status}", details=details)


def _among(status: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(low <= status <= high for low, high in ranges)


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """How long the other side asks us to wait: seconds or an HTTP date, measured by its own clock
    where it gives one. Never negative, never above `LONGEST_WAIT`.
    """
    text = headers.get("retry-after", "").strip()
    if re.fullmatch(r"\d{1,9}(\.\d*)?", text):
        wait = timedelta(seconds=float(text))
    else:
        until = _date(text)
        if until is None:
            return None
        wait = until - (_date(headers.get("date", "")) or now)
    return max(timedelta(0), min(wait, LONGEST_WAIT))


def _date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def read_body(config: Config, answer: HttpResponse) -> Json:
    """The body as JSON or text. Raises `InputError` for JSON that nobody can carry."""
    if not answer.body:
        return "" if config.response == "text" else None
    if config.response == "json":
        return parse(answer.body)
    if config.response == "auto" and _is_json(answer.headers):
        return parse(answer.body)
    return _decoded(answer.body, answer.headers)


def _is_json(headers: Mapping[str, str]) -> bool:
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def _decoded(body: bytes, headers: Mapping[str, str]) -> str:
    """Text in its charset; what is no text becomes U+FFFD."""
    message = Message()
    message["content-type"] = headers.get("content-type", "text/plain")
    charset = message.get_content_charset("utf-8")
    if not _charsets.fullmatch(charset):
        charset = "utf-8"
    text = body.decode(charset, errors="replace")
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")


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
