"""A mail server (aiosmtpd) in the test's own loop, which takes or refuses what the test says.

post_office    makes one: `async with post_office(tls="starttls") as post: …`
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

USER, PASSWORD = "mailer", "correct horse/battery"


@dataclass
class Delivered:
    """A message that the server took."""

    sender: str
    recipients: list[str]
    raw: bytes

    @property
    def message(self) -> EmailMessage:
        message = message_from_bytes(self.raw, policy=default)
        assert isinstance(message, EmailMessage)
        return message


@dataclass
class PostOffice:
    """The server: what it took, and what it is to answer instead of 250."""

    ca_file: Path
    port: int = 0
    connections: int = 0
    delivered: list[Delivered] = field(default_factory=list)
    senders: dict[str, str] = field(default_factory=dict)
    recipients: dict[str, str] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)
    silent: bool = False
    transports: list[asyncio.Transport] = field(default_factory=list)

    async def handle_MAIL(
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if refusal := self.senders.get(address):
            return refusal
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(
        self, server: Any, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if refusal := self.recipients.get(address):
            return refusal
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Session, envelope: Envelope) -> str:
        if self.silent:
            await asyncio.sleep(60)
        if self.answers:
            return self.answers.pop(0)
        assert isinstance(envelope.content, bytes)
        assert envelope.mail_from is not None
        self.delivered.append(
            Delivered(envelope.mail_from, list(envelope.rcpt_tos), envelope.content)
        )
        return "250 OK"

    def hang_up(self) -> None:
        """Close every connection, as servers do with those that are idle."""
        for transport in self.transports:
            transport.abort()
        self.transports.clear()


PostOffices = Callable[..., AbstractAsyncContextManager[PostOffice]]


@pytest.fixture
def post_office(tmp_path: Path) -> PostOffices:
    @asynccontextmanager
    async def open_one(*, tls: str = "", login: bool = False) -> AsyncIterator[PostOffice]:
        trust, ca_file = certificate(tmp_path)
        office = PostOffice(ca_file)

        def check(*arguments: Any) -> AuthResult:
            given = arguments[-1]
            assert isinstance(given, LoginPassword)
            good = (given.login, given.password) == (USER.encode(), PASSWORD.encode())
            return AuthResult(success=good, handled=False)

        def serve() -> SMTP:
            office.connections += 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # it warns of what the test wants
                return _Counted(
                    office,
                    office,
                    hostname="post.example",
                    tls_context=trust if tls == "starttls" else None,
                    require_starttls=tls == "starttls",
                    authenticator=check if login else None,
                    auth_required=login,
                    auth_require_tls=tls == "starttls",
                    loop=asyncio.get_running_loop(),
                )

        server = await asyncio.get_running_loop().create_server(
            serve, "127.0.0.1", 0, ssl=trust if tls == "tls" else None
        )
        office.port = server.sockets[0].getsockname()[1]
        try:
            yield office
        finally:
            server.close()
            office.hang_up()
            await server.wait_closed()

    return open_one


class _Counted(SMTP):
    """Remembers its connection, so that the test can cut it."""

    def __init__(self, office: PostOffice, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._office = office

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._office.transports.append(transport)
        super().connection_made(transport)


def certificate(folder: Path) -> tuple[ssl.SSLContext, Path]:
    """A server's context for 127.0.0.1, and the file of the authority that vouches for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / "server.pem", folder / "server.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public
