from __future__ import annotations

import pytest

from permaflow.plan import AtLeast, Never, Outcome, Ref
from specs.depends import compile_depends
from specs.satisfiable import Ending, Search

ALL: list[Ending] = [(outcome, None) for outcome in Outcome]
PORTS: list[Ending] = [(Outcome.SUCCESS, "true"), (Outcome.SUCCESS, "false")]


def may_hold(text: str) -> bool:
    endings = {"check": [*PORTS, (Outcome.FAILED, None)]}
    when = compile_depends(text, lambda name: ("true", "false") if name == "check" else ())
    return Search(lambda name: endings.get(name, ALL)).may_hold(when)


@pytest.mark.parametrize(
    "text",
    [
        "a.SUCCESS || b.SUCCESS",
        "a.COMPLETED && !a.SUCCESS",
        "!a.SUCCESS && !a.FAILED",
        "check.true || check.false",
        "!check.true && !check.false",
        "a.FAILED && !a.TIMED_OUT",
    ],
)
def test_what_can_be_true_may_hold(text: str) -> None:
    assert may_hold(text)


@pytest.mark.parametrize(
    "text",
    [
        "a.SUCCESS && a.FAILED",
        "a && !a",
        "check.true && check.false",
        "!(a.SUCCESS || !a.SUCCESS)",
        "(a.SKIPPED && b) && (a.COMPLETED || !b)",
        "a.TIMED_OUT && !a.FAILED",
    ],
)
def test_what_can_never_be_true_is_found(text: str) -> None:
    assert not may_hold(text)


def test_ports_exclude_each_other_in_a_join() -> None:
    search = Search(lambda _: PORTS)
    terms = (Ref("check", port="true"), Ref("check", port="false"))
    assert search.may_hold(AtLeast(1, terms))
    assert not search.may_hold(AtLeast(2, terms))
    assert not search.may_hold(Never())


def test_beyond_the_budget_everything_may_hold() -> None:
    wide = " && ".join(f"(a{i} && !a{i})" for i in range(40))
    assert may_hold(wide)
    spent = Search(lambda _: ALL, looks=1)
    assert spent.may_hold(compile_depends("a && !a"))
