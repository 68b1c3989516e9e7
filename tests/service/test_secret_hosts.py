"""Hosts that a secret may be sent to: how they are written, and which requests they cover."""

from __future__ import annotations

import pytest

from permaflow.errors import InputError
from pipeline.store.secret_hosts import covers, parse_hosts


@pytest.mark.parametrize(
    ("written", "compared"),
    [
        ("crm.example.com", "crm.example.com"),
        (" CRM.Example.COM. ", "crm.example.com"),
        ("*.Example.com", "*.example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("localhost", "localhost"),
        ("127.0.0.1", "127.0.0.1"),
        ("[2001:DB8:0::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("my_service", "my_service"),
    ],
)
def test_a_host_is_kept_as_it_is_looked_up(written: str, compared: str) -> None:
    assert parse_hosts([written]) == (compared,)


@pytest.mark.parametrize(
    "written",
    [
        "",
        " ",
        ".",
        "*",
        "*.",
        "*.com",
        "*.*.example.com",
        "a.*.example.com",
        "*.127.0.0.1",
        "*.::1",
        "https://crm.example.com",
        "crm.example.com/contacts",
        "crm.example.com:443",
        "ada@crm.example.com",
        "crm.example.com?",
        "crm.example.com#",
        "crm.example.com\\evil.example",
        "crm example.com",
        "crm..example.com",
        "-crm.example.com",
        "crm%2eexample.com",
        "crm.example.com,evil.example",
        "x" * 254,
    ],
)
def test_what_is_no_host_is_refused(written: str) -> None:
    with pytest.raises(InputError, match="is no host"):
        parse_hosts([written])


def test_there_are_twenty_at_most_and_each_counts_once() -> None:
    assert len(parse_hosts([f"h{n}.example" for n in range(20)] * 2)) == 20
    with pytest.raises(InputError, match="at most 20"):
        parse_hosts([f"h{n}.example" for n in range(21)])


@pytest.mark.parametrize(
    "host", ["crm.example.com", "CRM.EXAMPLE.COM", "crm.example.com.", "a.b.example.org"]
)
def test_a_request_to_one_of_the_hosts_is_covered(host: str) -> None:
    assert covers(("*.example.org", "crm.example.com"), host)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "evil.crm.example.com",
        "crm.example.com.evil.example",
        "xcrm.example.com",
        "example.org",
        "evilexample.org",
        "crm.example.com..",
        "",
    ],
)
def test_a_request_to_any_other_host_is_not(host: str) -> None:
    assert not covers(("*.example.org", "crm.example.com"), host)


def test_an_address_is_one_address_however_it_is_spelt() -> None:
    assert covers(("2001:db8::1",), "[2001:0db8::0001]")
    assert not covers(("127.0.0.1",), "127.1")
    assert not covers(("127.0.0.1",), "localhost")
