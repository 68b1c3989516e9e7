"""Which addresses the outside world consists of.

Decided on resolved binary addresses alone, against an explicit list: the flags of the standard
library call NAT64 and 6to4 forms of loopback global, and a host name has too many spellings.

The blocks are those of the IANA special-purpose address registries for IPv4 and IPv6, multicast,
and the metadata services of the clouds. An IPv4 address inside an IPv6 one (mapped, compatible,
translated, NAT64, 6to4, Teredo, ISATAP) is unpacked and judged, too.
"""

from __future__ import annotations

import errno
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from permaflow.errors import SettingsError

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_never = {
    "0.0.0.0/8": "this network",
    "169.254.0.0/16": "link-local, with the metadata services of most clouds",
    "224.0.0.0/4": "multicast",
    "240.0.0.0/4": "reserved",
    "100.100.100.200/32": "a metadata service",
    "168.63.129.16/32": "a metadata service",
    "192.0.0.192/32": "a metadata service",
    "::/128": "unspecified",
    "fe80::/10": "link-local",
    "ff00::/8": "multicast",
    "fd00:ec2::/32": "a metadata service",
    "fd20:ce::254/128": "a metadata service",
}

_private = {
    "10.0.0.0/8": "private",
    "100.64.0.0/10": "shared by carriers",
    "127.0.0.0/8": "loopback",
    "172.16.0.0/12": "private",
    "192.0.0.0/24": "protocol assignments",
    "192.0.2.0/24": "documentation",
    "192.31.196.0/24": "AS112",
    "192.52.193.0/24": "AMT",
    "192.88.99.0/24": "6to4 relays",
    "192.168.0.0/16": "private",
    "192.175.48.0/24": "AS112",
    "198.18.0.0/15": "benchmarks",
    "198.51.100.0/24": "documentation",
    "203.0.113.0/24": "documentation",
    "::1/128": "loopback",
    "64:ff9b:1::/48": "local translation",
    "100::/64": "discarded",
    "100:0:0:1::/64": "dummy",
    "2001::/23": "protocol assignments",
    "2001:db8::/32": "documentation",
    "2620:4f:8000::/48": "AS112",
    "3fff::/20": "documentation",
    "5f00::/16": "segment routing",
    "fc00::/7": "unique local",
    "fec0::/10": "site-local",
}

_embedding = (
    (ip_network("::/96"), 0),
    (ip_network("::ffff:0:0/96"), 0),
    (ip_network("::ffff:0:0:0/96"), 0),
    (ip_network("64:ff9b::/96"), 0),
    (ip_network("2002::/16"), 80),
)
_TEREDO = ip_network("2001::/32")
_GLOBAL_V6 = ip_network("2000::/3")
_ISATAP = (0x00005EFE, 0x02005EFE)


def _table(blocks: dict[str, str]) -> tuple[tuple[Network, str], ...]:
    return tuple((ip_network(block), reason) for block, reason in blocks.items())


_NEVER = _table(_never)
_PRIVATE = _table(_private)


@dataclass(frozen=True, slots=True)
class Permit:
    """An operator's word that this may be reached: a network or a host name, on one port or all.

    A host name opens no metadata service, link-local or multicast address.
    """

    network: Network | None
    host: str
    port: int | None

    def covers(self, address: Address, host: str, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return address in self.network
        return self.host == host.lower().rstrip(".") and _reason(address, _NEVER) is None


_entry = re.compile(r"(?:\[(?P<v6>[^\]]+)\]|(?P<plain>[^:\[\]]+))(?::(?P<port>\d{1,5}))?")


def parse_permits(entries: Sequence[str]) -> tuple[Permit, ...]:
    """`127.0.0.1:8080`, `10.0.0.0/8`, `10.0.0.0/8:443`, `[fd00::/8]:443`, `::1`, `hooks.internal`.

    Raises `SettingsError` for anything else.
    """
    return tuple(_permit(entry.strip()) for entry in entries if entry.strip())


def _permit(entry: str) -> Permit:
    match = _entry.fullmatch(entry)
    port = int(match["port"]) if match and match["port"] else None
    name = (match["v6"] or match["plain"]) if match else entry
    sound = port is None or 0 < port <= 65535
    try:
        network = ip_network(name, strict=False)
    except ValueError:
        network = None
    if sound and network is not None:
        return Permit(network, "", port)
    named = re.fullmatch(r"(?=.*[A-Za-z])[A-Za-z0-9]([A-Za-z0-9.\-]*[A-Za-z0-9])?", name)
    if match is None or match["v6"] or named is None or not sound:
        raise SettingsError(
            f"{entry!r} is neither host[:port] nor network[:port]. An IPv6 network with a port is "
            "written [fd00::/8]:443."
        )
    return Permit(None, name.lower(), port)


def parse_address(text: str) -> Address:
    """A resolved address; a zone (`%eth0`) is dropped. Raises `ValueError`."""
    return ip_address(text.partition("%")[0])


def blocked(address: Address, *, own: Callable[[Address], bool] | None = None) -> str | None:
    """Why this address is not for tasks to reach, or None if it is.

    `own` says whether this machine has an address; `is_own` does, if nothing is given.
    """
    for inner in (address, *unpacked(address)):
        reason = _reason(inner, _NEVER) or _reason(inner, _PRIVATE)
        if reason is not None:
            return reason
        if isinstance(inner, IPv6Address) and inner not in _GLOBAL_V6 and not unpacked(inner):
            return "not allocated to anybody"
    if (own or is_own)(address):
        return "an address of this machine"
    return None


def unpacked(address: Address) -> tuple[IPv4Address, ...]:
    """The IPv4 addresses inside an IPv6 address."""
    if isinstance(address, IPv4Address):
        return ()
    number = int(address)
    found = [
        IPv4Address(number >> shift & 0xFFFFFFFF)
        for network, shift in _embedding
        if address in network
    ]
    if address in _TEREDO:
        found.append(IPv4Address(number >> 64 & 0xFFFFFFFF))
        found.append(IPv4Address(~number & 0xFFFFFFFF))
    if number >> 32 & 0xFFFFFFFF in _ISATAP:
        found.append(IPv4Address(number & 0xFFFFFFFF))
    return tuple(found)


def is_own(address: Address) -> bool:
    """Whether this machine has the address: the kernel binds to its own addresses only."""
    family = socket.AF_INET if isinstance(address, IPv4Address) else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError as error:
        # Without IPv6 there is no socket to try with, and no own address either.
        return error.errno not in (
            errno.EADDRNOTAVAIL,
            errno.EAFNOSUPPORT,
            errno.EINVAL,
            errno.ENETUNREACH,
        )
    return True


def _reason(address: Address, table: tuple[tuple[Network, str], ...]) -> str | None:
    for network, reason in table:
        if address in network:
            return reason
    return None
