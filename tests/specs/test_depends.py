from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permaflow.errors import DocumentError
from permaflow.plan import ANY_RESULT, FAILURES, TAKEN, And, Not, Or, Outcome, Ref, When
from specs.depends import compile_depends

A, B, C = Ref("a"), Ref("b"), Ref("c")


@pytest.mark.parametrize(
    ("text", "when"),
    [
        (
            "auto-approval-block.SUCCESS || manual-approval-block.SUCCESS",
            Or((Ref("auto-approval-block"), Ref("manual-approval-block"))),
        ),
        ("a", A),
        ("a && b", And((A, B))),
        ("a||b&&c", Or((A, And((B, C))))),
        ("(a || b) && c", And((Or((A, B)), C))),
        ("!a && b", And((Not(A), B))),
        ("!!a", Not(Not(A))),
        ("!(a && b)", Not(And((A, B)))),
        ("  a.SUCCESS  ", A),
        ("step-1_b.FAILED", Ref("step-1_b", FAILURES)),
        ('"any name, really".SUCCESS', Ref("any name, really")),
    ],
)
def test_depends_reads_like_argo(text: str, when: When) -> None:
    assert compile_depends(text) == when


@pytest.mark.parametrize(
    ("status", "outcomes"),
    [
        ("SUCCESS", TAKEN),
        ("FAILED", FAILURES),
        ("TIMED_OUT", {Outcome.TIMED_OUT}),
        ("SKIPPED", {Outcome.SKIPPED}),
        ("CANCELLED", {Outcome.CANCELLED}),
        ("COMPLETED", ANY_RESULT),
        ("Succeeded", TAKEN),
        ("Failed", FAILURES),
        ("Errored", FAILURES),
        ("Skipped", {Outcome.SKIPPED}),
        ("Omitted", {Outcome.SKIPPED}),
    ],
)
def test_statuses_and_the_names_that_argo_gives_them(status: str, outcomes: set[Outcome]) -> None:
    assert compile_depends(f"a.{status}") == Ref("a", frozenset(outcomes))


def test_the_branches_of_a_condition_are_statuses_of_it() -> None:
    def ports(name: str) -> tuple[str, ...]:
        return ("true", "gold customers") if name == "check" else ()

    assert compile_depends("check.true", ports) == Ref("check", TAKEN, "true")
    assert compile_depends('check."gold customers"', ports) == Ref("check", TAKEN, "gold customers")
    with pytest.raises(DocumentError, match="`true` at character 7"):
        compile_depends("other.true", ports)


def test_a_port_that_is_called_like_a_status_is_the_port() -> None:
    def ports(_name: str) -> tuple[str, ...]:
        return ("approved", "rejected", "timed_out")

    assert compile_depends("ask.timed_out", ports) == Ref("ask", TAKEN, "timed_out")
    assert compile_depends("ask.TIMED_OUT", ports) == Ref("ask", frozenset({Outcome.TIMED_OUT}))
    assert compile_depends("ask.timed_out") == Ref("ask", frozenset({Outcome.TIMED_OUT}))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "ends too early; expected the name of a block"),
        ("a &&", "ends too early"),
        ("a & b", "`&` at character 3 of `depends` means nothing here. Write `&&`"),
        ("a | b", "Write `||`"),
        ("a b", "`b` at character 3"),
        ("(a || b", "expected `)`"),
        ("a)", "`)` at character 2"),
        ("a.", "a status after `a.`"),
        ("a.SUCESS", "`SUCESS` at character 3 of `depends` is no status of `a`"),
        ("a.Daemoned", "is no status"),
        ("&& a", "`&&` at character 1"),
        ("a == b", "`=` at character 3"),
        ('"a', "in quotes"),
        ("!" * 50 + "a", "nested deeper than 32"),
        ("(" * 50 + "a" + ")" * 50, "nested deeper than 32"),
        (" || ".join(["a"] * 3000), "500 terms"),
        ("a" * 20_000, "16,384 characters"),
    ],
)
def test_what_cannot_be_read_is_told_with_its_place(text: str, said: str) -> None:
    with pytest.raises(DocumentError) as caught:
        compile_depends(text)
    assert said in caught.value.problems[0].message


@given(st.text(alphabet='ab-._ &|!()"SUCE\n', max_size=40))
def test_any_text_is_a_depends_or_a_document_error(text: str) -> None:
    try:
        compile_depends(text)
    except DocumentError:
        pass


whens = st.recursive(
    st.sampled_from(["a", "b-1", "c"]).flatmap(
        lambda name: st.sampled_from([Ref(name), Ref(name, FAILURES)])
    ),
    lambda inner: (
        inner.map(Not)
        | st.lists(inner, min_size=2, max_size=3).map(lambda terms: And(tuple(terms)))
        | st.lists(inner, min_size=2, max_size=3).map(lambda terms: Or(tuple(terms)))
    ),
    max_leaves=8,
)


def written(when: When) -> str:
    match when:
        case Ref(node=node, outcomes=outcomes):
            return f"{node}.{'SUCCESS' if outcomes == TAKEN else 'FAILED'}"
        case Not(term=term):
            return f"!({written(term)})"
        case And(terms=terms):
            return " && ".join(f"({written(term)})" for term in terms)
        case Or(terms=terms):
            return " || ".join(f"({written(term)})" for term in terms)
    raise AssertionError(when)


@given(whens)
def test_what_is_written_is_read_back(when: When) -> None:
    assert compile_depends(written(when)) == when
