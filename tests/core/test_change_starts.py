"""What a batch of changes starts, and what of it goes to the dead letters."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import orjson
import pytest

from permaflow.changes import CREATED, DELETED, UNAVAILABLE, UPDATED, ChangeRecord
from permaflow.errors import EvaluationError
from permaflow.plan import Condition, TriggerSpec
from pipeline.change_starts import Wanted, change_input, wanted
from pipeline.matching import ActiveTrigger, TriggerIndex
from specs.templates import compile_template

ORG = uuid4().hex
RUN = str(uuid4())


def active(**settings: Any) -> ActiveTrigger:
    large = Condition(("note",), "eq", "x")
    spec = TriggerSpec("start", "record", "orders", frozenset(), (large,), settings)
    return ActiveTrigger(ORG, str(uuid4()), "1", spec)


def change(event: str = UPDATED, **fields: Any) -> ChangeRecord:
    given = {"record": {"id": 1}, "org": ORG, **fields}
    return ChangeRecord("shop", "1", "orders", event, **given)


def started(one: ChangeRecord, *triggers: ActiveTrigger, endless: str = "") -> Wanted:
    runs = frozenset({endless} - {""})
    return wanted("postgres", [one], TriggerIndex(triggers), 10_000, {}, runs)


def test_a_trigger_that_wants_an_error_for_an_unknown_value_gets_a_dead_letter() -> None:
    strict, lenient = active(on_unknown="error"), active(on_unknown="fire")
    found = started(change(unavailable=frozenset({"note"})), strict, lenient)
    (letter,) = found.rejected
    assert strict.workflow_id in letter.reason
    assert lenient.workflow_id not in letter.reason
    assert orjson.loads(letter.raw)["record"]["id"] == 1
    assert [str(each.workflow_id) for each in found.requests] == [lenient.workflow_id]


@pytest.mark.parametrize("text", ["{{trigger.record.note}}", "{{trigger.record.note?}}"])
def test_a_template_that_reads_what_was_not_sent_says_so(text: str) -> None:
    body = change_input(change(unavailable=frozenset({"note"})), 10_000)
    with pytest.raises(EvaluationError, match="did not send its value"):
        compile_template(text).evaluate({"trigger": orjson.loads(body)})


def test_of_a_deleted_row_there_is_what_was_sent() -> None:
    body = change_input(change(DELETED, unavailable=frozenset({"note"})), 10_000)
    assert UNAVAILABLE.encode() not in body


def test_a_run_is_requested_by_the_run_that_made_the_change() -> None:
    (request,) = started(change(CREATED, record={"note": "x"}, cause=RUN), active()).requests
    assert request.requested_by == f"run:{RUN}"


def test_what_the_end_of_a_chain_changed_starts_no_further_run() -> None:
    one = change(CREATED, record={"note": "x"}, cause=RUN)
    found = started(one, active(), endless=RUN)
    assert not found.requests
    (letter,) = found.rejected
    assert RUN in letter.reason
    assert "PERMAFLOW_MAX_CHANGE_DEPTH" in letter.reason
