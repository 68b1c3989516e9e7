"""What a step gives back holds no secret that it was given, however it is spelt."""

from __future__ import annotations

import base64
import json
from urllib.parse import quote, quote_plus

import pytest

from permaflow.task import Done, Park, Reject, Retry
from pipeline.redaction import redacted, redacted_text

SECRET = 'k3y/with "odd" signs+ü'


@pytest.mark.parametrize(
    "spelt",
    [
        SECRET,
        quote(SECRET),
        quote(SECRET, safe=""),
        quote_plus(SECRET),
        json.dumps(SECRET, ensure_ascii=False),
        SECRET.encode().hex(),
        SECRET.encode().hex().upper(),
    ],
)
def test_every_spelling_is_found_in_the_midst_of_a_text(spelt: str) -> None:
    cleaned = redacted_text(f"before {spelt} after", [SECRET])
    assert "[secret]" in cleaned
    assert spelt not in cleaned
    assert cleaned.startswith("before ")
    assert cleaned.endswith(" after")


@pytest.mark.parametrize("before", ["", "a", "ab", "user:"])
@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
def test_base64_is_found_wherever_it_begins(before: str, encode) -> None:
    encoded = encode(f"{before}{SECRET}|rest".encode()).decode()
    cleaned = redacted_text(f"Basic {encoded}", [SECRET])
    assert "[secret]" in cleaned
    kept = cleaned.removeprefix("Basic ").replace("[secret]", "")
    assert len(kept) < len(encoded) - len(encode(SECRET.encode())) + 8


def test_everything_that_a_verdict_tells_is_cleaned() -> None:
    nested = {"a": [f"x{SECRET}", {SECRET: 1}], "n": 1, "t": ("y", SECRET)}
    clean = {"a": ["x[secret]", {"[secret]": 1}], "n": 1, "t": ["y", "[secret]"]}

    assert redacted(Done(nested, "port"), [SECRET]) == Done(clean, "port")
    assert redacted(Retry(SECRET, details=nested), [SECRET]) == Retry("[secret]", details=clean)
    assert redacted(Reject(SECRET, details=nested), [SECRET]) == Reject("[secret]", details=clean)
    assert redacted(Retry("m"), [SECRET]) == Retry("m")
    assert isinstance(redacted(Reject("m", "c"), [SECRET]), Reject)


def test_what_puts_a_step_off_is_cleaned_too() -> None:
    from datetime import timedelta

    again = timedelta(seconds=1)
    assert redacted(Park(SECRET, again), [SECRET]) == Park("[secret]", again)


def test_the_longer_of_two_secrets_goes_first() -> None:
    assert redacted_text("abcdefgh abcd", ["abcd", "abcdefgh"]) == "[secret] [secret]"


def test_without_a_secret_nothing_is_touched() -> None:
    output = {"a": "b"}
    verdict = Done(output)
    assert redacted(verdict, []) is verdict
    assert redacted(verdict, ["abc"]) is verdict  # too short to be one
