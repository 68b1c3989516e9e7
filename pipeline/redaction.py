"""What a step tells, without the secrets that it was given, however the other side spelt them."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar
from urllib.parse import quote, quote_plus

import orjson

from permaflow.plan import Json
from permaflow.task import Done, Park, Reject, Retry

MASK = "[secret]"
SHORTEST = 4
"""A secret of fewer characters is found everywhere, and guessed by anybody."""

V = TypeVar("V", Done, Retry, Reject, Park)


def redacted(verdict: object, secrets: Sequence[str]) -> object:
    """The verdict without these secrets."""
    pattern = _pattern(secrets) if secrets else None
    if pattern is None:
        return verdict
    match verdict:
        case Done(output=output):
            return replace(verdict, output=_clean(output, pattern))
        case Retry(message=message, details=details) | Reject(message=message, details=details):
            return replace(
                verdict, message=pattern.sub(MASK, message), details=_clean(details, pattern)
            )
        case Park(reason=reason):
            return replace(verdict, reason=pattern.sub(MASK, reason))
    return verdict


def redacted_text(text: str, secrets: Sequence[str]) -> str:
    """The text without these secrets."""
    pattern = _pattern(secrets) if secrets else None
    return text if pattern is None else pattern.sub(MASK, text)


def _pattern(secrets: Sequence[str]) -> re.Pattern[str] | None:
    spelt = {each for secret in secrets if len(secret) >= SHORTEST for each in _spelt(secret)}
    if not spelt:
        return None
    longest_first = sorted(spelt, key=len, reverse=True)
    return re.compile("|".join(re.escape(each) for each in longest_first))


def _spelt(secret: str) -> Iterable[str]:
    raw = secret.encode()
    yield secret
    yield from {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    yield orjson.dumps(secret).decode()[1:-1]
    yield from (raw.hex(), raw.hex().upper())
    # In the midst of a longer text, base64 starts at any of three places in a group.
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + raw).decode()
        start = (shift * 8 + 5) // 6
        whole = (shift + len(raw)) * 8 // 6
        part = encoded[start:whole]
        if len(part) >= SHORTEST:
            yield from (part, part.replace("+", "-").replace("/", "_"))


def _clean(value: Json, pattern: re.Pattern[str]) -> Json:
    match value:
        case str():
            return pattern.sub(MASK, value)
        case dict():
            return {_clean(name, pattern): _clean(item, pattern) for name, item in value.items()}
        case list() | tuple():
            return [_clean(item, pattern) for item in value]
    return value
