"""What may be sent over HTTP, and what a redirect makes of it. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

import httpx

from permaflow.errors import InputError, RedirectError

MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})
MAX_URL = 16_384
MAX_HEADER = 16_384

OURS = frozenset(
    {
        "accept-encoding",
        "connection",
        "content-length",
        "expect",
        "host",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""Headers that only the transport sets."""

HARMLESS = frozenset(
    {
        "accept",
        "accept-language",
        "content-type",
        "idempotency-key",
        "permaflow-attempt",
        "user-agent",
    }
)
"""Headers that follow a redirect to another origin; any other may be a secret."""

_method = re.compile(r"[A-Z]{1,20}")
_name = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,256}")
_host = re.compile(rb"[A-Za-z0-9._\-]{1,253}|[0-9A-Fa-f:.]{2,45}")
_value = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")

Headers = dict[str, tuple[str, str]]
"""Lower-case name → the name as written, and the value."""


def parse_url(text: str) -> httpx.URL:
    """An absolute http or https URL without credentials. Raises `InputError`."""
    if len(text) > MAX_URL:
        raise InputError(f"The URL is longer than {MAX_URL:,} characters.")
    try:
        url = httpx.URL(text)
    except (httpx.InvalidURL, UnicodeError) as error:
        raise InputError(f"This is not a URL: {error}.") from None
    if url.scheme not in ("http", "https"):
        raise InputError("A URL starts with http:// or https://.")
    if not _host.fullmatch(url.raw_host):
        raise InputError("The URL names no host, or one with characters that no host has.")
    if not 0 < port_of(url) < 65536:
        raise InputError("The port of a URL lies between 1 and 65535.")
    if url.userinfo:
        raise InputError("A URL must not hold a user or a password; use a header.")
    return url


def check_method(method: str) -> None:
    """Raises `InputError` for what is no method, and for CONNECT and TRACE."""
    if not _method.fullmatch(method) or method in ("CONNECT", "TRACE"):
        raise InputError(f"The method {method[:30]!r} is not allowed.")


def check_headers(headers: Mapping[str, str]) -> Headers:
    """The headers, if they may be sent. Raises `InputError`."""
    checked: Headers = {}
    for name, value in headers.items():
        lower = name.lower()
        if not _name.fullmatch(name):
            raise InputError(f"{name[:100]!r} is no name of a header.")
        if lower in OURS:
            raise InputError(f"The header {name} cannot be set; the transport sets it.")
        if len(value) > MAX_HEADER or not _value.fullmatch(value):
            raise InputError(f"The header {name} is too long or holds control characters.")
        try:
            value.encode("latin-1")
        except UnicodeError:
            raise InputError(f"The header {name} holds more than Latin-1 characters.") from None
        checked[lower] = (name, value.strip())
    return checked


def redirected(
    status: int,
    method: str,
    url: httpx.URL,
    location: str,
    headers: Headers,
    body: bytes | None,
) -> tuple[str, httpx.URL, Headers, bytes | None]:
    """What to send next. Raises `RedirectError` where no redirect may lead."""
    try:
        target = parse_url(str(url.join(location)))
    except (InputError, httpx.InvalidURL) as error:
        raise RedirectError(f"{url.host} redirects to what is no usable URL: {error}") from None
    if url.scheme == "https" and target.scheme != "https":
        raise RedirectError(f"{url.host} redirects from https to http.")
    if (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST"):
        method, body = "GET", None
        headers = {name: line for name, line in headers.items() if name[:8] != "content-"}
    if (target.scheme, target.host, port_of(target)) != (url.scheme, url.host, port_of(url)):
        headers = {name: line for name, line in headers.items() if name in HARMLESS}
    return method, target, headers, body


def port_of(url: httpx.URL) -> int:
    """The port that is meant."""
    if url.port is not None:
        return url.port
    return 443 if url.scheme == "https" else 80
