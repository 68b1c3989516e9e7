"""Signatures of webhooks: the vendors' own vectors, and everything that must not pass."""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.webhook_signatures import (
    ALGORITHMS,
    ENCODINGS,
    MOST_SIGNATURES,
    SCHEMES,
    TOLERANCE,
    Proof,
    Verification,
    check_secret,
    event_ids,
    read_verification,
    verify,
)
from permaflow.errors import InputError
from specs import triggers
from specs.reading import Report

SLACK_BODY = (
    b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V"
    b"&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text="
    b"&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibI"
    b"GlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c"
)


def sign(secret: str, text: bytes, algorithm: str = "sha256") -> bytes:
    return hmac.new(secret.encode(), text, algorithm).digest()


# --- vectors: scheme, secret, headers, body, the time they were made ----------------------------

VECTORS: list[Any] = [
    pytest.param(
        "standard",
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        },
        b'{"test": 2432232314}',
        1614265330,
        id="standard",
    ),
    pytest.param(
        "github",
        "It's a Secret to Everybody",
        {
            "x-hub-signature-256": "sha256="
            "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"
        },
        b"Hello, World!",
        0,
        id="github",
    ),
    pytest.param(
        "slack",
        "8f742231b10e8888abcd99yyyzzz85a5",
        {
            "x-slack-request-timestamp": "1531420618",
            "x-slack-signature": "v0="
            "a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        },
        SLACK_BODY,
        1531420618,
        id="slack",
    ),
    pytest.param(
        "stripe",
        "whsec_test_secret",
        {
            "stripe-signature": "t=1492774577,"
            "v1=654b43d3508ecadb3f8cefc4bc7d3d2bdc5ba9e03bf2c89b2d0657a8e24e4543,v0=00"
        },
        b'{"id":"evt_1","object":"event"}',
        1492774577,
        id="stripe",
    ),
    pytest.param(
        "shopify",
        "shpss_secret",
        {"x-shopify-hmac-sha256": base64.b64encode(sign("shpss_secret", b"{}")).decode()},
        b"{}",
        0,
        id="shopify",
    ),
    pytest.param(
        "hmac",
        "topsecret",
        {"x-signature": sign("topsecret", b"{}").hex()},
        b"{}",
        0,
        id="hmac",
    ),
]
TIMED = [vector for vector in VECTORS if vector.id in ("standard", "slack", "stripe")]
each_scheme = pytest.mark.parametrize(("scheme", "secret", "headers", "body", "at"), VECTORS)
Headers = dict[str, str]


@each_scheme
def test_the_vendors_own_example_passes(
    scheme: str, secret: str, headers: Headers, body: bytes, at: int
) -> None:
    assert verify(Verification(scheme), [secret], headers, body, at) is not None


@each_scheme
def test_another_secret_does_not_pass(
    scheme: str, secret: str, headers: Headers, body: bytes, at: int
) -> None:
    other = "whsec_" + base64.b64encode(b"another one").decode()
    assert verify(Verification(scheme), [other], headers, body, at) is None


@each_scheme
def test_another_body_does_not_pass(
    scheme: str, secret: str, headers: Headers, body: bytes, at: int
) -> None:
    assert verify(Verification(scheme), [secret], headers, body + b" ", at) is None


@each_scheme
def test_without_a_secret_nothing_passes(
    scheme: str, secret: str, headers: Headers, body: bytes, at: int
) -> None:
    assert verify(Verification(scheme), [], headers, body, at) is None
    assert verify(Verification(scheme), [""], headers, body, at) is None


@each_scheme
def test_without_headers_nothing_passes(
    scheme: str, secret: str, headers: Headers, body: bytes, at: int
) -> None:
    assert verify(Verification(scheme), [secret], {}, body, at) is None


@each_scheme
def test_while_a_secret_is_replaced_both_pass(
    scheme: str, secret: str, headers: Headers, body: bytes, at: int
) -> None:
    new = "whsec_" + base64.b64encode(b"the new one").decode()
    assert verify(Verification(scheme), [new, secret], headers, body, at) is not None


@pytest.mark.parametrize(("scheme", "secret", "headers", "body", "at"), TIMED)
@pytest.mark.parametrize(
    ("away", "passes"), [(-301, False), (-300, True), (299, True), (300, True), (301, False)]
)
def test_a_signed_time_may_be_five_minutes_away(
    scheme: str, secret: str, headers: Headers, body: bytes, at: int, away: int, passes: bool
) -> None:
    found = verify(Verification(scheme), [secret], headers, body, at + away)
    assert (found is not None) is passes


@each_scheme
@given(data=st.data())
def test_no_changed_signature_passes(
    scheme: str, secret: str, headers: Headers, body: bytes, at: int, data: st.DataObject
) -> None:
    name = data.draw(st.sampled_from(sorted(headers)))
    text = headers[name]
    place = data.draw(st.integers(0, len(text) - 1))
    letter = data.draw(st.characters(exclude_categories=["Cs"], exclude_characters=text[place]))
    changed = {**headers, name: text[:place] + letter + text[place + 1 :]}
    proof = verify(Verification(scheme), [secret], changed, body, at)
    # Hex digits may be written large, a base64 text may end in unused bits, and a scheme ignores
    # what is not its own; but nothing may pass that is signed differently.
    if proof is not None:
        assert proof == verify(Verification(scheme), [secret], headers, body, at)


@given(
    scheme=st.sampled_from(SCHEMES[1:]),
    secret=st.text(max_size=20),
    values=st.lists(st.text(max_size=60), min_size=8, max_size=8),
    body=st.binary(max_size=40),
)
def test_whatever_is_sent_nothing_raises_and_nothing_passes(
    scheme: str, secret: str, values: list[str], body: bytes
) -> None:
    names = (
        "webhook-id",
        "webhook-timestamp",
        "webhook-signature",
        "stripe-signature",
        "x-slack-signature",
        "x-slack-request-timestamp",
        "x-hub-signature-256",
        "x-signature",
    )
    headers = dict(zip(names, values, strict=True))
    assert verify(Verification(scheme), [secret], headers, body, 1_700_000_000) is None


def test_more_signatures_than_anybody_needs_do_not_pass() -> None:
    good = "v1=654b43d3508ecadb3f8cefc4bc7d3d2bdc5ba9e03bf2c89b2d0657a8e24e4543"
    body, at = b'{"id":"evt_1","object":"event"}', 1492774577
    for count, passes in ((MOST_SIGNATURES, True), (MOST_SIGNATURES + 1, False)):
        others = ["v1=" + "0" * 64] * (count - 1)
        headers = {"stripe-signature": ",".join([f"t={at}", *others, good])}
        found = verify(Verification("stripe"), ["whsec_test_secret"], headers, body, at)
        assert (found is not None) is passes


def test_two_times_in_one_header_do_not_pass() -> None:
    headers = {
        "stripe-signature": "t=1492774577,t=1492774577,"
        "v1=654b43d3508ecadb3f8cefc4bc7d3d2bdc5ba9e03bf2c89b2d0657a8e24e4543"
    }
    body = b'{"id":"evt_1","object":"event"}'
    assert verify(Verification("stripe"), ["whsec_test_secret"], headers, body, 1492774577) is None


def test_an_id_with_a_dot_does_not_pass() -> None:
    key = base64.b64encode(b"key").decode()
    signature = base64.b64encode(hmac.digest(b"key", b"a.b.1.{}", "sha256")).decode()
    for name, stamp in (("a", "b.1"), ("a.b", "1")):
        headers = {
            "webhook-id": name,
            "webhook-timestamp": stamp,
            "webhook-signature": f"v1,{signature}",
        }
        assert verify(Verification("standard"), [f"whsec_{key}"], headers, b"{}", 1) is None


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("encoding", ["hex", "base64"])
def test_plain_hmac_has_the_header_algorithm_and_encoding_that_the_sender_has(
    algorithm: str, encoding: str
) -> None:
    digest = sign("s", b"body", algorithm)
    text = digest.hex() if encoding == "hex" else base64.b64encode(digest).decode()
    chosen = read_verification(
        {"scheme": "hmac", "header": "X-Hub-Sig", "algorithm": algorithm, "encoding": encoding}
    )
    assert verify(chosen, ["s"], {"x-hub-sig": f"{algorithm}={text}"}, b"body", 0) is not None
    assert verify(chosen, ["s"], {"x-signature": text}, b"body", 0) is None


def test_plain_hmac_signs_the_time_where_one_is_named() -> None:
    chosen = Verification("hmac", timestamp_header="x-time")
    headers = {"x-time": "1000", "x-signature": sign("s", b"1000.body").hex()}
    assert verify(chosen, ["s"], headers, b"body", 1000 + TOLERANCE) == Proof(timestamp="1000")
    assert verify(chosen, ["s"], headers, b"body", 1001 + TOLERANCE) is None
    assert verify(chosen, ["s"], {**headers, "x-time": "1001"}, b"body", 1000) is None


# --- which delivery is the same ------------------------------------------------------------------


def ids(scheme: str, now: float = 6_000, body: bytes = b"{}", **more: Any) -> tuple[str, str]:
    proof = more.get("proof", Proof())
    headers = more.get("headers", {})
    return event_ids(Verification(scheme), proof, headers, body, more.get("value"), now)


def test_a_signed_id_makes_a_delivery() -> None:
    first = ids("standard", proof=Proof("msg_1", "10"), body=b"1")
    assert first == ids("standard", proof=Proof("msg_1", "20"), body=b"2", now=99_999)
    assert first != ids("standard", proof=Proof("msg_2", "10"), body=b"1")


def test_the_event_in_a_signed_body_makes_a_delivery() -> None:
    proofs = [Proof(timestamp=at) for at in ("10", "99")]
    one, two = (ids("stripe", proof=proof, value={"id": "evt_1"}) for proof in proofs)
    assert one == two == ("event:evt_1", "")


def test_an_unsigned_id_makes_no_delivery() -> None:
    """Otherwise a captured request would start runs for ever, under new ids."""
    one = ids("github", headers={"x-github-delivery": "1"})
    assert one == ids("github", headers={"x-github-delivery": "2"})


def test_the_same_body_within_the_window_is_the_same_delivery() -> None:
    current, before = ids("github", now=6_000)
    assert ids("github", now=6_599)[0] == current
    assert ids("github", now=6_600)[1] == current  # the next span looks back at this one
    assert current not in ids("github", now=7_200)
    assert before != current


def test_a_window_of_nothing_lets_the_same_body_in_again() -> None:
    chosen = Verification("hmac", replay_window=0)
    assert event_ids(chosen, Proof(), {}, b"{}", {}, 0) == ("", "")


def test_an_open_address_counts_every_request_unless_the_sender_names_it() -> None:
    assert ids("none") == ("", "")
    assert ids("none", headers={"idempotency-key": "k"})[0] == "named:k"
    assert ids("none", headers={"webhook-id": "w"})[0] == "named:w"


# --- settings -------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_may_be_written_by_its_name_alone(scheme: str) -> None:
    assert read_verification(scheme) == read_verification({"scheme": scheme})


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ("hmca", "/scheme"),
        (3, ""),
        ({}, ""),
        ({"scheme": "hmac", "algorithm": "md5"}, "/algorithm"),
        ({"scheme": "hmac", "encoding": "utf8"}, "/encoding"),
        ({"scheme": "hmac", "header": 1}, "/header"),
        ({"scheme": "github", "replay_window": -1}, "/replay_window"),
        ({"scheme": "github", "secret": "s"}, "/secret"),
    ],
)
def test_a_wrong_setting_is_refused_with_its_place(value: Any, pointer: str) -> None:
    with pytest.raises(InputError) as caught:
        read_verification(value)
    assert caught.value.pointer == pointer


def test_no_setting_is_no_signature() -> None:
    assert read_verification(None).scheme == "none"


@pytest.mark.parametrize("secret", ["", "  ", "x" * 1001])
def test_a_useless_secret_is_refused(secret: str) -> None:
    with pytest.raises(InputError):
        check_secret("hmac", secret)


def test_a_standard_secret_is_base64() -> None:
    check_secret("standard", "whsec_" + base64.b64encode(hashlib.sha256().digest()).decode())
    with pytest.raises(InputError, match="whsec_"):
        check_secret("standard", "whsec_???")


def test_documents_may_say_of_a_verification_what_is_read_here() -> None:
    assert (triggers.SCHEMES, triggers.ALGORITHMS, triggers.ENCODINGS) == (
        SCHEMES,
        ALGORITHMS,
        ENCODINGS,
    )
    longest: dict[str, Any] = {"scheme": "hmac", "replay_window": triggers.MAX_REPLAY_WINDOW}
    for name in ("header", "prefix", "timestamp_header"):
        longest[name] = "x" * triggers.MAX_SHORT
    assert read_verification(longest).replay_window == triggers.MAX_REPLAY_WINDOW
    report = Report()
    config: dict[str, Any] = {"verification": longest}
    triggers.read_trigger("trigger_webhook", "hook", config, "", report)
    assert report.problems == []
    known = {field.name for field in fields(Verification)}
    assert known == longest.keys() | {"algorithm", "encoding"}
