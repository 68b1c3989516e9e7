"""Expressions: what they mean, what they refuse, and that they agree with another CEL."""

from __future__ import annotations

import json
import time
from typing import Any

import cel
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from permaflow.errors import DocumentError, EvaluationError
from permaflow.plan import Json
from specs.branching import read_expression
from specs.expressions import compile_expression
from specs.reading import Report
from specs.templates import compile_config, render

ORDER = {
    "amount": 7.5,
    "count": 3,
    "name": "Ann",
    "paid": True,
    "note": None,
    "$id": "o1",
    "lines": [{"sku": "a", "qty": 1}, {"sku": "b", "qty": 5}],
    "made": "2026-03-01T10:30:00+02:00",
}
CONTEXT: dict[str, Any] = {
    "trigger": {"event": "created", "record": ORDER},
    "steps": {"check-it": {"output": {"ok": True}}},
    "loop": {"item": 2, "index": 0},
    "run": {"id": "r1"},
}


def value_of(source: str, **more: Json) -> Json:
    return compile_expression(source).evaluate({**CONTEXT, **more})


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("trigger.record.amount > 5 && trigger.record.paid", True),
        ("trigger.record.amount * 2", 15.0),
        ("trigger.record.count * 2", 6),
        ('"Hello " + trigger.record.name', "Hello Ann"),
        ('"Order " + trigger.record.count + "/" + 2.0', "Order 3/2"),
        ('steps["check-it"].output.ok', True),
        ("trigger.record.$id", "o1"),
        ("trigger.record.lines.1.sku", "b"),
        ("trigger.record.lines[1].qty", 5),
        ("trigger.record.lines[loop.index].sku", "a"),
        ("trigger.record.lines.filter(l, l.qty > 2).map(l, l.sku)", ["b"]),
        ("trigger.record.lines.map(l, l.qty > 2, l.qty * 10)", [50]),
        ("trigger.record.lines.exists(l, l.qty == 5)", True),
        ("trigger.record.lines.all(l, l.qty > 2)", False),
        ("trigger.record.lines.exists_one(l, l.qty > 2)", True),
        ("size(trigger.record.lines) == 2 ? 'two' : 'other'", "two"),
        ("sum(trigger.record.lines.map(l, l.qty))", 6),
        ("has(trigger.record.name)", True),
        ("has(trigger.record.none.at.all)", False),
        ("has(trigger.record.none) && trigger.record.none > 1", False),
        ("trigger.record.none > 1 || true", True),
        ("trigger.record.note == null", True),
        ("'created' in [trigger.event]", True),
        ("'name' in trigger.record", True),
        ("trigger.record.name.matches('^A.*n$')", True),
        ("trigger.record.name.lowerAscii().contains('nn')", True),
        ("1 == 1.0 && 1 != true", True),
        ("7 / 2", 3),
        ("-7 / 2", -3),
        ("-7 % 3", -1),
        ("7.0 / 2", 3.5),
        ("2 + 3 * 4 - 1", 13),
        ("!(1 > 2) && -(-1) == 1", True),
        ('{"a": {"b": [1, 2]}}.a.b[1]', 2),
        ("string(7.0) + string(true) + string(1.5)", "7true1.5"),
        ("int('42') + int(1.9)", 43),
        ("18446744073709551615 / 1", 2**64 - 1),
        ("'' + 1e15", "1000000000000000"),
        ("'Straße'.upperAscii() + 'ÄB'.lowerAscii()", "STRAßEÄb"),
        ("double('1e3') + double('.5') + double('-2.')", 998.5),
        ("double('1.5') * 2", 3.0),
        (r"'it\'s \u00e9 ' + r'\d'", "it's é \\d"),
        ("timestamp(trigger.record.made) < timestamp('2026-03-02T00:00:00Z')", True),
        ("timestamp(trigger.record.made) + duration('1h30m')", "2026-03-01T10:00:00Z"),
        ("timestamp(trigger.record.made).getHours('Europe/Berlin')", 9),
        ("timestamp('2026-03-02') - timestamp('2026-03-01')", 86400.0),
        ("[1, 2] + [3]", [1, 2, 3]),
        ("'a,b'.split(',').join('-')", "a-b"),
        ("math.round(2.5) + math.floor(-0.5)", 2.0),
        ("loop.item // the item\n + 1", 3),
    ],
)
def test_what_an_expression_gives(source: str, value: Json) -> None:
    found = value_of(source)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("source", "character", "said"),
    [
        ("trigger.record.amount >", 24, "expected a value"),
        ("triger.record.amount > 1", 1, "did you mean `trigger`"),
        ("trigger.a and trigger.b", 11, "write `&&`"),
        ("trigger.a = 1", 11, "write `==`"),
        ("trigger.a & trigger.b", 11, "write `&&`"),
        ("(1 + 2", 7, "expected `)`"),
        ("now()", 1, "the same value whenever"),
        ("uper('a')", 1, "there is no function"),
        ("size()", 1, "takes 1"),
        ("'abc", 1, "never closed"),
        ("'a'.matches('(?=x)')", 13, "look-around"),
        ("trigger.list.map(trigger, 1)", 14, "choose another name"),
        ("trigger.list.map(1, 2)", 14, "wants a name for each item"),
        ("has(1)", 1, "wants one member"),
        ("99999999999999999999", 1, "64 bits"),
        ("'\\u0000'", 1, "no character that text may hold"),
        ("(" * 50 + "1" + ")" * 50, 42, "nested"),
        ("!" * 60 + "true", 42, "too many"),
        ("1 + " * 2_000 + "1", 4_097, "4,096 characters"),
        ("", 1, "empty"),
    ],
)
def test_a_wrong_expression_is_refused_with_its_place(
    source: str, character: int, said: str
) -> None:
    with pytest.raises(DocumentError) as caught:
        compile_expression(source)
    [problem] = caught.value.problems
    assert problem.code == "bad_expression"
    assert problem.at == character - 1
    assert said.lower() in problem.message.lower()


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("trigger.record.amout > 1", "`record` has no `amout`; it has amount"),
        ("trigger.record.lines.map(l, l.price)", "the object has no `price`; it has sku, qty"),
        ("trigger.record.name > 1", "`>` cannot compare text with a number (character 21"),
        ("trigger.record.name && true", "`&&` wants true or false"),
        ("'a' + null", "cannot add null to text"),
        ("trigger.record.count / 0", "divides by nothing"),
        ("18446744073709551615 + 1", "64 bits"),
        ("18446744073709551615 / -1", "64 bits"),
        ("timestamp('0001-01-01T00:00:00+10:00')", "outside of the years 1 to 9999"),
        ("timestamp('9999-12-31T23:00:00-05:00')", "outside of the years 1 to 9999"),
        ("timestamp('0001-01-01T12:00:00+10:00') - duration('5h')", "the years 1 to 9999"),
        ("double('nan')", "cannot make a number of `nan`"),
        ("double('1_000')", "cannot make a number of `1_000`"),
        ("1.0e308 * 10", "too large"),
        ("int('x')", "`int` cannot make a whole number of `x`"),
        ("timestamp('soon')", "`soon` is no time"),
        ("steps", "go on, as in `steps.output`"),
        ("timestamp('9999-12-31') + duration('48h')", "the years 1 to 9999"),
    ],
)
def test_an_expression_without_a_value_says_why(source: str, said: str) -> None:
    class Steps:
        def get(self, name: str, default: Json = None) -> Json:
            return default

    with pytest.raises(EvaluationError) as caught:
        value_of(source, steps=Steps())
    assert said.lower() in str(caught.value).lower()


def test_what_an_expression_costs_is_bounded_and_the_bound_is_no_clock() -> None:
    rows = [{"a": number} for number in range(20_000)]
    small = "trigger.rows.filter(r, r.a % 2 == 0)"
    assert len(value_of(small, trigger={"rows": rows})) == 10_000
    for bomb in (
        "trigger.rows.exists(x, trigger.rows.exists(y, y.a == -1))",
        "trigger.rows.all(x, x.a != size(trigger.rows.map(y, y.a)))",
        "trigger.rows.exists(x, trigger.rows == trigger.rows + [1])",
        "trigger.rows.map(x, trigger.rows)",
    ):
        began = time.perf_counter()
        with pytest.raises(EvaluationError, match=r"500,000 steps|4,000,000 bytes"):
            value_of(bomb, trigger={"rows": rows})
        assert time.perf_counter() - began < 2


def test_text_that_grows_is_stopped() -> None:
    text = "x" * 500_000
    with pytest.raises(EvaluationError, match="longer than"):
        value_of("trigger.t + trigger.t + trigger.t", trigger={"t": text})
    with pytest.raises(EvaluationError, match=r"steps|longer"):
        value_of("trigger.t.replace('x', trigger.t)", trigger={"t": text})


def test_only_what_is_mentioned_is_looked_at() -> None:
    class Picky:
        def get(self, name: str, default: Json = None) -> Json:
            assert name == "trigger", name
            return {"a": 1}

    assert compile_expression("trigger.a + 1").evaluate(Picky()) == 2


def test_an_expression_in_a_template_keeps_its_type() -> None:
    config = {
        "total": "{{= sum(trigger.record.lines.map(l, l.qty)) }}",
        "text": "{{= trigger.record.name.upperAscii() }}: {{= 1 + 1}} of {{trigger.record.count}}",
        "made": ['{{= {"a": {"b": "}}"}} }}'],
    }
    assert render(compile_config(config), CONTEXT) == {
        "total": 6,
        "text": "ANN: 2 of 3",
        "made": [{"a": {"b": "}}"}}],
    }


def test_a_wrong_expression_in_a_template_is_told_where_it_stands() -> None:
    for text, at in (("Hi {{= trigger.a + }}", 19), ("Hi {{= 1 ~ 2 }}", 9), ("x {{= 1 ", 2)):
        with pytest.raises(DocumentError) as caught:
            compile_config({"text": text})
        [problem] = caught.value.problems
        assert (problem.pointer, problem.at) == ("/text", at)


def test_a_config_that_expressions_make_too_large_has_no_value() -> None:
    big = {"rows": ["x" * 1_000] * 3_000}
    config = compile_config({str(number): "{{= trigger.rows + [1] }}" for number in range(20)})
    with pytest.raises(EvaluationError, match="16 MB"):
        render(config, {"trigger": big})


def test_a_condition_may_be_an_expression() -> None:
    report = Report()
    test = read_expression("trigger.record.amount > 7 && loop.item == 2", "/c", report)
    assert test is not None
    assert test.evaluate(CONTEXT) is True
    nested = read_expression({"any": ["false", {"not": "trigger.record.paid"}]}, "/c", report)
    assert nested is not None
    assert nested.evaluate(CONTEXT) is False
    assert not report.problems
    number = read_expression("trigger.record.count", "/c", report)
    assert number is not None
    with pytest.raises(EvaluationError, match="not true or false"):
        number.evaluate(CONTEXT)


# --- agreement with another implementation --------------------------------------------------------

whole = st.integers(-50, 50)
# CEL counts characters; the other implementation counts bytes, hence ASCII alone.
word = st.text("ab'\"\\ ", max_size=4)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


leaf_int = st.one_of(whole.map(lambda n: f"({n})"), st.sampled_from(["trigger.i", "trigger.xs[1]"]))
leaf_str = st.one_of(word.map(quoted), st.sampled_from(["trigger.s", "trigger.o.s"]))
leaf_bool = st.sampled_from(["true", "false", "trigger.b", "trigger.none"])
leaf_list = st.sampled_from(["trigger.xs", "[]", "[1, 2, 3]", "[trigger.i]"])
numbers: Any = st.deferred(
    lambda: st.one_of(
        leaf_int,
        st.tuples(numbers, st.sampled_from("+-*/%"), numbers).map(lambda t: f"({' '.join(t)})"),
        st.tuples(numbers, st.sampled_from("+-"), numbers, st.sampled_from("*/%"), numbers).map(
            lambda t: f"({' '.join(t)})"
        ),
        numbers.map(lambda n: f"-{n}"),
        lists.map(lambda n: f"size({n})"),
        texts.map(lambda n: f"{n}.size()"),
        st.tuples(truths, numbers, numbers).map(lambda t: f"({t[0]} ? {t[1]} : {t[2]})"),
    )
)
texts: Any = st.deferred(
    lambda: st.one_of(
        leaf_str,
        st.tuples(texts, texts).map(lambda t: f"({t[0]} + {t[1]})"),
        numbers.map(lambda n: f"string({n})"),
    )
)
lists: Any = st.deferred(
    lambda: st.one_of(
        leaf_list,
        st.tuples(lists, lists).map(lambda t: f"({t[0]} + {t[1]})"),
        st.tuples(lists, truths).map(lambda t: f"{t[0]}.filter(x, x > 1 || {t[1]})"),
        st.tuples(lists, numbers).map(lambda t: f"{t[0]}.map(y, y * {t[1]})"),
    )
)
truths: Any = st.deferred(
    lambda: st.one_of(
        leaf_bool,
        st.tuples(truths, st.sampled_from(["&&", "||"]), truths).map(lambda t: f"({' '.join(t)})"),
        st.tuples(truths, st.just("||"), truths, st.just("&&"), truths)
        .map(" ".join)
        .map(lambda t: f"({t})"),
        truths.map(lambda t: f"!{t}"),
        st.tuples(numbers, st.sampled_from(["<", "<=", "==", "!=", ">", ">="]), numbers).map(
            lambda t: f"({' '.join(t)})"
        ),
        st.tuples(texts, st.sampled_from(["<", "==", ">="]), texts).map(
            lambda t: f"({' '.join(t)})"
        ),
        st.tuples(texts, texts).map(lambda t: f"{t[0]}.contains({t[1]})"),
        st.tuples(numbers, lists).map(lambda t: f"({t[0]} in {t[1]})"),
        st.tuples(lists, numbers).map(lambda t: f"{t[0]}.all(z, z < {t[1]})"),
        st.tuples(lists, numbers).map(lambda t: f"{t[0]}.exists(z, z == {t[1]})"),
        st.just("has(trigger.o.s)"),
        st.just("has(trigger.o.x)"),
    )
)
DATA = {"i": 7, "s": "ab", "b": True, "xs": [3, 1, 4, 1, 5], "o": {"s": "z"}}


@given(st.one_of(numbers, texts, lists, truths))
@example("(1 + trigger.none)")
@settings(max_examples=400, deadline=None)
def test_expressions_agree_with_another_implementation_of_cel(source: str) -> None:
    assume(len(source) <= 4_000)
    try:
        ours: Json = compile_expression(source).evaluate({"trigger": DATA})
    except DocumentError as error:
        assume("nested" not in str(error) and "in a row" not in str(error))
        raise
    except EvaluationError:
        ours = EvaluationError
    try:
        theirs = cel.compile(source).execute({"trigger": DATA})
    except OverflowError:
        return
    except Exception:
        theirs = EvaluationError
    assert ours == theirs, source
    assert type(ours) is type(theirs)


@given(st.text("()[]{}.,:?!&|=<>+-*/%'\"\\ \nabtriger0123$xmphas", max_size=60))
@settings(max_examples=500, deadline=None)
def test_no_text_makes_the_compiler_raise_anything_else(text: str) -> None:
    try:
        formula = compile_expression(text)
    except DocumentError:
        return
    try:
        json.dumps(formula.evaluate({"trigger": DATA}))
    except EvaluationError:
        pass
