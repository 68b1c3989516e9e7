"""Debezium's messages, as its documentation shows them, against the change records they are."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.debezium import Debezium, Ignored
from connectors.placeholder import Placeholder
from permaflow.changes import UNAVAILABLE, ChangeRecord, Rejected

GOLDEN = sorted((Path(__file__).parent / "golden" / "debezium").glob("*.json"))
DEFAULTS = {
    "source": "debezium",
    "before": None,
    "org": "",
    "snapshot": False,
    "unavailable": frozenset(),
    "cause": "",
}


def encode(document: Any) -> bytes | None:
    return None if document is None else orjson.dumps(document)


def decode(case: dict[str, Any], decoder: Debezium) -> ChangeRecord | Rejected | Ignored:
    return decoder.decode(
        encode(case["key"]), encode(case["value"]), case["topic"], case["partition"], case["offset"]
    )


def check(result: ChangeRecord | Rejected | Ignored, case: dict[str, Any]) -> None:
    match case["expected"]:
        case {"change": expected}:
            assert isinstance(result, ChangeRecord), result
            wanted = DEFAULTS | expected
            wanted["unavailable"] = frozenset(wanted["unavailable"])
            assert asdict(result) == wanted
            assert json.dumps(result.record) == json.dumps(expected["record"])
        case {"ignored": reason}:
            assert result == Ignored(reason)
        case {"rejected": words}:
            assert isinstance(result, Rejected), result
            assert words in result.reason
            assert result.raw == encode(case["value"])
            assert result.position == f"{case['topic']}:{case['partition']}:{case['offset']}"
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_message_becomes_the_change_record_beside_it(path: Path) -> None:
    case = json.loads(path.read_text())
    check(decode(case, Debezium()), case)


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_decoder_that_has_seen_the_schema_reads_the_message_alike(path: Path) -> None:
    case = json.loads(path.read_text())
    decoder = Debezium()
    decode(case, decoder)
    check(decode(case, decoder), case)


def test_a_changed_schema_of_the_same_topic_is_noticed() -> None:
    decoder = Debezium()
    typed = {"field": "at", "type": "int32", "name": "io.debezium.time.Date"}
    plain = {"field": "at", "type": "int32"}

    def message(column: dict[str, Any]) -> bytes:
        row = {"field": "after", "type": "struct", "fields": [column]}
        schema = {"type": "struct", "fields": [row]}
        payload = {"op": "c", "after": {"at": 1}, "source": {}}
        return orjson.dumps({"schema": schema, "payload": payload})

    def at(column: dict[str, Any]) -> Any:
        change = decoder.decode(None, message(column), "t", 0, 0)
        assert isinstance(change, ChangeRecord)
        return change.record["at"]

    found = [at(column) for column in (typed, typed, plain, typed)]
    assert found == ["1970-01-02", "1970-01-02", 1, "1970-01-02"]
    as_long = typed | {"name": "io.debezium.time.Time"}
    assert at(as_long) == "00:00:00.001"


def test_a_schema_that_talks_of_payloads_does_not_confuse_the_reader() -> None:
    decoder = Debezium()
    column = {"field": "x", "type": "string", "doc": {"a": 1, "payload": 2}}
    row = {"field": "after", "type": "struct", "fields": [column]}
    schema = {"type": "struct", "fields": [row]}
    value = orjson.dumps(
        {"schema": schema, "payload": {"op": "c", "after": {"x": ',"payload":'}, "source": {}}}
    )
    for _ in range(2):
        change = decoder.decode(None, value, "t", 0, 0)
        assert isinstance(change, ChangeRecord)
        assert change.record == {"x": ',"payload":'}


def test_the_same_change_has_the_same_id_at_another_offset() -> None:
    case = json.loads(next(p for p in GOLDEN if p.stem == "update_full").read_text())
    first = decode(case, Debezium())
    again = decode(case | {"offset": 999, "partition": 0}, Debezium())
    assert isinstance(first, ChangeRecord)
    assert isinstance(again, ChangeRecord)
    assert first.event_id == again.event_id


def test_the_id_is_the_same_whichever_converter_wrote_the_message() -> None:
    ids = set()
    for stem in ("create", "cloudevents", "cloudevents_schema", "schema_every_type"):
        case = json.loads(next(p for p in GOLDEN if p.stem == stem).read_text())
        change = decode(case, Debezium())
        assert isinstance(change, ChangeRecord)
        ids.add(change.event_id)
    assert len(ids) == 1


@pytest.mark.parametrize(
    "name",
    ["name", "lsn", "txId", "table", "schema"],
)
def test_another_change_has_another_id(name: str) -> None:
    case = json.loads(next(p for p in GOLDEN if p.stem == "create").read_text())
    other = json.loads(json.dumps(case))
    other["value"]["source"][name] = 1 if name in ("lsn", "txId") else "other"
    one, two = decode(case, Debezium()), decode(other, Debezium())
    assert isinstance(one, ChangeRecord)
    assert isinstance(two, ChangeRecord)
    assert one.event_id != two.event_id


def test_avro_is_refused_with_the_way_out() -> None:
    result = Debezium().decode(b"k", b"\x00\x00\x00\x00\x07abc", "t", 0, 9)
    assert isinstance(result, Rejected)
    assert "JSON converter" in result.reason


def test_an_integer_of_more_than_64_bits_in_a_plain_message_keeps_its_digits() -> None:
    change = Debezium().decode(None, b'{"n": 123456789012345678901234567890, "m": 1e20}', "t")
    assert isinstance(change, ChangeRecord)
    assert change.record == {"n": "123456789012345678901234567890", "m": 1e20}


def test_another_placeholder_can_be_agreed_on() -> None:
    value = orjson.dumps({"op": "u", "after": {"id": 1, "body": "N/A!"}, "source": {}})
    change = Debezium(placeholder=Placeholder("N/A!")).decode(None, value, "t")
    assert isinstance(change, ChangeRecord)
    assert (dict(change.record), change.unavailable) == ({"id": 1}, frozenset({"body"}))


@pytest.mark.parametrize(
    "form",
    [
        UNAVAILABLE,
        "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==",
        "5f5f646562657a69756d5f756e617661696c61626c655f76616c7565",
        ["b68a35a7-17ad-35b3-af2a-ae46edb4545a"],
        list(UNAVAILABLE.encode()),
        [float(byte) for byte in UNAVAILABLE.encode()],
        {UNAVAILABLE: UNAVAILABLE},
    ],
    ids=["text", "base64", "hex", "uuid", "integers", "doubles", "map"],
)
def test_every_form_of_the_placeholder_is_known_by_itself(form: Any) -> None:
    value = orjson.dumps({"op": "u", "after": {"id": 1, "body": form}, "source": {}})
    change = Debezium().decode(None, value, "t")
    assert isinstance(change, ChangeRecord)
    assert (dict(change.record), change.unavailable) == ({"id": 1}, frozenset({"body"}))


def test_source_and_organisation_are_those_the_decoder_was_made_with() -> None:
    change = Debezium("shop", org="acme").decode(None, b'{"id":1}', "t")
    assert isinstance(change, ChangeRecord)
    assert (change.source, change.org) == ("shop", "acme")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)
WORDS = """op before after source ts_ms schema payload data specversion fields type name field
    __op __deleted transaction iodebeziumop id table lsn"""
NAMES = st.sampled_from(WORDS.split())
SHAPED = st.recursive(JSON, lambda inner: st.dictionaries(NAMES, inner, max_size=6), max_leaves=8)


@given(key=SHAPED, value=SHAPED)
def test_no_message_makes_the_decoder_raise(key: Any, value: Any) -> None:
    raw = json.dumps(value).encode("utf-8", "surrogatepass")
    result = Debezium().decode(json.dumps(key).encode("utf-8", "surrogatepass"), raw, "t", 0, 0)
    assert isinstance(result, ChangeRecord | Rejected | Ignored)
    if isinstance(result, ChangeRecord):
        texts = (result.object, result.namespace, result.key, result.event_id, result.event)
        assert all(type(text) is str for text in texts)
        assert type(result.at) is int
        assert type(result.record) is dict
        assert type(result.before) in (dict, type(None))


@given(st.binary(min_size=1, max_size=40))
def test_bytes_that_are_no_json_are_rejected_as_they_came(raw: bytes) -> None:
    try:
        orjson.loads(raw)
    except orjson.JSONDecodeError:
        result = Debezium().decode(None, raw, "t", 1, 2)
        assert isinstance(result, Rejected)
        assert (result.raw, result.position) == (raw, "t:1:2")
