from __future__ import annotations

import json
import math

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from permaflow.errors import InputError, LimitError
from permaflow.plan import Json
from specs.json_limits import check_json_bytes, shape_problems
from specs.reading import Report


def problems(value: Json) -> list[tuple[str, str]]:
    report = Report()
    shape_problems(value, report)
    return [(problem.pointer, problem.code) for problem in report.problems]


def nested(depth: int) -> Json:
    value: Json = 1
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "raw",
    [
        b'{"a":[1,2.5,null,true,"x"]}',
        b"18446744073709551615",
        b"-9223372036854775808",
        b"1e308",
        b'"12345678901234567890123456789"',
        b'"quoted \\" 12345678901234567890123"',
        b'"\\\\u0000"',
        b'"\\ud83d\\ude00"',
        b'"' + b"[" * 1000 + b'"',
        b"[" + b"[]," * 1000 + b"[]]",
        b"[" * 64 + b"]" * 64,
    ],
)
def test_ordinary_json_is_parsed(raw: bytes) -> None:
    assert check_json_bytes(raw) == json.loads(raw)


@pytest.mark.parametrize(
    ("raw", "kind", "pointer", "said"),
    [
        (b"[" * 65 + b"]" * 65, LimitError, "/0" * 64, "64 levels"),
        (b"[" * 100_000, LimitError, "", "64 levels"),
        (b'{"a":' * 5_000, LimitError, "", "64 levels"),
        (b'{"a":[0,18446744073709551616]}', InputError, "/a/1", "64 bits"),
        (b'{"a/b":-9223372036854775809}', InputError, "/a~1b", "64 bits"),
        (b"9" * 10_000, InputError, "", "too large"),
        (b"0." + b"9" * 10_000, InputError, "", "digits"),
        (b"[1e999]", InputError, "", "too large"),
        (b"-1e999", InputError, "", "too large"),
        (b"NaN", InputError, "", "not JSON"),
        (b"[Infinity]", InputError, "", "not JSON"),
        (b'{"a":"x\\u0000"}', InputError, "/a", "NUL"),
        (b'{"a\\u0000":1}', InputError, "", "NUL"),
        (b'"\\ud800"', InputError, "", "surrogates"),
        (b'"\xff"', InputError, "", "UTF-8 (line 1, column 2)"),
        (b'{"a":\n "\xc3\xa4\xe4"}', InputError, "", "UTF-8 (line 2, column 4)"),
        (b"\xef\xbb\xbf{}", InputError, "", "byte order mark"),
        (b'"\xed\xa0\x80"', InputError, "", "UTF-8"),
        (b"", InputError, "", "nothing"),
        (b"[1,]", InputError, "", "line 1, column 3"),
        (b"{'a':1}", InputError, "", "not JSON"),
    ],
)
def test_what_no_part_can_carry_is_refused(
    raw: bytes, kind: type[InputError], pointer: str, said: str
) -> None:
    with pytest.raises(InputError) as caught:
        check_json_bytes(raw)
    assert type(caught.value) is kind
    assert caught.value.pointer == pointer
    assert said in str(caught.value)


def test_a_body_has_a_size() -> None:
    assert check_json_bytes(b'"12345678"', max_bytes=10) == "12345678"
    with pytest.raises(LimitError, match="11 bytes"):
        check_json_bytes(b'"123456789"', max_bytes=10)


def test_of_two_members_with_the_same_name_the_last_counts() -> None:
    assert check_json_bytes(b'{"a":1,"a":2}') == {"a": 2}


def test_every_fault_of_a_parsed_value_is_told_with_its_pointer() -> None:
    value = {
        "a": [math.nan, 2**64, -(2**63) - 1, "\0"],
        "b\ud800": 1,
        "c": {"d": "\udfff", "e": math.inf},
        "fine": [1.5, "ü", 2**64 - 1, None, True],
    }
    assert sorted(problems(value)) == [
        ("", "bad_text"),
        ("/a/0", "bad_number"),
        ("/a/1", "bad_number"),
        ("/a/2", "bad_number"),
        ("/a/3", "bad_text"),
        ("/c/d", "bad_text"),
        ("/c/e", "bad_number"),
    ]


def test_nesting_ends_at_64_levels() -> None:
    assert problems(nested(64)) == []
    assert problems(nested(65)) == [("/0" * 64, "too_deep")]
    assert problems(nested(200_000)) == [("/0" * 64, "too_deep")]


def test_what_is_no_json_is_told() -> None:
    assert problems({"a": {1, 2}}) == [("/a", "not_json")]
    assert problems({5: "x"}) == [("", "not_json")]


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=20,
)


@given(values)
def test_bytes_and_parsed_values_have_the_same_limits(value: Json) -> None:
    raw = json.dumps(value).encode()
    if problems(value):
        with pytest.raises(InputError):
            check_json_bytes(raw)
    else:
        assert check_json_bytes(raw) == value


@given(st.binary(max_size=60) | st.text(alphabet='[]{}",:\\u0019eE.-', max_size=60).map(str.encode))
def test_any_bytes_are_json_or_an_input_error(raw: bytes) -> None:
    try:
        value = check_json_bytes(raw)
    except InputError:
        return
    assert problems(value) == []
    assert orjson.loads(raw) == value
