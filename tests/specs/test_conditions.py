from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permaflow.changes import CREATED, DELETED, UNAVAILABLE, UPDATED, ChangeRecord
from permaflow.errors import DocumentError
from permaflow.plan import Condition, Json
from specs.comparing import OPERATORS, same
from specs.conditions import compile_condition, compile_test, compile_tests


def change(
    record: dict[str, Any],
    before: dict[str, Any] | None = None,
    event: str = UPDATED,
    unavailable: frozenset[str] = frozenset(),
) -> ChangeRecord:
    return ChangeRecord("s", "1", "orders", event, record, before, unavailable=unavailable)


def holds(field: str, op: str, value: Json, record: dict[str, Any]) -> bool | None:
    condition = compile_condition({"field": field, "op": op, "value": value})
    return compile_test(condition)(change(record))


@pytest.mark.parametrize(
    ("found", "op", "value", "result"),
    [
        (101, "gt", 100, True),
        (100, "gt", 100, False),
        (100.0, "eq", 100, True),
        (100, "gte", 100.0, True),
        (1, "lt", 2, True),
        (2, "lte", 2, True),
        ("100", "eq", 100, False),
        ("200", "gt", 100, False),
        (True, "eq", 1, False),
        (True, "eq", True, True),
        (True, "gt", 0, False),
        (None, "eq", None, True),
        (None, "lt", 5, False),
        ("b", "gt", "a", True),
        ("paid", "ne", "open", True),
        ("paid", "ne", "paid", False),
        ("paid", "in", ["open", "paid"], True),
        (1, "in", [1.0, "x"], True),
        (True, "in", [1], False),
        ("x", "not_in", ["a"], True),
        ("hello", "contains", "ell", True),
        (["a", 1], "contains", 1.0, True),
        ({"k": 1}, "contains", "k", True),
        (5, "contains", 5, False),
        ("hello", "not_contains", "x", True),
        ("hello", "starts_with", "he", True),
        (5, "starts_with", "5", False),
        ("hello", "ends_with", "lo", True),
        ("hello", "exists", None, True),
        ("hello", "exists", False, False),
        (None, "exists", None, True),
        ("hello", "not_exists", None, False),
        (None, "is_null", None, True),
        ("", "is_null", None, False),
        ("", "is_null", False, True),
        ("SKU-12", "matches", "^SKU-[0-9]+$", True),
        ("SKU-x", "matches", "^SKU-[0-9]+$", False),
        (12, "matches", "12", False),
        ([1, {"a": True}], "eq", [1.0, {"a": True}], True),
        ([1], "eq", [True], False),
        ("2026-01-02", "gt", "2026-01-01", True),
        ("2026-01-01T01:00:00+02:00", "lt", "2026-01-01T00:00:00Z", True),
        ("2026-01-01T02:00:00+02:00", "eq", "2026-01-01T00:00:00Z", True),
        ("2026-01-01", "lte", "2026-01-01T00:00:00Z", True),
        ("not a date", "gt", "2026-01-01T00:00:00Z", True),
    ],
)
def test_what_the_operators_mean(found: Json, op: str, value: Json, result: bool) -> None:
    assert holds("field", op, value, {"field": found}) is result


@pytest.mark.parametrize(
    ("op", "value", "result"),
    [
        ("eq", 1, False),
        ("eq", None, True),
        ("ne", 1, True),
        ("gt", 1, False),
        ("in", [1], False),
        ("not_in", [1], True),
        ("contains", "a", False),
        ("not_contains", "a", True),
        ("exists", None, False),
        ("not_exists", None, True),
        ("is_null", None, True),
        ("matches", "", False),
    ],
)
def test_a_field_that_is_not_there_counts_as_null(op: str, value: Json, result: bool) -> None:
    assert holds("absent", op, value, {"field": 1}) is result
    assert holds("field.deeper", op, value, {"field": 1}) is result


def test_fields_are_paths() -> None:
    record = {"address": {"city": "Rome"}, "items": [{"id": 5}]}
    assert holds("address.city", "eq", "Rome", record) is True
    assert holds("items.0.id", "eq", 5, record) is True
    assert holds("items[0].id", "eq", 5, record) is True
    assert holds("items[1].id", "eq", 5, record) is False


def test_signs_stand_for_operators() -> None:
    assert compile_condition({"field": "a", "op": ">=", "value": 1}) == Condition(("a",), "gte", 1)


def test_before_looks_at_the_record_before_the_change() -> None:
    test = compile_test(Condition(("before", "status"), "eq", "open"))
    assert test(change({"status": "paid"}, {"status": "open"})) is True
    assert test(change({"status": "open"}, {"status": "paid"})) is False
    assert test(change({"status": "open"}, None)) is None
    assert test(change({"status": "open"}, None, CREATED)) is False


@pytest.mark.parametrize(
    ("op", "value", "old", "new", "result"),
    [
        ("changed", None, {"s": 1}, {"s": 2}, True),
        ("changed", None, {"s": 1}, {"s": 1.0}, False),
        ("changed", None, {}, {"s": 1}, True),
        ("changed_to", "paid", {"s": "open"}, {"s": "paid"}, True),
        ("changed_to", "paid", {"s": "paid"}, {"s": "paid"}, False),
        ("changed_to", "paid", {"s": "open"}, {"s": "void"}, False),
        ("changed_from", "open", {"s": "open"}, {"s": "paid"}, True),
        ("changed_from", "open", {"s": "open"}, {"s": "open"}, False),
    ],
)
def test_changes_compare_the_record_with_what_it_was(
    op: str, value: Json, old: dict[str, Any], new: dict[str, Any], result: bool
) -> None:
    assert compile_test(Condition(("s",), op, value))(change(new, old)) is result


def test_a_creation_changes_every_field_and_a_deletion_none() -> None:
    changed = compile_test(Condition(("s",), "changed"))
    assert changed(change({"s": 1}, None, CREATED)) is True
    assert changed(change({"s": 1}, {"s": 2}, DELETED)) is False
    to_paid = compile_test(Condition(("s",), "changed_to", "paid"))
    assert to_paid(change({"s": "paid"}, None, CREATED)) is True


def test_what_changed_is_unknown_without_the_record_before() -> None:
    for op in ("changed", "changed_from", "changed_to"):
        assert compile_test(Condition(("s",), op, 1))(change({"s": 1})) is None


@pytest.mark.parametrize("op", sorted(OPERATORS))
def test_a_value_that_the_source_did_not_send_is_unknown(op: str) -> None:
    value: Json = ["a"] if op in ("in", "not_in") else "a"
    for path in (("body",), ("body", "deep")):
        test = compile_test(Condition(path, op, value))
        named = change({"body": "x"}, {"body": "x"}, unavailable=frozenset({"body"}))
        assert test(named) is None
    marked = change({"body": UNAVAILABLE}, {"body": "x"})
    assert compile_test(Condition(("body",), op, value))(marked) is None


def test_all_conditions_must_hold_and_false_beats_unknown() -> None:
    yes, no = Condition(("a",), "eq", 1), Condition(("a",), "eq", 2)
    unknown = Condition(("body",), "eq", 1)
    record = change({"a": 1, "body": UNAVAILABLE})
    assert compile_tests([])(record) is True
    assert compile_tests([yes, yes])(record) is True
    assert compile_tests([yes, unknown])(record) is None
    assert compile_tests([unknown, no])(record) is False
    assert compile_tests([no])(record) is False


@pytest.mark.parametrize(
    ("condition", "pointer", "said"),
    [
        ({"field": "a", "op": "gtt", "value": 1}, "/op", "did you mean `gt`"),
        ({"field": "a", "op": "gt"}, "", "`value` is missing"),
        ({"field": "a", "op": "gt", "value": [1]}, "/value", "a number or a string"),
        ({"field": "a", "op": "in", "value": "x"}, "/value", "an array"),
        ({"field": "a", "op": "matches", "value": "(?=x)"}, "/value", "look-around"),
        ({"field": "a", "op": "matches", "value": r"(a)\1"}, "/value", "back-references"),
        ({"field": "a", "op": "matches", "value": "a{1000}{1000}"}, "/value", "huge repeats"),
        ({"op": "eq", "value": 1}, "", "`field` is missing"),
        ({"field": "a..b", "op": "eq", "value": 1}, "/field", "is no path"),
        ({"field": "trigger.record.a", "op": "eq", "value": 1}, "/field", "write `a`"),
        ({"field": "a", "op": "eq", "valu": 1, "value": 1}, "/valu", "did you mean `value`"),
        (["a", "eq", 1], "", "an array"),
    ],
)
def test_a_bad_condition_says_what_to_do(condition: Json, pointer: str, said: str) -> None:
    with pytest.raises(DocumentError) as caught:
        compile_condition(condition)
    [problem] = caught.value.problems
    assert problem.pointer == pointer
    assert said in problem.message


def test_patterns_take_linear_time() -> None:
    test = compile_test(Condition(("a",), "matches", "^(a+)+$"))
    assert test(change({"a": "a" * 50_000 + "b"})) is False


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
    | st.dates().map(str)
    | st.datetimes().map(lambda at: at.isoformat())
)
values = scalars | st.lists(scalars, max_size=3) | st.dictionaries(st.text(), scalars, max_size=2)


@given(st.sampled_from(sorted(OPERATORS)), values, values, values)
def test_no_pair_of_values_makes_an_operator_raise(
    op: str, found: Json, old: Json, value: Json
) -> None:
    test = compile_test(Condition(("a",), op, value))
    assert test(change({"a": found}, {"a": old})) in (True, False)


@given(values, values)
def test_a_value_differs_or_is_the_same_and_never_both(left: Json, right: Json) -> None:
    record = {"a": left}
    assert holds("a", "eq", right, record) is not holds("a", "ne", right, record)
    assert same(left, left)
