"""The bus on servers that want TLS or a token, and on a list of servers."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from permaflow.errors import BusError, BusUnavailableError
from pipeline.bus.jetstream import connect
from pipeline.bus.link import Link, credentials
from pipeline.bus.port import Backlog, Channel
from pipeline.embedded.binaries import find_binary
from tests.fix_servers import BACK_END

pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(BACK_END != "embedded", reason="PERMAFLOW_TEST_STACK is not embedded"),
]

STREAMS = {"T_ONE": "t.one.>"}
CHANNEL = Channel("T_ONE", "reader", "t.one.a", datetime.timedelta(seconds=1))
TOKEN = "s3cr%3At%2F%40"


@dataclass(frozen=True, slots=True)
class Guarded:
    """A server that wants TLS and a token."""

    port: int
    trust: ssl.SSLContext

    @property
    def url(self) -> str:
        return f"tls://{TOKEN}@127.0.0.1:{self.port}"


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    cert_file, key_file = folder / "cert.pem", folder / "key.pem"
    cert_file.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return cert_file, key_file


@pytest.fixture
async def guarded(tmp_path: Path, unused_tcp_port: int) -> AsyncIterator[Guarded]:
    cert_file, key_file = certificate(tmp_path)
    config = tmp_path / "nats.conf"
    config.write_text(
        f"""
        listen: "127.0.0.1:{unused_tcp_port}"
        authorization {{ token: "s3cr:t/@" }}
        tls {{ cert_file: "{cert_file}", key_file: "{key_file}" }}
        jetstream {{ store_dir: "{tmp_path / "store"}" }}
        """
    )
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: ASYNC220 - it is waited for below
            [str(find_binary("nats-server")), "--config", str(config)], stdout=log, stderr=log
        )
    trust = ssl.create_default_context(cafile=cert_file)
    server = Guarded(unused_tcp_port, trust)
    try:
        async with asyncio.timeout(10):
            while True:
                link = Link(server.url, "is it there", trust)
                try:
                    await link.open()
                except BusUnavailableError:
                    continue
                break
        await link.close()
        yield server
    finally:
        process.terminate()
        process.wait()


async def test_everything_works_over_tls_with_a_token(guarded: Guarded) -> None:
    bus = await connect(guarded.url, name="test", streams=STREAMS, tls=guarded.trust)
    try:
        reader = await bus.subscribe(CHANNEL, 1)
        await bus.send("t.one.a", b"x" * 500_000)
        async with asyncio.timeout(10):
            [message] = await reader.batch()
            assert len(message.data) == 500_000
            message.keep()
            reader.release()
            with pytest.raises(TimeoutError):  # the beats, too, go over TLS
                await asyncio.wait_for(reader.batch(), 2.5)
            message.ack()
            while await bus.backlog(CHANNEL) != Backlog(0, 0):
                pass
    finally:
        await bus.close()


async def test_a_server_whose_certificate_nobody_vouches_for_is_refused(guarded: Guarded) -> None:
    with pytest.raises(BusUnavailableError, match="certificate"):
        await connect(guarded.url, name="test", streams=STREAMS)


async def test_a_server_that_wants_tls_gets_it_from_a_plain_url_too(guarded: Guarded) -> None:
    url = guarded.url.replace("tls://", "nats://")
    link = Link(url, "test", guarded.trust)
    await link.open()
    assert link.connected
    await link.close()


async def test_the_next_server_of_a_list_is_taken_when_one_is_away(
    nats_url: str, unused_tcp_port: int
) -> None:
    bus = await connect(
        f"{nats_url}, nats://127.0.0.1:{unused_tcp_port}", name="t", streams=STREAMS
    )
    try:
        await bus.send("t.one.a", b"")
    finally:
        await bus.close()


def test_the_user_part_of_a_url_is_a_token_or_a_user_with_a_password() -> None:
    assert credentials("nats://host:4222") == {}
    assert credentials("nats://t%40k@host") == {"auth_token": "t@k"}
    assert credentials("nats://ann:p%3Aw@host") == {"user": "ann", "pass": "p:w"}


@pytest.mark.parametrize("subject", ["", "t.one.a b", "t.one.a\r\nPUB t.one.b 0\r\n\r\n", "t.\x00"])
async def test_a_subject_cannot_smuggle_in_a_command(nats_url: str, subject: str) -> None:
    bus = await connect(nats_url, name="test", streams=STREAMS)
    try:
        with pytest.raises(BusError, match="is not a subject"):
            bus.send(subject, b"")
        with pytest.raises(BusError, match="is not a subject"):
            bus.ring(subject)
    finally:
        await bus.close()
