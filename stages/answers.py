"""What the answers of HTTP say, beside their body: when to come again, and a text to show."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.message import Message
from email.utils import parsedate_to_datetime

from permaflow.task import HttpResponse

LONGEST_WAIT = timedelta(hours=1)
"""A `Retry-After` beyond this counts as this."""

EXCERPT = 2_000

_charsets = re.compile(
    r"utf-?(8|16|32)(-?[bl]e)?|us-ascii|ascii|latin-?1|iso-8859-\d{1,2}|(windows-|cp)125\d|koi8-[ru]"
    r"|shift_jis|euc-(jp|kr)|gb2312|gbk|gb18030|big5",
    re.IGNORECASE,
)
"""Python knows codecs that are no charsets, and some that take quadratic time."""


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


def is_json(headers: Mapping[str, str]) -> bool:
    """Whether the Content-Type is one of JSON."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind == "application/json" or kind.endswith("+json")


def excerpt(answer: HttpResponse) -> str:
    """The beginning of the body as text."""
    return decoded(answer.body[:EXCERPT], answer.headers)


def decoded(body: bytes, headers: Mapping[str, str]) -> str:
    """Text in its charset; what is no text becomes U+FFFD."""
    message = Message()
    message["content-type"] = headers.get("content-type", "text/plain")
    charset = message.get_content_charset("utf-8")
    if not _charsets.fullmatch(charset):
        charset = "utf-8"
    text = body.decode(charset, errors="replace")
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
