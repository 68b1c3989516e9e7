"""Mail out: the port `permaflow.ports.Mail` over SMTP.

Which server is a matter of the operator, so it may be a private one. Its URL says how the
connection is secured; nothing is negotiated down::

    smtps://user:password@host           TLS from the first byte, port 465
    smtp+starttls://user:password@host   STARTTLS, or nothing is sent; port 587
    smtp://host                          in the clear, port 25; no password, but on this machine

All recipients are announced before the message is: the server's answers decide whether it is sent
at all. Only a connection that is at rest is kept for the next message.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from email.message import EmailMessage
from email.policy import SMTP as CRLF
from email.utils import parseaddr
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

from aiosmtplib import SMTP
from aiosmtplib.errors import (
    SMTPException,
    SMTPNotSupported,
    SMTPResponseException,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)

from permaflow.errors import (
    BusyError,
    ConnectorError,
    ConnectorTimeoutError,
    RefusedError,
    SettingsError,
    UnreachableError,
    UntrustedPeerError,
)

SETTING = "PERMAFLOW_SMTP_URL"
PORTS = {"smtps": 465, "smtp+starttls": 587, "smtp": 25}
CONNECTIONS = 4
KEPT = 30.0
"""Seconds that a connection without work is kept."""

_TIMEOUT = timedelta(seconds=30)
_DISCONNECTS = (421,)


@dataclass(frozen=True, slots=True)
class Server:
    """Where mail is handed over. `security` is the scheme of the URL."""

    host: str
    port: int
    security: str
    user: str | None = None
    password: str | None = None

    def __repr__(self) -> str:
        return f"Server({self.security}://{self.host}:{self.port})"


def parse_server(url: str) -> Server:
    """The server of a setting. Raises `SettingsError`, which quotes no password."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        raise SettingsError(f"{SETTING} is no URL.") from None
    if parts.scheme not in PORTS or not host or parts.path.strip("/") or parts.query:
        raise SettingsError(f"{SETTING} is smtps://, smtp+starttls:// or smtp://, then the host.")
    user = unquote(parts.username) if parts.username else None
    password = unquote(parts.password) if parts.password else None
    if (user is None) != (password is None):
        raise SettingsError(f"{SETTING} has a user or a password, but not both.")
    if parts.scheme == "smtp" and user is not None and not _is_here(host):
        raise SettingsError(
            f"{SETTING} would send a password in the clear; use smtps:// or smtp+starttls://."
        )
    return Server(host, port or PORTS[parts.scheme], parts.scheme, user, password)


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class SmtpMail:
    """Implements `permaflow.ports.Mail`. One object serves a whole process; close it at the end."""

    def __init__(
        self,
        server: Server,
        sender: str,
        *,
        connections: int = CONNECTIONS,
        ca_file: Path | None = None,
    ) -> None:
        """`ca_file` adds a certificate authority to the public ones."""
        self.sender = sender
        self._envelope_sender = parseaddr(sender)[1]
        if "@" not in self._envelope_sender or not self._envelope_sender.isascii():
            raise SettingsError(
                "PERMAFLOW_SMTP_SENDER is the address that mail comes from, in ASCII: "
                "`name@domain` or `Name <name@domain>`."
            )
        self._server = server
        self._trust = ssl.create_default_context()
        if ca_file is not None:
            self._trust.load_verify_locations(ca_file)
        self._places = asyncio.Semaphore(connections)
        self._idle: deque[tuple[SMTP, float]] = deque()

    async def __aenter__(self) -> SmtpMail:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        while self._idle:
            await _bye(self._idle.pop()[0])

    async def send(
        self,
        message: EmailMessage,
        recipients: Sequence[str],
        *,
        partial: bool = False,
        timeout: timedelta | None = None,
    ) -> Mapping[str, str]:
        raw = message.as_bytes(policy=CRLF)
        seconds = (timeout or _TIMEOUT).total_seconds()
        try:
            async with asyncio.timeout(seconds), self._places:
                return await self._send(raw, tuple(dict.fromkeys(recipients)), partial)
        except TimeoutError:
            raise ConnectorTimeoutError(
                f"{self._server.host} did not take the message within {seconds:g} s."
            ) from None

    async def _send(
        self, raw: bytes, recipients: Sequence[str], partial: bool
    ) -> Mapping[str, str]:
        connection = await self._begin()
        at_rest = False
        try:
            refused = await _announce(connection, recipients, partial)
            await connection.data(raw)
            at_rest = True
        except SMTPResponseException as error:
            at_rest = error.code not in _DISCONNECTS
            raise self._explained(error) from error
        except (RefusedError, BusyError):
            at_rest = True
            raise
        except (SMTPException, OSError) as error:
            raise self._explained(error) from error
        finally:
            await self._put_back(connection, at_rest)
        return refused

    async def _begin(self) -> SMTP:
        """A connection that has taken the sender's address.

        The server may have closed one that was kept; then the next one is tried, for nothing is
        sent yet.
        """
        clock = asyncio.get_running_loop().time
        while self._idle:
            connection, until = self._idle.pop()
            if clock() < until and connection.is_connected:
                try:
                    await connection.mail(self._envelope_sender)
                except (SMTPException, OSError):
                    connection.close()
                else:
                    return connection
            else:
                connection.close()
        connection = await self._connect()
        try:
            await connection.mail(self._envelope_sender)
        except (SMTPException, OSError) as error:
            connection.close()
            raise self._explained(error) from error
        except BaseException:
            connection.close()
            raise
        return connection

    async def _connect(self) -> SMTP:
        server = self._server
        connection = SMTP(
            hostname=server.host,
            port=server.port,
            username=server.user,
            password=server.password,
            use_tls=server.security == "smtps",
            start_tls=server.security == "smtp+starttls",
            tls_context=self._trust,
            timeout=None,  # the whole exchange has one
        )
        try:
            await connection.connect()
        except (SMTPException, OSError) as error:
            raise self._explained(error) from error
        return connection

    async def _put_back(self, connection: SMTP, at_rest: bool) -> None:
        try:
            if at_rest and connection.is_connected:
                await connection.rset()
                kept_until = asyncio.get_running_loop().time() + KEPT
                self._idle.append((connection, kept_until))
                return
        except (SMTPException, OSError):
            pass
        except BaseException:
            connection.close()
            raise
        connection.close()

    def _explained(self, error: Exception) -> ConnectorError:
        """An error of the library in our words; the password is in none of them."""
        host = self._server.host
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ssl.SSLError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, ssl.SSLCertVerificationError):
            return UntrustedPeerError(f"{host}: {cause.verify_message}.")
        match error:
            case SMTPResponseException(code=code):
                said = _said(error)
                if 500 <= code <= 599:
                    return RefusedError(f"{host} refuses: {said}")
                return BusyError(f"{host} cannot take it now: {said}")
            case SMTPTimeoutError():
                return ConnectorTimeoutError(f"{host} did not answer in time.")
            case SMTPException() if type(error) in (SMTPException, SMTPNotSupported):
                return RefusedError(f"{host} cannot do what the setting asks for: {error.message}")
            case SMTPServerDisconnected():
                return UnreachableError(f"{host} closed the connection.")
        return UnreachableError(f"The connection to {host} failed: {type(error).__name__}.")


async def _announce(
    connection: SMTP, recipients: Sequence[str], partial: bool
) -> Mapping[str, str]:
    """Name the recipients; gives those that are refused while others are not."""
    refused: dict[str, str] = {}
    for recipient in recipients:
        try:
            await connection.rcpt(recipient)
        except SMTPResponseException as error:
            if error.code in _DISCONNECTS:
                raise
            if not 500 <= error.code <= 599:
                raise BusyError(f"{recipient} cannot be reached now: {_said(error)}") from error
            refused[recipient] = _said(error)
    if refused and (not partial or len(refused) == len(recipients)):
        told = "; ".join(f"{recipient}: {said}" for recipient, said in refused.items())
        raise RefusedError(f"Nothing was sent, because recipients were refused: {told}")
    return refused


def _said(error: SMTPResponseException) -> str:
    return f"{error.code} {' '.join(error.message.split())}"[:500]


async def _bye(connection: SMTP) -> None:
    try:
        async with asyncio.timeout(1.0):
            await connection.quit()
    except (SMTPException, OSError):
        pass
    finally:
        connection.close()
