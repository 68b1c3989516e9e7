"""Which trigger a recorded event comes in through: what ingest and the doors would say."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from permaflow.changes import EVENTS, UNAVAILABLE, ChangeRecord
from permaflow.plan import Condition, Json, TriggerSpec
from pipeline.change_starts import change_input
from pipeline.gateway.entering import Triggers

AMOUNT = Condition(("amount",), "gt", 100)


def on(
    node: str, *conditions: Condition, name: str = "orders", events: Any = EVENTS, **settings: Json
) -> TriggerSpec:
    return TriggerSpec(node, "record", name, frozenset(events), conditions, settings)


def change(**more: Any) -> Json:
    """A change as a run that it started is given it."""
    about: dict[str, Any] = {"record": {"id": 7, "amount": 120}, "event": "created", **more}
    found = ChangeRecord("shop", "e", object="orders", namespace="public", **about)
    return orjson.loads(change_input(found, 1_000_000))


def test_a_change_comes_in_through_the_trigger_that_it_fires() -> None:
    entry = Triggers([on("start", AMOUNT)]).enter("postgres", "start", change())
    assert (entry.trigger, entry.why_not, entry.fired) == ("start", "", {"start"})
    whole = Triggers([on("start", name="public.orders")])
    assert whole.enter("kafka", "start", change()).trigger == "start"


@pytest.mark.parametrize(
    ("trigger", "said"),
    [
        (on("start", Condition(("amount",), "gt", 500)), "wants `amount gt 500`"),
        (on("start", Condition(("id",), "changed_to", "x")), 'wants `id changed_to "x"`'),
        (on("start", name="people"), "is for `people`, not for `orders`"),
        (on("start", events=["deleted"]), "is for deleted, not for created"),
        (on("start", source="crm"), "is for the source `crm`, not for `shop`"),
        (on("start", namespace="old"), "is for the namespace `old`, not for `public`"),
    ],
)
def test_a_change_that_fires_nothing_starts_nothing_and_says_what_is_wanted(
    trigger: TriggerSpec, said: str
) -> None:
    entry = Triggers([trigger]).enter("postgres", "start", change())
    assert entry.trigger == ""
    assert entry.why_not == f"No trigger fires: `start` {said}."


def test_what_a_source_did_not_send_fires_only_what_wants_it_so() -> None:
    unsent = change(record={"id": 7}, unavailable=frozenset({"amount"}))
    assert unsent["record"]["amount"] == UNAVAILABLE
    for on_unknown, fires in (("skip", False), ("fire", True), ("error", False)):
        entry = Triggers([on("start", AMOUNT, on_unknown=on_unknown)]).enter("x", "start", unsent)
        assert bool(entry.trigger) is fires
        assert fires or "cannot be told" in entry.why_not


def test_of_a_deleted_row_what_is_not_there_is_not_known() -> None:
    gone = change(event="deleted", record={"id": 7}, before=None)
    nothing = Condition(("amount",), "eq", None)
    entry = Triggers([on("start", nothing)]).enter("postgres", "start", gone)
    assert "cannot be told" in entry.why_not
    assert Triggers([on("start", Condition(("id",), "eq", 7))]).enter("x", "start", gone).trigger


def test_a_trigger_with_another_name_takes_the_change_unless_it_has_a_run_of_its_own() -> None:
    both = Triggers([on("first", Condition(("amount",), "gt", 500)), on("second")])
    assert both.enter("postgres", "first", change()).trigger == "second"
    entry = both.enter("postgres", "first", change(), {"second"})
    assert entry.trigger == ""
    assert "`second` does, which starts a run of its own" in entry.why_not


def test_a_workflow_without_record_triggers_takes_no_change() -> None:
    entry = Triggers([TriggerSpec("hand", "manual")]).enter("postgres", "start", change())
    assert entry.why_not == "There is no trigger for changes of records."


def test_a_request_needs_its_own_trigger_and_a_body_that_fits() -> None:
    schema: Json = {"type": "object", "required": ["id"]}
    hook = Triggers([TriggerSpec("hook", "webhook", settings={"input_schema": schema})])
    assert hook.enter("webhook", "hook", {"body": {"id": 1}, "headers": {}}).trigger == "hook"
    misfit = hook.enter("webhook", "hook", {"body": {"a": 1}, "headers": {}})
    assert misfit.why_not.startswith("The body does not fit the `input_schema` of `hook`: ")
    assert '"id" is a required property' in misfit.why_not
    assert "leads nowhere" in hook.enter("webhook", "push", {"body": {}}).why_not


def test_a_start_by_hand_needs_an_input_that_fits_and_no_trigger() -> None:
    schema: Json = {"properties": {"n": {"type": "integer"}}}
    hand = Triggers([on("start"), TriggerSpec("hand", "manual", settings={"input_schema": schema})])
    assert hand.enter("api", "other", {"n": 1}).trigger == "hand"
    assert "/n: " in hand.enter("api", "hand", {"n": "x"}).why_not
    assert Triggers([on("start", AMOUNT)]).enter("api", "start", {"amount": 1}).trigger == "start"
    assert Triggers([]).enter("api", "start", {}).why_not == ""


def test_an_event_of_another_kind_needs_the_trigger_that_it_came_through() -> None:
    timer = Triggers([TriggerSpec("nightly", "schedule", settings={"cron": "@daily"})])
    assert timer.enter("schedule", "nightly", {}).trigger == "nightly"
    assert timer.enter("schedule", "daily", {}).why_not == "There is no trigger `daily`."
