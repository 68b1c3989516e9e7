"""The hosts that a secret may be sent to. Pure.

A host is a name or an address, `crm.example.com`, or a domain with all names below it,
`*.example.com`. Ports do not matter. Names are compared as they are looked up: in lower case, in
their ASCII form, without a dot at the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

import httpx

from permaflow.errors import InputError

MOST = 20

_name = re.compile(r"(?!-)[a-z0-9_\-]{1,63}(\.[a-z0-9_\-]{1,63})*")
_outside = re.compile(r"[\s/@?#\\%:*\[\]]")
_WILD = "*."


def parse_hosts(given: Iterable[str]) -> tuple[str, ...]:
    """The hosts as they are compared, in order and each once. Raises `InputError`."""
    hosts = tuple(sorted({_parsed(each) for each in given}))
    if len(hosts) > MOST:
        raise InputError(f"A secret has at most {MOST} hosts; here are {len(hosts)}.")
    return hosts


def covers(hosts: Sequence[str], host: str) -> bool:
    """Whether a request to `host` is one to these hosts."""
    asked = plain(host)
    return any(
        asked.endswith(each[1:]) if each.startswith(_WILD) else asked == each for each in hosts
    )


def plain(host: str) -> str:
    """A host as it is compared."""
    bare = host.strip().lower().removesuffix(".").removeprefix("[").removesuffix("]")
    try:
        return str(ip_address(bare))
    except ValueError:
        return bare


def _parsed(given: str) -> str:
    wild = given.strip().startswith(_WILD)
    host = plain(given.strip().removeprefix(_WILD))
    if ":" in host and not wild and host == _address(host):
        return host
    if not host or len(host) > 253 or _outside.search(host):
        raise _refused(given)
    try:
        name = httpx.URL(scheme="http", host=host).raw_host.decode("ascii").lower()
    except (httpx.InvalidURL, UnicodeError):
        raise _refused(given) from None
    if not _name.fullmatch(name) or (wild and ("." not in name or _address(name))):
        raise _refused(given)
    return _WILD + name if wild else name


def _address(host: str) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        return ""


def _refused(given: str) -> InputError:
    return InputError(
        f"{given[:100]!r} is no host. Write its name alone, without scheme, port and path: "
        "`crm.example.com`, or `*.example.com` for every name below a domain."
    )
