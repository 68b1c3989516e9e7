from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permaflow.changes import UNAVAILABLE
from permaflow.errors import EvaluationError
from permaflow.plan import Json
from specs.branching import read_expression
from specs.reading import Report

CONTEXT: dict[str, Any] = {
    "trigger": {
        "event": "updated",
        "record": {"amount": 150, "limit": 100, "status": "paid", "body": UNAVAILABLE},
        "before": {"amount": 150, "status": "open"},
    },
    "steps": {"check": {"output": {"ok": True, "nothing": None, "word": "yes"}}},
}
OVER = {"field": "trigger.record.amount", "op": "gt", "value": 100}
UNDER = {"field": "trigger.record.amount", "op": "lt", "value": 100}


def decide(value: Json, context: dict[str, Any] = CONTEXT) -> bool:
    report = Report()
    expression = read_expression(value, "", report)
    assert not report.problems
    assert expression is not None
    found = expression.evaluate(context)
    assert type(found) is bool
    return found


@pytest.mark.parametrize(
    ("condition", "result"),
    [
        (OVER, True),
        (UNDER, False),
        ([OVER, UNDER], False),
        ([OVER, OVER], True),
        ({"all": [OVER, UNDER]}, False),
        ({"any": [UNDER, OVER]}, True),
        ({"not": UNDER}, True),
        ({"not": {"any": [UNDER, {"all": [OVER, OVER]}]}}, False),
        (True, True),
        (False, False),
        ("{{steps.check.output.ok}}", True),
        ("{{steps.check.output.nothing}}", False),
        ("{{steps.check.output.absent?}}", False),
        ({"field": "{{ trigger.record.amount }}", "op": "eq", "value": 150}, True),
        ({"field": "trigger.record.amount", "op": "gt", "value": "{{trigger.record.limit}}"}, True),
        ({"field": "steps.check.output.absent", "op": "exists"}, False),
        ({"field": "steps.not-run.output", "op": "eq", "value": 1}, False),
        ({"field": "trigger.record.status", "op": "changed"}, True),
        ({"field": "trigger.record.amount", "op": "changed"}, False),
        ({"field": "trigger.record.status", "op": "changed_from", "value": "open"}, True),
        (
            {
                "field": "trigger.record.status",
                "op": "changed_to",
                "value": "{{trigger.record.status}}",
            },
            True,
        ),
    ],
)
def test_conditions_decide(condition: Json, result: bool) -> None:
    assert decide(condition) is result


def test_what_the_source_did_not_send_fails_the_step() -> None:
    with pytest.raises(EvaluationError, match="did not send"):
        decide({"field": "trigger.record.body", "op": "exists"})
    with pytest.raises(EvaluationError, match="as it was before"):
        decide(
            {"field": "trigger.record.a", "op": "changed"},
            {"trigger": {"event": "updated", "record": {"a": 1}, "before": None}},
        )


def test_on_a_creation_every_field_has_changed() -> None:
    context = {"trigger": {"event": "created", "record": {"a": 1}}}
    assert decide({"field": "trigger.record.a", "op": "changed"}, context) is True


def test_on_a_deletion_no_field_has_changed() -> None:
    context = {"trigger": {"event": "deleted", "record": {"a": 1}, "before": {"a": 2}}}
    assert decide({"field": "trigger.record.a", "op": "changed"}, context) is False


def test_a_template_that_is_neither_true_nor_false_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="is a string, not true or false"):
        decide("{{steps.check.output.word}}")


def test_a_template_of_the_wrong_type_is_an_error() -> None:
    with pytest.raises(EvaluationError, match="the value must be an array"):
        decide({"field": "trigger.record.amount", "op": "in", "value": "{{trigger.record.limit}}"})


@pytest.mark.parametrize(
    ("condition", "pointer", "said"),
    [
        (5, "", "no condition"),
        ("amount > 5", "", "There is no `amount` here"),
        ("{{trigger.a}} {{trigger.b}}", "", "must be one template"),
        ("{{trigger.a", "", "never closed"),
        ({"all": [OVER], "any": [OVER]}, "", "no condition"),
        ({"all": []}, "/all", "no condition here"),
        ({"any": [OVER, {"not": 7}]}, "/any/1/not", "no condition"),
        ({"field": "amount", "op": "gt", "value": 1}, "/field", "it can look at trigger"),
        ({"field": "trigger.record.a b", "op": "gt", "value": 1}, "/field", "write names"),
        ({"field": "trigger.a", "op": "changed"}, "/op", "trigger.record"),
        ([OVER, {**OVER, "op": "more"}], "/1/op", "no operator `more`"),
        ([OVER] * 501, "", "500 parts"),
    ],
)
def test_a_bad_condition_says_where_and_what_to_do(
    condition: Json, pointer: str, said: str
) -> None:
    report = Report()
    read_expression(condition, "", report)
    [problem] = report.problems
    assert problem.pointer == pointer
    assert said in problem.message


forms = st.recursive(
    st.sampled_from([OVER, UNDER]),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3)
        | st.lists(inner, min_size=1, max_size=3).map(lambda terms: {"all": terms})
        | st.lists(inner, min_size=1, max_size=3).map(lambda terms: {"any": terms})
        | inner.map(lambda term: {"not": term})
    ),
    max_leaves=8,
)


def expected(form: Json) -> bool:
    if isinstance(form, list):
        return all(expected(term) for term in form)
    if "all" in form:
        return all(expected(term) for term in form["all"])
    if "any" in form:
        return any(expected(term) for term in form["any"])
    if "not" in form:
        return not expected(form["not"])
    return form == OVER


@given(forms)
def test_forms_nest_as_in_logic(form: Json) -> None:
    assert decide(form) is expected(form)
