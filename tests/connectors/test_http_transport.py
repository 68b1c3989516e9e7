"""The transport against real sockets. Nothing here may ever reach a canary."""

from __future__ import annotations

import asyncio
import gzip
import ssl
import tracemalloc
import zlib
from datetime import UTC, datetime, timedelta

import httpcore
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from connectors.addresses import parse_permits
from connectors.guarded_network import GuardedNetwork, SystemResolver
from connectors.http_transport import GuardedHttp
from connectors.inflate import Inflater
from permaflow.errors import (
    AnswerTooLargeError,
    BlockedAddressError,
    ConnectorError,
    ConnectorTimeoutError,
    ForbiddenError,
    InputError,
    RedirectError,
    UnreachableError,
    UntrustedPeerError,
)
from tests.connectors.sites import Site, answer

SECOND = timedelta(seconds=1)


class Names:
    """A name server that gives prepared answers in turn, the last of them for ever."""

    def __init__(self, **answers):
        self.answers = {name.replace("_", "."): list(found) for name, found in answers.items()}
        self.asked = []

    async def __call__(self, host, port):
        self.asked.append(host)
        answers = self.answers[host]
        return answers.pop(0) if len(answers) > 1 else answers[0]


def redirect(to, status=302):
    return lambda seen: answer(status, {"Location": to})


# --- addresses ----------------------------------------------------------------------------------


async def test_a_permitted_site_answers():
    async with (
        Site(lambda seen: answer(201, {"X-A": "1"}, b"hi")) as site,
        GuardedHttp(allow=[site.permit]) as http,
    ):
        got = await http.request("GET", f"{site.url}/a?b=c#d")

    assert (got.status, got.body, got.headers["x-a"]) == (201, b"hi", "1")
    [seen] = site.seen
    assert (seen.method, seen.path) == ("GET", "/a?b=c")
    assert seen.headers["host"] == f"127.0.0.1:{site.port}"
    assert "cookie" not in seen.headers


SPELLINGS = [
    "127.0.0.1", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "0177.0.0.1",
    "017700000001",
    "0", "0.0.0.0", "localhost", "localhost.", "LOCALHOST", "127.0.0.1.", "127.000.000.001",
    "①②⑦.⓪.⓪.①", "１２７.０.０.１", "127。0。0。1", "127%2e0%2e0%2e1", "%31%32%37.0.0.1",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::7f00:1]", "[0:0:0:0:0:0:0:1]",
    "[64:ff9b::7f00:1]", "[64:ff9b::127.0.0.1]", "[2002:7f00:1::]", "[::ffff:0:127.0.0.1]",
    "[::1%25lo]", "[::1%lo]", "example.com@127.0.0.1", "user:pass@127.0.0.1",
    "127.0.0.1\\@example.com", "example.com\\@127.0.0.1", "127.0.0.1%00.example.com",
    "127.0.0.1\t", " 127.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_no_spelling_of_this_machine_is_reached(spelling):
    async with Site() as canary, GuardedHttp(ports=range(1, 65536)) as http:
        with pytest.raises((BlockedAddressError, InputError, UnreachableError)):
            await http.request("GET", f"http://{spelling}:{canary.port}/", timeout=5 * SECOND)

        assert canary.connections == 0


async def test_the_canary_would_have_noticed():
    async with Site() as canary, GuardedHttp(allow=["127.0.0.0/8"]) as http:
        await http.request("GET", f"http://2130706433:{canary.port}/")

        assert canary.connections == 1


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "10.0.0.1", "192.168.1.1", "100.100.100.200", "168.63.129.16",
     "fd00:ec2::254", "64:ff9b::a9fe:a9fe", "224.0.0.1", "fe80::1", "::ffff:10.0.0.1"],
)  # fmt: skip
async def test_a_name_that_points_inside_is_blocked(address):
    names = Names(evil_example=[[address]])
    async with GuardedHttp(resolve=names) as http:
        with pytest.raises(BlockedAddressError) as caught:
            await http.request("GET", "http://evil.example/")

    assert address not in str(caught.value)
    assert "PERMAFLOW_HTTP_ALLOW" in str(caught.value)


async def test_one_bad_address_among_good_ones_condemns_the_name():
    async with Site(host="127.0.0.2") as site, Site(port=site.port) as canary:
        names = Names(mixed_example=[["127.0.0.2", "127.0.0.1"]])
        async with GuardedHttp(allow=[site.permit], resolve=names) as http:
            with pytest.raises(BlockedAddressError):
                await http.request("GET", f"http://mixed.example:{site.port}/")

        assert (site.connections, canary.connections) == (0, 0)


async def test_a_name_server_that_changes_its_mind_gains_nothing():
    """The name points to a permitted site and to the canary by turns, on the same port."""
    close = {"Connection": "close"}
    async with (
        Site(lambda seen: answer(200, close), "127.0.0.2") as site,
        Site(port=site.port) as canary,
    ):
        names = Names(rebind_example=[["127.0.0.2"], ["127.0.0.1"]] * 5)
        reached = refused = 0
        async with GuardedHttp(allow=[site.permit], resolve=names) as http:
            for _ in range(10):
                try:
                    await http.request("GET", f"http://rebind.example:{site.port}/")
                    reached += 1
                except BlockedAddressError:
                    refused += 1

        assert (reached, refused) == (5, 5)
        assert len(names.asked) == 10, "each connection resolves once and no more"
        assert (site.connections, canary.connections) == (5, 0)


async def test_the_second_address_is_tried_when_the_first_is_dead():
    async with Site(host="127.0.0.2") as site:
        names = Names(two_example=[["127.0.0.3", "127.0.0.2"]])
        permits = [f"127.0.0.3:{site.port}", site.permit]
        async with GuardedHttp(allow=permits, resolve=names) as http:
            got = await http.request("GET", f"http://two.example:{site.port}/")

    assert got.status == 200


async def test_a_peer_that_is_not_who_was_asked_is_left():
    """A network that connects to the canary, whatever address it is given."""

    class Astray(httpcore.AnyIOBackend):
        async def connect_tcp(self, host, port, *more, **options):
            return await super().connect_tcp("127.0.0.1", port, *more, **options)

    async with Site() as canary:
        permits = parse_permits(["127.0.0.2"])
        network = GuardedNetwork(
            Names(a_example=[["127.0.0.2"]]), permits=permits, network=Astray()
        )
        with pytest.raises(BlockedAddressError, match="somebody else"):
            await network.connect_tcp("a.example", canary.port, 5.0)

        assert canary.seen == []


async def test_only_web_ports_are_reached():
    names = Names(public_example=[["1.1.1.1"]])
    async with GuardedHttp(resolve=names) as http:
        with pytest.raises(BlockedAddressError, match=r"port is not one of 80, 443, 8080, 8443"):
            await http.request("GET", "http://public.example:25/")


async def test_unix_sockets_are_not_reached(tmp_path):
    with pytest.raises(BlockedAddressError):
        await GuardedNetwork(Names()).connect_unix_socket(str(tmp_path / "socket"))


async def test_proxies_of_the_environment_are_ignored(monkeypatch):
    async with Site() as canary, Site() as site:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, canary.url)
        async with GuardedHttp(allow=[site.permit, canary.permit]) as http:
            await http.request("GET", site.url)

        assert (site.connections, canary.connections) == (1, 0)


async def test_a_name_that_does_not_resolve_is_trouble_that_may_pass():
    async def nowhere(host, port):
        raise OSError("no such name")

    async with GuardedHttp(resolve=nowhere) as http:
        with pytest.raises(UnreachableError):
            await http.request("GET", "http://nowhere.example/")


async def test_the_system_resolver_gives_each_address_once():
    resolver = SystemResolver()
    found = await resolver("localhost", 80)
    resolver.close()

    assert "127.0.0.1" in found or "::1" in found
    assert len(set(found)) == len(found)


# --- redirects ----------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", ["http://127.0.0.1:{}/", "//127.1:{}/", "http://[::1]:{}/x"])
async def test_a_redirect_inside_is_blocked(inside):
    async with Site() as canary, Site(host="127.0.0.2") as site:
        site.reply = redirect(inside.format(canary.port))
        async with GuardedHttp(allow=[site.permit], ports=range(1, 65536)) as http:
            with pytest.raises(BlockedAddressError):
                await http.request("GET", site.url)

        assert canary.connections == 0


@pytest.mark.parametrize(
    "to",
    ["file:///etc/passwd", "ftp://x/", "gopher://x:70/_x", "http://u:p@x.example/", "http://["],
)
async def test_a_redirect_to_what_is_no_usable_url_is_an_error(to):
    async with Site(redirect(to)) as site, GuardedHttp(allow=[site.permit]) as http:
        with pytest.raises(RedirectError):
            await http.request("GET", site.url)


async def test_five_redirects_are_followed_and_no_sixth():
    def countdown(seen):
        left = int(seen.path[1:])
        return answer(302, {"Location": f"/{left - 1}"}) if left else answer(200, body=b"end")

    async with Site(countdown) as site, GuardedHttp(allow=[site.permit]) as http:
        assert (await http.request("GET", f"{site.url}/5")).body == b"end"
        with pytest.raises(RedirectError):
            await http.request("GET", f"{site.url}/6")


async def test_redirects_are_left_alone_when_nobody_wants_them():
    async with Site(redirect("/x")) as site, GuardedHttp(allow=[site.permit]) as http:
        got = await http.request("GET", site.url, follow_redirects=False)

    assert (got.status, got.headers["location"]) == (302, "/x")


SECRETS = {"Authorization": "Bearer s", "Cookie": "s", "X-Api-Key": "s", "Idempotency-Key": "k"}


async def test_each_host_is_asked_about_before_anything_is_sent_there():
    asked = []

    def may(host):
        asked.append(host)
        if host == "localhost":
            raise ForbiddenError("not there")

    async with Site() as site, GuardedHttp(allow=[site.permit]) as http:
        site.reply = redirect(f"http://LOCALHOST:{site.port}/there")
        with pytest.raises(ForbiddenError, match="not there"):
            await http.request("GET", site.url, may=may)
        with pytest.raises(ForbiddenError, match="not there"):
            await http.request("GET", f"http://localhost:{site.port}", may=may)
    assert asked == ["127.0.0.1", "localhost", "localhost"]
    assert len(site.seen) == 1


async def test_no_secret_follows_a_redirect_to_another_origin():
    async with Site() as other, Site() as site:
        site.reply = redirect(f"{other.url}/there", 307)
        async with GuardedHttp(allow=[site.permit, other.permit]) as http:
            await http.request("POST", site.url, headers=SECRETS, body=b"{}")

    assert site.seen[0].headers["authorization"] == "Bearer s"
    [seen] = other.seen
    assert not {"authorization", "cookie", "x-api-key"} & set(seen.headers)
    assert seen.headers["idempotency-key"] == "k"
    assert seen.headers["host"] == other.permit


async def test_within_an_origin_headers_follow():
    def twice(seen):
        return answer(302, {"Location": "/2"}) if seen.path == "/" else answer()

    async with Site(twice) as site, GuardedHttp(allow=[site.permit]) as http:
        await http.request("GET", site.url, headers=SECRETS)

    assert site.seen[1].headers["authorization"] == "Bearer s"


@pytest.mark.parametrize(
    ("status", "method", "then", "body"),
    [
        (301, "POST", "GET", b""),
        (302, "POST", "GET", b""),
        (302, "PUT", "PUT", b"x"),
        (303, "POST", "GET", b""),
        (303, "DELETE", "GET", b""),
        (303, "HEAD", "HEAD", b"x"),
        (307, "POST", "POST", b"x"),
        (308, "PATCH", "PATCH", b"x"),
    ],
)
async def test_a_redirect_keeps_or_changes_the_method_as_the_standard_says(
    status, method, then, body
):
    def twice(seen):
        return answer(status, {"Location": "/2"}) if seen.path == "/" else answer()

    async with Site(twice) as site, GuardedHttp(allow=[site.permit]) as http:
        headers = {"Content-Type": "text/plain"}
        await http.request(method, site.url, headers=headers, body=b"x")

    assert (site.seen[1].method, site.seen[1].body) == (then, body)
    assert ("content-type" in site.seen[1].headers) is (body != b"")


# --- what may be sent ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "x"}, {"content-length": "5"}, {"Transfer-Encoding": "chunked"},
        {"Connection": "x"}, {"Upgrade": "h2c"}, {"Expect": "x"}, {"Proxy-Authorization": "x"},
        {"Accept-Encoding": "br"}, {"X": "a\r\nB: c"}, {"X": "a\nb"}, {"X": "a\0"}, {"X\r\nY": "a"},
        {"X Y": "a"}, {"": "a"}, {"X:": "a"}, {"X": "\u2028"}, {"X": "x" * 20_000}, {"Höst": "x"},
    ],
)  # fmt: skip
async def test_headers_that_may_not_be_set_are_refused(headers):
    async with Site() as canary, GuardedHttp(allow=[canary.permit]) as http:
        with pytest.raises(InputError):
            await http.request("GET", canary.url, headers=headers)

        assert canary.connections == 0


@pytest.mark.parametrize(
    "url",
    ["", "x", "/x", "ftp://x/", "file:///x", "http://", "http:///x", "http://x:0/", "http://x:65536/",
     "http://u@x/", "http://x/\r\nX: y", "http://x y/", "http://x/" + "a" * 20_000,
     "http://" + "a" * 300 + "/", "unix:/x", "http+unix://x/"],
)  # fmt: skip
async def test_urls_that_are_none_are_refused(url):
    async with GuardedHttp(resolve=Names()) as http:
        with pytest.raises(InputError):
            await http.request("GET", url)


@pytest.mark.parametrize("method", ["CONNECT", "TRACE", "get", "G T", "GET\r\n", ""])
async def test_methods_that_are_none_are_refused(method):
    async with GuardedHttp(resolve=Names()) as http:
        with pytest.raises(InputError):
            await http.request(method, "http://x.example/")


async def test_the_path_is_escaped_and_cannot_add_a_line():
    async with Site() as site, GuardedHttp(allow=[site.permit]) as http:
        await http.request("GET", f"{site.url}/ä b?q=ü&x=%0d%0aX: y")

    assert site.seen[0].path == "/%C3%A4%20b?q=%C3%BC&x=%0d%0aX:%20y"


async def test_cookies_of_one_answer_are_not_sent_with_the_next_request():
    async with (
        Site(lambda seen: answer(200, {"Set-Cookie": "s=1"})) as site,
        GuardedHttp(allow=[site.permit]) as http,
    ):
        await http.request("GET", site.url)
        await http.request("GET", site.url)

    assert site.connections == 1, "the connection is used again"
    assert "cookie" not in site.seen[1].headers


async def test_a_connection_that_the_site_has_closed_is_not_used_again():
    async with Site() as site, GuardedHttp(allow=[site.permit]) as http:
        await http.request("GET", site.url)
        await site.hang_up()
        assert (await http.request("GET", site.url)).status == 200

    assert site.connections == 2


# --- what may be received -----------------------------------------------------------------------


@pytest.mark.parametrize("coding", ["gzip", "deflate", "raw"])
async def test_compressed_answers_are_read(coding):
    text = b"hello " * 1000
    packed = {"gzip": gzip.compress(text), "deflate": zlib.compress(text)}.get(coding)
    if packed is None:
        packer = zlib.compressobj(wbits=-15)
        packed = packer.compress(text) + packer.flush()
    headers = {"Content-Encoding": "gzip" if coding == "gzip" else "deflate"}
    async with (
        Site(lambda seen: answer(200, headers, packed)) as site,
        GuardedHttp(allow=[site.permit]) as http,
    ):
        got = await http.request("GET", site.url)

    assert got.body == text


async def test_a_bomb_does_not_unfold():
    bomb = gzip.compress(bytes(200_000_000), 9)
    headers = {"Content-Encoding": "gzip"}
    async with (
        Site(lambda seen: answer(200, headers, bomb)) as site,
        GuardedHttp(allow=[site.permit], max_bytes=1_000_000) as http,
    ):
        tracemalloc.start()
        with pytest.raises(AnswerTooLargeError):
            await http.request("GET", site.url)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert peak < 8_000_000


@pytest.mark.parametrize(
    "reply",
    [
        answer(200, body=b"x" * 1001),
        b"HTTP/1.1 200 X\r\nConnection: close\r\n\r\n" + b"x" * 1001,
        b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001 + b"\r\n",
        b"HTTP/1.1 200 X\r\nContent-Length: 99999999999999999999\r\n\r\n",
    ],
)  # fmt: skip
async def test_an_answer_above_the_limit_is_not_read(reply):
    async with Site(lambda seen: reply) as site, GuardedHttp(allow=[site.permit]) as http:
        with pytest.raises(ConnectorError) as caught:
            await http.request("GET", site.url, max_bytes=1000)

    assert isinstance(caught.value, (AnswerTooLargeError, UnreachableError))


async def test_an_answer_at_the_limit_is_read():
    async with (
        Site(lambda seen: answer(200, body=b"x" * 1000)) as site,
        GuardedHttp(allow=[site.permit]) as http,
    ):
        assert len((await http.request("GET", site.url, max_bytes=1000)).body) == 1000


async def test_the_length_that_a_head_answer_declares_is_not_its_size():
    reply = b"HTTP/1.1 200 X\r\nContent-Length: 99999999\r\nContent-Encoding: gzip\r\n\r\n"
    async with Site(lambda seen: reply) as site, GuardedHttp(allow=[site.permit]) as http:
        got = await http.request("HEAD", site.url, max_bytes=10)

    assert got.body == b""


@pytest.mark.parametrize(
    "reply",
    [
        answer(200, {"Content-Encoding": "br"}, b"x"),
        answer(200, {"Content-Encoding": "gzip"}, b"not gzip at all"),
        answer(200, {"Content-Encoding": "gzip"}, gzip.compress(b"x" * 100)[:-9]),
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 X\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 X\r\nContent-Length: 10\r\nConnection: close\r\n\r\nshort",
    ],
)
async def test_a_broken_answer_is_trouble_that_may_pass(reply):
    async with Site() as site, GuardedHttp(allow=[site.permit]) as http:
        site.reply = lambda seen: closing(site, reply)
        with pytest.raises(UnreachableError):
            await http.request("GET", site.url, timeout=5 * SECOND)


def closing(site, reply):
    """Send the reply, then end the connection."""
    for writer in site._writers:
        writer.write(reply)
        writer.write_eof()
    return b""


async def test_an_answer_that_never_comes_is_a_timeout():
    async with Site(lambda seen: None) as site, GuardedHttp(allow=[site.permit]) as http:
        with pytest.raises(ConnectorTimeoutError):
            await http.request("GET", site.url, timeout=timedelta(milliseconds=100))


async def test_an_answer_that_never_ends_is_a_timeout():
    endless = b"HTTP/1.1 200 X\r\nContent-Length: 100\r\n\r\nx"
    async with Site(lambda seen: endless) as site, GuardedHttp(allow=[site.permit]) as http:
        with pytest.raises(ConnectorTimeoutError):
            await http.request("GET", site.url, timeout=timedelta(milliseconds=100))


async def test_a_name_server_that_never_answers_is_a_timeout():
    async def silent(host, port):
        await asyncio.Event().wait()

    async with GuardedHttp(resolve=silent) as http:
        with pytest.raises(ConnectorTimeoutError):
            await http.request("GET", "http://x.example/", timeout=timedelta(milliseconds=50))


async def test_a_closed_port_is_trouble_that_may_pass():
    async with Site() as site:
        pass
    async with GuardedHttp(allow=[site.permit]) as http:
        with pytest.raises(UnreachableError):
            await http.request("GET", site.url)


async def test_the_transport_works_on_after_a_hundred_failures():
    async with (
        Site(lambda seen: None) as site,
        GuardedHttp(allow=[site.permit], connections=4) as http,
    ):
        for _ in range(10):
            tries = (
                http.request("GET", site.url, timeout=timedelta(milliseconds=60)) for _ in range(10)
            )
            failures = await asyncio.gather(*tries, return_exceptions=True)
            assert all(isinstance(failure, ConnectorTimeoutError) for failure in failures)
        site.reply = lambda seen: answer(200, body=b"ok")
        assert (await http.request("GET", site.url)).body == b"ok"


def test_the_inflater_reads_several_members_and_stops_at_its_limit():
    inflater = Inflater(100)
    assert inflater.feed(gzip.compress(b"a") + gzip.compress(b"b")) == b"ab"
    assert inflater.complete
    assert len(Inflater(10).feed(gzip.compress(b"x" * 1000))) == 11


# --- TLS ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, and a certificate of it for good.test."""
    folder = tmp_path_factory.mktemp("tls")
    now = datetime.now(UTC)

    def make(name, issuer, issuer_key, *, authority):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(authority, None), critical=True)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        )
        certificate = builder.sign(issuer_key or key, hashes.SHA256())
        (folder / f"{name}.pem").write_bytes(
            certificate.public_bytes(serialization.Encoding.PEM)
            + key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return subject, key

    subject, key = make("authority", None, None, authority=True)
    make("good.test", subject, key, authority=False)
    return folder


@pytest.fixture
def tls(certificates):
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates / "good.test.pem")
    context.names = []
    context.sni_callback = lambda connection, name, _: context.names.append(name)
    return context


NAMES = {"good_test": [["127.0.0.1"]], "bad_test": [["127.0.0.1"]]}


async def test_tls_asks_for_the_name_and_checks_it(tls, certificates):
    async with (
        Site(tls=tls) as site,
        GuardedHttp(
            allow=[site.permit], resolve=Names(**NAMES), ca_file=certificates / "authority.pem"
        ) as http,
    ):
        got = await http.request("GET", f"https://good.test:{site.port}/")
        with pytest.raises(UntrustedPeerError, match=r"not valid for 'bad\.test'"):
            await http.request("GET", f"https://bad.test:{site.port}/")

    assert got.status == 200
    assert tls.names == ["good.test", "bad.test"]
    assert [seen.headers["host"] for seen in site.seen] == [f"good.test:{site.port}"]


async def test_an_unknown_authority_is_not_trusted(tls):
    async with (
        Site(tls=tls) as site,
        GuardedHttp(allow=[site.permit], resolve=Names(**NAMES)) as http,
    ):
        with pytest.raises(UntrustedPeerError):
            await http.request("GET", f"https://good.test:{site.port}/")

    assert site.seen == []


async def test_a_redirect_from_https_to_http_is_not_followed(tls, certificates):
    async with (
        Site() as plain,
        Site(redirect(plain.url), tls=tls) as site,
        GuardedHttp(
            allow=["127.0.0.1"], resolve=Names(**NAMES), ca_file=certificates / "authority.pem"
        ) as http,
    ):
        with pytest.raises(RedirectError):
            await http.request("GET", f"https://good.test:{site.port}/")

    assert plain.connections == 0
