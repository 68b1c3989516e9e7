"""The NATS wire protocol without I/O: bytes in, calls out.

Why this and not the client library: docs/adr/0006-own-nats-wire-client.md.
The protocol: https://docs.nats.io/reference/reference-protocols/nats-protocol
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Handler = Callable[[bytes, bytes, bytes, bytes], None]
"""Takes subject, reply subject, headers and data; the middle two are often empty."""

CRLF = b"\r\n"
HEADER_LINE = b"NATS/1.0"
MAX_CONTROL_LINE = 65_536


class ProtocolError(Exception):
    """The server said something that is not NATS."""


@dataclass(slots=True)
class Parser:
    """Finds the messages in what a socket received, in whatever pieces it arrived.

    `handlers` maps a subscription id to who gets its messages; messages for ids that are not in it
    are dropped. `control` gets everything else: the verb (`INFO`, `PING`, `PONG`, `-ERR`) and its
    argument.
    """

    handlers: dict[bytes, Handler]
    control: Callable[[bytes, bytes], None]
    _pieces: list[bytes]
    _have: int
    _need: int

    def __init__(
        self, handlers: dict[bytes, Handler], control: Callable[[bytes, bytes], None]
    ) -> None:
        self.handlers = handlers
        self.control = control
        self._pieces = []
        self._have = 0
        self._need = 0

    def feed(self, data: bytes) -> None:
        """Take what arrived; call the handlers of every message that is now complete."""
        if self._pieces:
            self._pieces.append(data)
            self._have += len(data)
            if self._have < self._need:
                return
            data = b"".join(self._pieces)
            self._pieces = []
        size = len(data)
        handlers = self.handlers
        at = 0
        need = 0
        while at < size:
            end = data.find(b"\r\n", at)
            if end < 0:
                if size - at > MAX_CONTROL_LINE:
                    raise ProtocolError(f"no line end within {MAX_CONTROL_LINE} bytes")
                need = size - at + 1
                break
            first = data[at]
            if first == 77:  # M of MSG
                words = data[at + 4 : end].split()
                start = end + 2
                stop = start + int(words[-1])
                if stop + 2 > size:
                    need = stop + 2 - at
                    break
                handler = handlers.get(words[1])
                if handler is not None:
                    reply = words[2] if len(words) == 4 else b""
                    handler(words[0], reply, b"", data[start:stop])
                at = stop + 2
            elif first == 72:  # H of HMSG
                words = data[at + 5 : end].split()
                start = end + 2
                stop = start + int(words[-1])
                if stop + 2 > size:
                    need = stop + 2 - at
                    break
                handler = handlers.get(words[1])
                if handler is not None:
                    body = start + int(words[-2])
                    reply = words[2] if len(words) == 5 else b""
                    handler(words[0], reply, data[start:body], data[body:stop])
                at = stop + 2
            else:
                verb, _, argument = data[at:end].partition(b" ")
                at = end + 2
                if verb and verb != b"+OK":
                    self.control(verb, argument)
        if at < size:
            self._pieces = [data[at:] if at else data]
            self._have = size - at
            self._need = need


def pub(subject: bytes, data: bytes, reply: bytes = b"", headers: bytes = b"") -> bytes:
    """The bytes that publish one message; `headers` comes from `header_block`."""
    if headers:
        return b"HPUB %b %b %d %d\r\n%b%b\r\n" % (
            subject,
            reply,
            len(headers),
            len(headers) + len(data),
            headers,
            data,
        )
    return b"PUB %b %b %d\r\n%b\r\n" % (subject, reply, len(data), data)


def header_block(**fields: str) -> bytes:
    """Headers as they travel; `_` in a name is written `-`. Line ends in values are refused."""
    lines = [HEADER_LINE]
    for name, value in fields.items():
        if "\r" in value or "\n" in value:
            raise ValueError(f"The header {name} holds a line end: {value!r}.")
        lines.append(f"{name.replace('_', '-')}: {value}".encode())
    return CRLF.join(lines) + CRLF + CRLF


def status_of(headers: bytes) -> tuple[int, str]:
    """The status line of a message that is not data: `(408, "Request Timeout")`, or `(0, "")`."""
    line = headers[len(HEADER_LINE) : headers.find(CRLF)].strip()
    if not line:
        return 0, ""
    code, _, text = line.decode("latin-1").partition(" ")
    return (int(code), text) if code.isdigit() else (0, "")


def header(headers: bytes, name: str) -> str:
    """One header's value, or an empty string."""
    wanted = name.lower()
    for line in headers.decode("utf-8", "replace").split("\r\n")[1:]:
        key, _, value = line.partition(":")
        if key.strip().lower() == wanted:
            return value.strip()
    return ""
