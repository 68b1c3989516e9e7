"""The steps dialect: what its documents become, and how they run."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from permaflow.changes import ChangeRecord
from permaflow.plan import Json, Plan, Problem
from pipeline.builtins import task_types
from pipeline.core.decide import decide
from pipeline.core.effects import Dispatch
from pipeline.core.events import AttemptDone, AttemptFailed, Woken
from pipeline.core.program import Program
from pipeline.core.state import Run
from pipeline.matching import ActiveTrigger, TriggerIndex
from pipeline.settings import Settings
from specs.dialects import compile_document

TYPES = task_types(Settings())
ONBOARDING: dict[str, Any] = {
    "name": "Customer Onboarding",
    "triggerEvent": "Deal.won",
    "steps": [
        {"action": "Customer.create", "mapping": {"name": "deal.name", "contact": "deal.contact"}},
        {
            "action": "Subscription.create",
            "mapping": {"plan": "deal.plan", "customer": "step.0.$id"},
        },
        {"action": "Project.create", "mapping": {"name": '"Onboarding: " + deal.name'}},
        {
            "action": "Activity.create",
            "mapping": {"subject": '"Welcome call with " + deal.contact.name', "type": "Call"},
        },
    ],
    "errorHandling": "Fallback",
    "timeout": 30_000,
}
ASSIGNMENT: dict[str, Any] = {
    "name": "Lead Assignment",
    "triggerEvent": "Lead.created",
    "steps": [
        {"action": "Contact.assign", "mapping": {"assignee": "round-robin"}},
        {
            "action": "Activity.create",
            "mapping": {"subject": '"Follow up: " + lead.name', "type": "Task"},
        },
    ],
    "errorHandling": "Continue",
}
DEAL = {
    "id": "deal_1",
    "name": "Big one",
    "plan": "pro",
    "contact": {"$id": "c1", "name": "Ann"},
    "status": "won",
    "amount": 250,
}


def workflow(*steps: Json, **more: Json) -> dict[str, Any]:
    return {"triggerEvent": "Deal.won", "steps": list(steps), **more}


def create(noun: str = "Note", **mapping: Json) -> dict[str, Any]:
    return {"action": f"{noun}.create", "mapping": mapping or {"text": "Call"}}


def plan_of(document: Json) -> Plan:
    compiled = compile_document(document, TYPES)
    assert compiled.problems == ()
    assert compiled.plan is not None
    return compiled.plan


def problems_of(document: Json) -> tuple[Problem, ...]:
    compiled = compile_document(document, TYPES)
    assert compiled.plan is None
    return compiled.problems


Answer = Callable[[Dispatch], Json]


class Refused(Exception):
    pass


def as_record(dispatch: Dispatch) -> Json:
    """What the built-in records would answer."""
    config: Any = dispatch.config
    name = str(config.get("object", "")).lower()
    record = {
        "id": config.get("id") or f"{name}_1",
        "object": config.get("object"),
        "data": config.get("data", {}),
        "version": 1,
    }
    return {"count": 1, "record": record}


def play(
    document: Json, answer: Answer = as_record, record: Json = None, **trigger: Json
) -> tuple[Run, dict[str, Json]]:
    """Runs a document to its end; gives the configs that were sent, by step."""
    given = {"event": "updated", "object": "Deal", "record": DEAL if record is None else record}
    run = Run(UUID(int=1), Program(plan_of(document)), {**given, **trigger}, "trigger")
    sent: dict[str, Json] = {}
    waiting: list[Any] = [Woken()]
    while waiting:
        for effect in decide(run, [waiting.pop(0)], 0.0).effects:
            if isinstance(effect, Dispatch):
                key = (effect.scope, effect.node, effect.attempt)
                sent[effect.node] = effect.config
                try:
                    waiting.append(AttemptDone(*key, answer(effect)))
                except Refused as error:
                    waiting.append(AttemptFailed(*key, "refused", str(error), False))
    return run, sent


# --- the examples ---------------------------------------------------------------------------------


def test_the_onboarding_example_makes_its_records_in_order() -> None:
    run, sent = play(ONBOARDING)
    assert run.status == "completed"
    assert list(sent) == ["step_0", "step_1", "step_2", "step_3"]
    assert sent["step_0"] == {
        "operation": "create",
        "object": "Customer",
        "data": {"name": "Big one", "contact": {"$id": "c1", "name": "Ann"}},
    }
    assert sent["step_1"]["data"] == {"plan": "pro", "customer": "customer_1"}
    assert sent["step_2"]["data"] == {"name": "Onboarding: Big one"}
    assert sent["step_3"]["data"] == {"subject": "Welcome call with Ann", "type": "Call"}
    assert plan_of(ONBOARDING).timeout == timedelta(seconds=30)


def test_the_assignment_example_takes_turns() -> None:
    def answer(dispatch: Dispatch) -> Json:
        if dispatch.type == "action_turn":
            return {"chosen": "user_7", "number": 0}
        return as_record(dispatch)

    run, sent = play(ASSIGNMENT, answer, {"id": "l1", "name": "Bo", "contact": "c9"})
    assert run.status == "completed"
    assert sent["step_0:turn"] == {"rotation": "Lead Assignment: step_0", "object": "User"}
    assert sent["step_0"] == {
        "operation": "update",
        "object": "Contact",
        "id": "c9",
        "data": {"assignee": "user_7"},
    }
    assert sent["step_1"]["data"] == {"subject": "Follow up: Bo", "type": "Task"}


def test_steps_and_the_policy_may_be_text_that_holds_json() -> None:
    text = {
        **ONBOARDING,
        "steps": json.dumps(ONBOARDING["steps"]),
        "retryPolicy": json.dumps({"maxAttempts": 3, "backoff": "fixed", "initialDelay": 500}),
    }
    plan = plan_of(text)
    assert list(plan.nodes) == list(plan_of(ONBOARDING).nodes)
    retry = plan.nodes["step_0"].retry
    assert (retry.max_retries, retry.factor) == (2, 1.0)
    assert retry.initial_delay == timedelta(milliseconds=500)
    assert plan_of({**ONBOARDING, "retryPolicy": "5"}).nodes["step_3"].retry.max_retries == 4


def test_a_whole_entity_is_taken_as_it_comes() -> None:
    entity = {
        "$id": "workflow_nV4xKpQm",
        "$type": "Workflow",
        "organization": "org_1",
        "description": "",
        "status": "Draft",
        "version": 3,
        "lastRunAt": None,
        "runCount": 0,
        "successCount": 0,
        "failureCount": 0,
        **ONBOARDING,
    }
    assert plan_of(entity).nodes.keys() == plan_of(ONBOARDING).nodes.keys()


# --- mapping --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "made"),
    [
        ("deal.name", "Big one"),
        ("deal.$id", "deal_1"),
        ("record.amount", 250),
        ("deal", DEAL),
        ("trigger.event", "updated"),
        ("deal.amount * 2", 500),
        ("deal.amount > 100 ? 'large' : 'small'", "large"),
        ('"Hi " + deal.contact.name', "Hi Ann"),
        ('"just text"', "just text"),
        ("Hello {{deal.name}}, {{= deal.amount / 2 }}", "Hello Big one, 125"),
        ("{{deal.none ?? 'nothing'}}", "nothing"),
        ("step.0.name", "first"),
        ("step.first.$id", "thing_1"),
        ("step.0.$type", "Thing"),
        ("step.0.$version", 1),
        ("steps.first.output.count", 1),
        ("Call", "Call"),
        ("Follow up by phone", "Follow up by phone"),
        ("https://example.com/a.b", "https://example.com/a.b"),
        ("ann@example.com", "ann@example.com"),
        ("2026-01-01", "2026-01-01"),
        ("true", "true"),
        ("1 + 1", "1 + 1"),
        ("example.com", "example.com"),
        ("", ""),
        (7, 7),
        (None, None),
        (["deal.plan", {"x": "deal.amount"}], ["pro", {"x": 250}]),
    ],
)
def test_what_a_value_of_a_mapping_stands_for(value: Json, made: Json) -> None:
    first = {"id": "first", "action": "Thing.create", "mapping": {"name": '"first"'}}
    _, sent = play(workflow(first, create(value=value)))
    assert sent["step_1"]["data"] == {"value": made}


def test_the_event_of_a_name_brings_the_record_along() -> None:
    event = {"id": "e1", "type": "Deal.won", "data": {"name": "From an event", "$id": "d9"}}
    _, sent = play(
        workflow(create(name="deal.name", deal="{{deal.$id ?? 'none'}}")),
        record=event,
        object="Event",
    )
    assert sent["step_0"]["data"]["name"] == "From an event"


@pytest.mark.parametrize(
    ("mapping", "said", "at"),
    [
        ("deal.name +", "expected a value", 11),
        ('"never closed', "never closed", 0),
        ("dael.name", "did you mean `deal`", 0),
        ("note.$id", "as in `step.0.$id`", 0),
        ("step.7.$id", "does not come before", 0),
        ("step.other.$id", "does not exist", 0),
        ("steps.other.output", "does not exist", None),
        ("{{deal.name", "never closed", 0),
        ("deal.name.upper()", "no function `upper`", 10),
    ],
)
def test_a_wrong_value_of_a_mapping_is_refused_where_it_stands(
    mapping: str, said: str, at: int | None
) -> None:
    document = workflow(create(), create(a=[mapping]))
    [problem] = problems_of(document)
    assert problem.pointer == "/steps/1/mapping/a/0"
    assert said in problem.message
    assert problem.at == at


# --- actions --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "config"),
    [
        (
            {"action": "Task.update", "mapping": {"id": "t1", "done": True}},
            {"operation": "update", "object": "Task", "id": "t1", "data": {"done": True}},
        ),
        (
            {"action": "Deal.close", "mapping": {"stage": "Closed"}},
            {"operation": "update", "object": "Deal", "id": "deal_1", "data": {"stage": "Closed"}},
        ),
        (
            {"action": "Note.update", "mapping": {"read": True}},
            {"operation": "update", "object": "Note", "id": "note_1", "data": {"read": True}},
        ),
        (
            {"action": "Contact.get"},
            {"operation": "get", "object": "Contact", "id": "c1"},
        ),
        (
            {"action": "Note.delete", "mapping": {"$id": "step.0.$id"}},
            {"operation": "delete", "object": "Note", "id": "note_1"},
        ),
        (
            {"action": "Note.create", "mapping": {"$id": "n5", "text": "x"}},
            {"operation": "create", "object": "Note", "id": "n5", "data": {"text": "x"}},
        ),
        (
            {"action": "code_snippet", "mapping": {"code": "deal.name", "input": "deal.name"}},
            {"code": "deal.name", "input": "Big one"},
        ),
        (
            {"action": "code_function", "mapping": {"function_slug": "f", "input": "deal.name"}},
            {"function_slug": "f", "input": "Big one"},
        ),
    ],
)
def test_an_action_becomes_a_task(step: Json, config: Json) -> None:
    _, sent = play(workflow(create(), step))
    assert sent["step_1"] == config


@pytest.mark.parametrize(
    ("step", "pointer", "said"),
    [
        ({"mapping": {}}, "/steps/0", "`action` is missing"),
        ({"action": "logic_loop"}, "/steps/0/action", "no place in a row"),
        ({"action": "trigger_manual"}, "/steps/0/action", "no place in a row"),
        ({"action": "customer.create"}, "/steps/0/action", "a noun and a verb"),
        ({"action": "Note.craete", "mapping": {"a": 1}}, "/steps/0/action", "`create`"),
        ({"action": "Note.close"}, "/steps/0/mapping", "sets nothing"),
        ({"action": "Note.create", "maping": {}}, "/steps/0/maping", "did you mean `mapping`"),
        ({"action": "Note.create", "mapping": []}, "/steps/0/mapping", "must be an object"),
        ({"action": "Note.create", "timeout": 0}, "/steps/0/timeout", "from 1"),
        ({"action": "Note.create", "errorHandling": "Go"}, "/steps/0/errorHandling", "Continue"),
        ({"action": "Note.create", "when": "deal.x >"}, "/steps/0/when", "expected a value"),
        ({"action": "Note.create", "assignees": ["a"]}, "/steps/0/assignees", "round-robin"),
        ({"action": "Note.create", "id": "trigger"}, "/steps/0/id", "taken"),
        ({"action": "Note.create", "id": "step_1:when"}, "/steps/0/id", "no colon"),
        ({"action": "action_http", "mapping": {"url": 5}}, "/steps/0/mapping/url", ""),
        (5, "/steps/0", "A step is an object"),
    ],
)
def test_a_wrong_step_is_refused_where_it_stands(step: Json, pointer: str, said: str) -> None:
    problems = problems_of(workflow(step))
    assert [problem.pointer for problem in problems] == [pointer]
    assert said in problems[0].message


@pytest.mark.parametrize(
    ("change", "pointer", "said"),
    [
        ({"steps": None}, "", "At least one step is required"),
        ({"steps": []}, "/steps", "At least one step is required"),
        ({"steps": "[{]"}, "/steps", "must hold JSON"),
        ({"steps": "{}"}, "/steps", "must be an array"),
        ({"triggerEvent": None}, "", "Trigger event must be defined before activation"),
        ({"triggerEvent": "won"}, "/triggerEvent", "is no event"),
        ({"triggerEvent": 5}, "/triggerEvent", "must be a string"),
        ({"retryPolicy": "often"}, "/retryPolicy", "must hold JSON"),
        ({"retryPolicy": {"tries": 3}}, "/retryPolicy/tries", "no field `tries`"),
        ({"retryPolicy": []}, "/retryPolicy", "must be an object"),
        ({"errorHandling": "stop"}, "/errorHandling", "did you mean `Stop`"),
        ({"timeout": "30s"}, "/timeout", "must be a number"),
        ({"fallback": [create()]}, "/fallback", "only with `errorHandling: Fallback`"),
        ({"triggerEvent": "Deal.created", "triggerField": "x"}, "/triggerField", "other than"),
        ({"stepz": []}, "/stepz", "did you mean `steps`"),
    ],
)
def test_a_wrong_document_is_refused_where_it_is_wrong(
    change: dict[str, Json], pointer: str, said: str
) -> None:
    document = {**workflow(create()), **change}
    problems = problems_of(document)
    assert [problem.pointer for problem in problems] == [pointer]
    assert said in problems[0].message


def test_code_stays_as_it_is() -> None:
    code = {"action": "code_snippet", "mapping": {"code": "record.a + 1", "input": "deal.amount"}}
    _, sent = play(workflow(code))
    assert sent["step_0"] == {"code": "record.a + 1", "input": 250}


# --- what a failure does --------------------------------------------------------------------------


def failing(*names: str) -> Answer:
    def answer(dispatch: Dispatch) -> Json:
        if dispatch.node in names:
            raise Refused(f"{dispatch.node} is refused")
        return as_record(dispatch)

    return answer


def test_stop_ends_the_run_at_the_first_failure() -> None:
    steps = [create(), create(), create()]
    for more in ({}, {"errorHandling": "Stop"}, {"errorHandling": "Fallback"}):
        run, sent = play(workflow(*steps, **more), failing("step_1"))
        assert run.status == "failed"
        assert list(sent) == ["step_0", "step_1"]


def test_continue_goes_on_after_a_failure() -> None:
    steps = [create(), create(of="step.0.$id"), create()]
    run, sent = play(workflow(*steps, errorHandling="Continue"), failing("step_0"))
    assert run.status == "completed"
    # The second step needs what the first did not make: it fails as well, and the third runs.
    assert list(sent) == ["step_0", "step_2"]


def test_fallback_runs_the_fallback_steps_instead_of_the_rest() -> None:
    document = workflow(
        create(),
        create(),
        create(),
        errorHandling="Fallback",
        fallback=[create("Ticket", why="error.message", step="error.node"), create()],
    )
    run, sent = play(document, failing("step_1"))
    assert run.status == "completed"
    assert list(sent) == ["step_0", "step_1", "fallback_0", "fallback_1"]
    assert sent["fallback_0"]["data"] == {"why": "step_1 is refused", "step": "step_1"}
    run, sent = play(document)
    assert run.status == "completed"
    assert list(sent) == ["step_0", "step_1", "step_2"]
    run, _ = play(document, failing("step_1", "fallback_0"))
    assert run.status == "failed"


def test_a_fallback_step_means_the_record_of_a_fallback_step_before_it() -> None:
    fallback = [
        create("Ticket", about="step.0.$id"),
        {"action": "Ticket.escalate", "mapping": {"level": 2}},
        {"action": "Note.update", "mapping": {"text": "failed"}},
    ]
    document = workflow(create(), create(), errorHandling="Fallback", fallback=fallback)
    _, sent = play(document, failing("step_1"))
    assert sent["fallback_0"]["data"] == {"about": "note_1"}
    assert sent["fallback_1"]["id"] == "ticket_1"
    # The step that failed made nothing that could be meant.
    assert "fallback_2" not in sent


def test_a_step_may_handle_its_failure_in_its_own_way() -> None:
    run, sent = play(
        workflow({**create(), "errorHandling": "Continue"}, create()), failing("step_0")
    )
    assert run.status == "completed"
    assert list(sent) == ["step_0", "step_1"]


def test_a_step_says_what_undoes_it() -> None:
    document = workflow(
        create("Customer", name="deal.name"),
        {
            **create("Invoice", to="step.0.$id"),
            "compensate": {
                "action": "Invoice.cancel",
                "mapping": {"reason": '"run failed: " + error.message'},
                "retryPolicy": {"maxAttempts": 5},
                "timeout": 5_000,
                "whenUnknown": False,
            },
            "onUnknown": "ask",
        },
        {
            **create("Note"),
            "compensate": {"action": "action_http", "mapping": {"url": "deal.hook"}},
        },
    )
    nodes = plan_of(document).nodes
    undo = nodes["step_1"].compensation
    assert undo is not None
    assert (undo.type, undo.retry.max_retries, undo.when_unknown) == ("action_record", 4, False)
    assert undo.timeout == timedelta(seconds=5)
    assert nodes["step_1"].on_unknown == "ask"
    context = {
        "trigger": {"record": DEAL},
        "steps": {"step_1": {"output": {"record": {"id": "invoice_1"}}}},
        "error": {"message": "no"},
    }
    assert undo.work.config.evaluate(context) == {
        "operation": "update",
        "object": "Invoice",
        "id": "invoice_1",
        "data": {"reason": "run failed: no"},
    }
    assert nodes["step_0"].compensation is None
    assert nodes["step_2"].compensation is not None


@pytest.mark.parametrize(
    ("undo", "pointer", "said"),
    [
        ("Note.delete", "", "must be an object"),
        ({"mapping": {}}, "", "`action` is missing"),
        ({"action": "logic_delay", "mapping": {"duration": 5}}, "/action", "name a task"),
        ({"action": "Note.delete", "mapping": {"id": "step.3.$id"}}, "/mapping/id", "come before"),
        ({"action": "Note.delete", "when": "true"}, "/when", "no field `when`"),
        ({"action": "Note.give", "mapping": {"to": "round-robin"}}, "/mapping", "no place in"),
    ],
)
def test_what_undoes_a_step_must_be_an_action(undo: Json, pointer: str, said: str) -> None:
    [problem] = problems_of(workflow({**create(), "compensate": undo}))
    assert problem.pointer == f"/steps/0/compensate{pointer}"
    assert said in problem.message


def test_what_runs_when_a_run_has_failed_comes_after_what_undoes_it() -> None:
    document = workflow(
        {**create("Invoice"), "compensate": {"action": "Invoice.cancel", "mapping": {"off": True}}},
        create(),
        onFailure=[
            {"action": "Deal.update", "mapping": {"stage": "stuck", "why": "error.message"}},
            {"id": "ticket", **create("Ticket", about="step.0.$id", step="error.node")},
            {"action": "Ticket.escalate", "mapping": {"level": 2, "of": "step.ticket.$id"}},
        ],
    )
    run, sent = play(document, failing("step_1"))
    assert run.status == "compensated"
    assert list(sent)[2:] == ["step_0#compensate", "on_failure_1", "ticket", "on_failure_3"]
    deal: Any = sent["on_failure_1"]
    assert (deal["object"], deal["id"]) == ("Deal", "deal_1")
    assert deal["data"] == {"stage": "stuck", "why": "step_1 is refused"}
    assert sent["ticket"]["data"] == {"about": "invoice_1", "step": "step_1"}
    assert (sent["on_failure_3"]["id"], sent["on_failure_3"]["data"]["of"]) == ("ticket_1",) * 2
    run, sent = play(document)
    assert (run.status, list(sent)) == ("completed", ["step_0", "step_1"])


def test_one_action_for_failed_runs_needs_no_list_and_may_be_text() -> None:
    action = create("Ticket", why="error.message")
    for written in (action, [action], json.dumps(action), json.dumps([action])):
        run, sent = play(workflow(create(), onFailure=written), failing("step_0"))
        assert (run.status, sent["on_failure_1"]["data"]["why"]) == ("failed", "step_0 is refused")
    (handler,) = plan_of(workflow(create(), onFailure={**action, "timeout": 5_000})).on_failure
    assert (handler.retry.max_retries, handler.timeout) == (3, timedelta(seconds=5))


def test_a_record_that_no_step_surely_made_is_not_meant_when_a_run_has_failed() -> None:
    assign = {"action": "Deal.assign", "mapping": {"to": "ann"}}
    handler = {"action": "Deal.update", "mapping": {"stage": "stuck"}}
    _, sent = play(workflow(create(), assign, onFailure=handler), failing("step_0"))
    assert sent["on_failure_1"]["id"] == "deal_1"


@pytest.mark.parametrize(
    ("handler", "pointer", "said"),
    [
        (5, "", "An action is an object"),
        ([5], "/0", "An action is an object"),
        ("[{]", "", "must hold JSON"),
        ([create()] * 21, "", "20 actions"),
        ([{"mapping": {}}], "/0", "`action` is missing"),
        ([{**create(), "id": "step_0"}], "/0/id", "taken"),
        ([{**create(), "id": "a"}, {**create(), "id": "a"}], "/1/id", "taken"),
        ([{**create(), "when": "true"}], "/0/when", "no field `when`"),
        ([{**create(), "whenUnknown": True}], "/0/whenUnknown", "no field `whenUnknown`"),
        ([create(to="round-robin")], "/0/mapping", "no place in `onFailure`"),
        ([create(to="step.7.$id")], "/0/mapping/to", "come before"),
        ([{"action": "logic_delay", "mapping": {"duration": 5}}], "/0/action", "name a task"),
    ],
)
def test_what_runs_when_a_run_has_failed_must_be_actions(
    handler: Json, pointer: str, said: str
) -> None:
    [problem] = problems_of(workflow(create(), onFailure=handler))
    assert problem.pointer == f"/onFailure{pointer}"
    assert said in problem.message


# --- gates ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("handling", ["Stop", "Continue", "Fallback"])
def test_a_step_whose_when_is_false_is_skipped_and_the_next_goes_ahead(handling: str) -> None:
    document = workflow(
        {**create(), "when": "deal.amount > 1000"},
        {**create(), "when": {"field": "trigger.record.amount", "op": "gt", "value": 100}},
        create(),
        errorHandling=handling,
    )
    run, sent = play(document)
    assert run.status == "completed"
    assert list(sent) == ["step_1", "step_2"]


def test_a_flag_gates_a_step() -> None:
    document = workflow({**create(), "flag": "new-onboarding", "when": "deal.amount > 1"}, create())

    def flagged(data: Json) -> Answer:
        def answer(dispatch: Dispatch) -> Json:
            if dispatch.node != "step_0:flag":
                return as_record(dispatch)
            return {"count": int(data is not None), "record": data and {"data": data}}

        return answer

    for data, ran in (({"enabled": True}, True), ({"enabled": False}, False), (None, False)):
        run, sent = play(document, flagged(data))
        assert run.status == "completed"
        assert sent["step_0:flag"] == {
            "operation": "get",
            "object": "FeatureFlag",
            "id": "new-onboarding",
        }
        assert ("step_0" in sent) is ran
        assert "step_1" in sent


def test_a_gate_that_has_no_value_fails_its_step() -> None:
    gated = workflow({**create(), "when": "deal.none > 1"}, create())
    run, sent = play(gated)
    assert run.status == "failed"
    assert sent == {}
    run, sent = play({**gated, "errorHandling": "Continue"})
    assert run.status == "completed"
    assert list(sent) == ["step_1"]


# --- triggers -------------------------------------------------------------------------------------


def fires(document: Json, before: Json, after: Json, event: str = "updated") -> list[str]:
    compiled = compile_document(document, TYPES)
    index = TriggerIndex(ActiveTrigger("org", "w", "v", trigger) for trigger in compiled.triggers)
    noun = "Event" if "type" in after else "Deal"
    change = ChangeRecord("s", "1", noun, event, after, before, org="org")
    return [active.trigger.node for active in index.match(change)]


def test_a_verb_is_a_change_of_status_or_stage_to_that_word() -> None:
    document = workflow(create())
    assert fires(document, {"status": "open"}, {"status": "won"}) == ["trigger"]
    assert fires(document, {"status": "open"}, {"status": "Won"}) == ["trigger"]
    assert fires(document, {"status": "won"}, {"status": "won", "a": 1}) == []
    assert fires(document, {"status": "open"}, {"status": "lost"}) == []
    assert fires(document, {"stage": "open"}, {"stage": "won"}) == ["trigger:stage"]
    both = {"status": "won", "stage": "won"}
    assert fires(document, {"status": "open", "stage": "open"}, both) == ["trigger"]
    assert fires(document, {}, {"status": "won"}, "created") == ["trigger"]
    assert fires(document, {}, {"type": "Deal.won", "data": {}}, "created") == ["trigger:event"]
    assert fires(document, {}, {"type": "Deal.lost", "data": {}}, "created") == []


def test_the_field_of_a_verb_may_be_named_and_conditions_added() -> None:
    document = workflow(
        create(),
        triggerField="phase",
        conditions=[{"field": "amount", "op": "gt", "value": 100}],
    )
    assert fires(document, {"phase": "a"}, {"phase": "won", "amount": 200}) == ["trigger"]
    assert fires(document, {"phase": "a"}, {"phase": "won", "amount": 50}) == []
    assert fires(document, {"status": "a"}, {"status": "won", "amount": 200}) == []
    large = {"type": "Deal.won", "data": {"amount": 200}}
    assert fires(document, {}, large, "created") == ["trigger:event"]
    assert fires(document, {}, {**large, "data": {"amount": 1}}, "created") == []


@pytest.mark.parametrize("verb", ["created", "updated", "deleted"])
def test_the_plain_verbs_are_changes_of_the_record(verb: str) -> None:
    compiled = compile_document({**workflow(create()), "triggerEvent": f"Deal.{verb}"}, TYPES)
    [trigger] = compiled.triggers
    assert (trigger.object, trigger.events) == ("Deal", frozenset({verb}))


@pytest.mark.parametrize(
    "event",
    [
        "Contact.qualified",
        "Deal.won",
        "Lead.converted",
        "Lead.created",
        "Subscription.created",
        "Payment.failed",
        "Ticket.created",
        "Form.submitted",
        "Campaign.completed",
    ],
)
def test_events_of_every_domain_start_a_workflow(event: str) -> None:
    noun = event.partition(".")[0]
    root = noun.lower()
    run, sent = play({**workflow(create(x=f"{root}.name")), "triggerEvent": event}, object=noun)
    assert run.status == "completed"
    assert sent["step_0"]["data"] == {"x": "Big one"}


def test_many_steps_compile_in_time() -> None:
    steps = [{**create(a="deal.a", b="step.0.$id"), "when": "deal.a > 1"} for _ in range(1_900)]
    document = workflow({"action": "Note.create", "mapping": {"a": 1}}, *steps)
    began = time.perf_counter()
    plan_of(document)
    assert time.perf_counter() - began < 3


def test_a_thousand_steps_run_one_after_the_other() -> None:
    document = workflow(*({**create(), "when": "deal.amount > 1"} for _ in range(900)))
    run, sent = play(document)
    assert run.status == "completed"
    assert len(sent) == 900


def test_compiling_the_same_document_twice_gives_equal_plans() -> None:
    document = workflow({**create(a="deal.a + 1"), "when": "deal.a > 1"}, create(b="step.0.$id"))
    assert plan_of(document) == plan_of(copy.deepcopy(document))
    assert plan_of(document) != plan_of(workflow(create(a="deal.a + 2"), create(b="step.0.$id")))


def test_documents_are_not_changed_by_compiling() -> None:
    document = copy.deepcopy(ASSIGNMENT)
    plan_of(document)
    assert document == ASSIGNMENT
