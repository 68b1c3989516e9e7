from ipaddress import IPv4Address, IPv6Address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.addresses import (
    blocked,
    is_own,
    parse_address,
    parse_permits,
    unpacked,
)
from permaflow.errors import SettingsError

PRIVATE_V4 = [
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255",
    "100.100.100.200", "127.0.0.1", "127.255.255.254", "168.63.129.16", "169.254.0.1",
    "169.254.169.254", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.8", "192.0.0.170",
    "192.0.0.192", "192.0.2.1", "192.31.196.1", "192.52.193.1", "192.88.99.1", "192.168.0.1",
    "192.175.48.1", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1",
    "239.255.255.255", "240.0.0.1", "255.255.255.255",
]  # fmt: skip
PRIVATE_V6 = [
    "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:0:127.0.0.1",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::7f00:1", "64:ff9b:1::808:808",
    "100::1", "100:0:0:1::1", "2001::1", "2001:0:808:808::f5ff:fffe", "2001:2::1", "2001:10::1",
    "2001:20::1", "2001:db8::1", "2002:7f00:1::", "2002:a00:1::1", "2002:a9fe:a9fe::1",
    "2620:4f:8000::1", "3fff::1", "5f00::1", "fc00::1", "fd00::1", "fd00:ec2::254",
    "fd20:ce::254", "fe80::1", "fe80::1%eth0", "febf::1", "fec0::1", "ff02::1", "ff0e::1",
    "2a00:1450::5efe:a00:1", "2a00:1450::200:5efe:7f00:1", "4000::1", "1::1", "8000::1",
]  # fmt: skip
PUBLIC = [
    "1.1.1.1", "8.8.8.8", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0",
    "126.255.255.255", "128.0.0.1", "169.253.255.255", "169.255.0.0", "172.15.255.255",
    "172.32.0.0", "192.0.1.1", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0",
    "223.255.255.255", "2606:4700::1111", "2a00:1450:4001::200e", "::ffff:8.8.8.8",
    "64:ff9b::808:808", "2002:808:808::1", "2001:4860:4860::8888",
]  # fmt: skip


@pytest.mark.parametrize("text", PRIVATE_V4 + PRIVATE_V6)
def test_what_is_not_the_outside_world_is_blocked(text):
    assert blocked(parse_address(text))


@pytest.mark.parametrize("text", PUBLIC)
def test_the_outside_world_is_not_blocked(text):
    assert blocked(parse_address(text)) is None


@given(st.ip_addresses(v=4))
def test_the_standard_library_knows_no_private_address_that_is_not_blocked(address):
    if not address.is_global or address.is_multicast:
        assert blocked(address)


@pytest.mark.parametrize("text", PRIVATE_V4)
@pytest.mark.parametrize(
    "wrap",
    [
        lambda v4: int(IPv6Address("::ffff:0:0")) | v4,
        lambda v4: int(IPv6Address("::ffff:0:0:0")) | v4,
        lambda v4: int(IPv6Address("64:ff9b::")) | v4,
        lambda v4: int(IPv6Address("2002::")) | v4 << 80 | 1,
        lambda v4: v4,
    ],
)
def test_no_wrapping_makes_a_private_address_public(text, wrap):
    assert blocked(IPv6Address(wrap(int(IPv4Address(text)))))


@given(st.ip_addresses(v=4), st.ip_addresses(v=4))
def test_both_addresses_inside_a_teredo_address_are_seen(server, client):
    number = int(IPv6Address("2001::")) | int(server) << 64 | (int(client) ^ 0xFFFFFFFF)

    assert {server, client} <= set(unpacked(IPv6Address(number)))


def test_the_addresses_of_this_machine_are_its_own():
    assert is_own(parse_address("127.0.0.1"))
    assert not is_own(parse_address("8.8.8.8"))
    assert not is_own(parse_address("2606:4700::1111"))


def test_a_public_address_of_this_machine_is_blocked():
    address = parse_address("8.8.8.8")

    assert blocked(address, own=lambda asked: asked == address) == "an address of this machine"
    assert blocked(address, own=lambda asked: False) is None


@pytest.mark.parametrize(
    ("entry", "address", "host", "port", "covered"),
    [
        ("127.0.0.1:8080", "127.0.0.1", "x", 8080, True),
        ("127.0.0.1:8080", "127.0.0.1", "x", 8081, False),
        ("127.0.0.1:8080", "127.0.0.2", "x", 8080, False),
        ("10.0.0.0/8", "10.9.8.7", "x", 5432, True),
        ("10.0.0.0/8:443", "10.9.8.7", "x", 80, False),
        ("[fd00::/8]:443", "fd00::1", "x", 443, True),
        ("::1", "::1", "x", 1, True),
        ("127.0.0.1", "::ffff:127.0.0.1", "x", 1, False),
        ("Hooks.Internal:99", "10.0.0.1", "hooks.internal.", 99, True),
        ("hooks.internal", "10.0.0.1", "evil.hooks.internal", 80, False),
        ("hooks.internal", "169.254.169.254", "hooks.internal", 80, False),
        ("hooks.internal", "fd00:ec2::254", "hooks.internal", 80, False),
        ("169.254.169.254", "169.254.169.254", "x", 80, True),
    ],
)
def test_a_permit_covers_what_it_says_and_no_more(entry, address, host, port, covered):
    [permit] = parse_permits([entry])

    assert permit.covers(parse_address(address), host, port) is covered


@pytest.mark.parametrize(
    "entry",
    ["127.0.0.1:0", "127.0.0.1:99999", "127.0.0.1:x", "fd00::/8:443", "*", "http://x", "a b",
     "300.1.1.1", "10.0.0.0/33", "[x]:1", "12345", "-x"],
)  # fmt: skip
def test_a_permit_that_means_nothing_is_refused(entry):
    with pytest.raises(SettingsError):
        parse_permits([entry])


def test_empty_entries_are_skipped_and_host_bits_are_forgiven():
    [permit] = parse_permits(["", " 10.1.2.3/8 "])

    assert permit.network == ip_network("10.0.0.0/8")
