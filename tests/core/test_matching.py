"""The trigger index finds exactly the triggers that a look at every trigger finds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permaflow.changes import CREATED, DELETED, EVENTS, UNAVAILABLE, UPDATED, ChangeRecord
from permaflow.plan import Condition, TriggerSpec
from pipeline.matching import ActiveTrigger, TriggerIndex
from specs.conditions import compile_test


def trigger(
    *conditions: tuple[str, str, Any],
    workflow: str = "w1",
    watched: str = "orders",
    events: frozenset[str] = EVENTS,
    org: str = "acme",
    kind: str = "record",
    since: int = 0,
    node: str = "start",
    **settings: Any,
) -> ActiveTrigger:
    tests = tuple(Condition(tuple(f.split(".")), op, value) for f, op, value in conditions)
    spec = TriggerSpec(node, kind, watched, events, tests, settings)
    return ActiveTrigger(org, workflow, f"{workflow}-v1", spec, since)


def change(record: dict[str, Any] | None = None, **fields: Any) -> ChangeRecord:
    defaults: dict[str, Any] = {
        "source": "shop",
        "event_id": "1",
        "object": "orders",
        "event": CREATED,
        "record": record or {},
        "namespace": "public",
    }
    return ChangeRecord(**(defaults | fields))


def fired(index: TriggerIndex, event: ChangeRecord) -> list[str]:
    return [active.workflow_id for active in index.match(event)]


# --- against a look at every trigger ------------------------------------------------------------

OPERATORS = ["eq", "ne", "gt", "gte", "lt", "lte", "changed", "changed_to", "contains", "exists"]
COMMON = st.sampled_from([0, 1, 1.0, 2, "a", "2024-01-02", "2024-01-02T00:00:00Z", None])
RARE = st.sampled_from([True, False, 2.5, 10**18, "", "1", UNAVAILABLE, [1], {"x": 1}])
VALUES = COMMON | COMMON | RARE
FIELDS = st.sampled_from(["a", "a", "a", "b", "b", "c.x", "c.0", "before.a", "before"])
SIMPLE = st.tuples(FIELDS, st.sampled_from(OPERATORS), VALUES)
LISTS = st.tuples(FIELDS, st.sampled_from(["in", "not_in"]), st.lists(VALUES, max_size=4))
ROWS = st.fixed_dictionaries({"a": VALUES, "b": VALUES}) | st.dictionaries(
    st.sampled_from("abc"), VALUES | st.fixed_dictionaries({"x": VALUES}), max_size=3
)
ORGS = st.sampled_from(["acme", "other"])
OBJECTS = st.sampled_from(["orders", "orders", "orders", "public.orders", "other.orders", "users"])
SETTINGS = st.just({}) | st.fixed_dictionaries(
    {},
    optional={
        "on_unknown": st.sampled_from(["skip", "fire", "error"]),
        "snapshot": st.booleans() | st.just("trigger"),
        "source": st.sampled_from(["shop", "elsewhere"]),
        "namespace": st.sampled_from(["public", "other"]),
    },
)
TRIGGERS = st.lists(
    st.tuples(
        st.lists(SIMPLE | LISTS, max_size=3),
        ORGS,
        OBJECTS,
        st.just(EVENTS) | st.frozensets(st.sampled_from(sorted(EVENTS)), min_size=1),
        SETTINGS,
        st.sampled_from([0, 100]),
    ).map(
        lambda parts: trigger(
            *parts[0],
            org=parts[1],
            watched=parts[2],
            events=parts[3],
            since=parts[5],
            **parts[4],
        )
    ),
    max_size=12,
).map(
    lambda found: [
        ActiveTrigger(t.org, f"w{n}", t.version_id, t.trigger, t.since) for n, t in enumerate(found)
    ]
)
CHANGES = st.builds(
    lambda row, before, event, org, namespace, snapshot, at, missing: change(
        {k: v for k, v in row.items() if k not in missing},
        before=before,
        event=event,
        org=org,
        namespace=namespace,
        snapshot=snapshot,
        at=at,
        unavailable=missing,
    ),
    ROWS,
    st.none() | ROWS,
    st.sampled_from(sorted(EVENTS)),
    st.sampled_from(["", "acme", "other"]),
    st.sampled_from(["", "public"]),
    st.booleans(),
    st.sampled_from([0, 50, 200]),
    st.frozensets(st.sampled_from("abc"), max_size=1),
)


def naive(active: ActiveTrigger, event: ChangeRecord) -> bool | None:
    """Whether a trigger fires, told from its document alone; None if that cannot be known."""
    spec, wanted = active.trigger, active.trigger.settings
    if event.org not in ("", active.org) or event.event not in spec.events:
        return False
    if spec.object not in (event.object, f"{event.namespace}.{event.object}"):
        return False
    if event.snapshot and wanted.get("snapshot") not in (True, "trigger"):
        return False
    if 0 < event.at < active.since:
        return False
    if wanted.get("source", event.source) != event.source:
        return False
    if wanted.get("namespace", event.namespace) != event.namespace:
        return False
    answers = [compile_test(condition)(event) for condition in spec.conditions]
    if False in answers:
        return False
    if None in answers:
        return True if wanted.get("on_unknown") == "fire" else None
    return True


@given(TRIGGERS, st.lists(CHANGES, min_size=1, max_size=6))
def test_the_index_finds_what_a_look_at_every_trigger_finds(
    triggers: list[ActiveTrigger], changes: list[ChangeRecord]
) -> None:
    index = TriggerIndex(triggers)
    for event in changes:
        undecided: list[ActiveTrigger] = []
        assert index.match(event, undecided) == [t for t in triggers if naive(t, event)]
        assert sorted(t.workflow_id for t in undecided) == sorted(
            t.workflow_id
            for t in triggers
            if naive(t, event) is None and t.trigger.settings.get("on_unknown") == "error"
        )


@given(TRIGGERS, st.lists(CHANGES, min_size=1, max_size=3), st.data())
def test_taking_triggers_out_leaves_an_index_of_the_others(
    triggers: list[ActiveTrigger], changes: list[ChangeRecord], data: st.DataObject
) -> None:
    index = TriggerIndex(triggers)
    names = [t.workflow_id for t in triggers]
    gone = data.draw(st.sets(st.sampled_from(names)) if names else st.just(set()))
    for name in gone:
        index.remove(name)
    rest = [t for t in triggers if t.workflow_id not in gone]
    assert len(index) == len(rest)
    assert index.objects() == {t.trigger.object for t in rest}
    for event in changes:
        assert index.match(event) == [t for t in rest if naive(t, event)]
    for name in names:
        index.remove(name)
    assert not index._groups


NEAR = st.sampled_from([0, 1, 1.5, 2, "a", "b", "2024-01-02", "2024-01-02T00:00:00Z", UNAVAILABLE])
LOOKED_UP = st.tuples(
    st.sampled_from(["a", "b"]), st.sampled_from(["eq", "gt", "gte", "lt", "lte"]), NEAR
) | st.tuples(st.just("a"), st.just("in"), st.lists(NEAR, max_size=3))


@given(
    st.lists(
        st.tuples(st.lists(LOOKED_UP, min_size=1, max_size=2), st.sampled_from(["skip", "fire"])),
        min_size=8,
        max_size=16,
    ),
    st.lists(st.fixed_dictionaries({"a": NEAR, "b": NEAR}), min_size=4, max_size=6),
    st.sets(st.integers(0, 7), max_size=5),
)
def test_a_value_on_the_threshold_or_written_otherwise_is_found(
    wanted: list[tuple[list[Any], str]], rows: list[dict[str, Any]], removed: set[int]
) -> None:
    triggers = [
        trigger(*conditions, workflow=f"w{n}", on_unknown=policy)
        for n, (conditions, policy) in enumerate(wanted)
    ]
    index = TriggerIndex(triggers)
    for number in removed:
        index.remove(f"w{number}")
    triggers = [t for n, t in enumerate(triggers) if n not in removed]
    for row in rows:
        event = change(row, event=UPDATED)
        assert index.match(event) == [t for t in triggers if naive(t, event)]


# --- one by one ---------------------------------------------------------------------------------


def test_thousands_of_thresholds_are_not_compared_one_by_one() -> None:
    index = TriggerIndex(
        trigger(("amount", "gt", n), ("amount", "lt", n + 2), workflow=f"w{n}")
        for n in range(2_000)
    )
    group = index._groups["", "orders"]
    assert len(group.candidates(change({"amount": -5}))) == 0
    assert len(group.candidates(change({"amount": 3.5}))) == 4
    assert fired(index, change({"amount": 3.5})) == ["w2", "w3"]


def test_thousands_of_values_are_not_compared_one_by_one() -> None:
    index = TriggerIndex(
        trigger(("vip", "eq", True), ("customer", "eq", n), workflow=f"w{n}") for n in range(2_000)
    )
    group = index._groups["", "orders"]
    assert len(group.candidates(change({"vip": False, "customer": 77}))) <= 2
    assert fired(index, change({"vip": True, "customer": 77})) == ["w77"]


@pytest.mark.parametrize("name", ["orders", "public.orders"])
def test_an_object_is_named_with_or_without_its_schema(name: str) -> None:
    index = TriggerIndex([trigger(watched=name)])
    assert fired(index, change()) == ["w1"]
    assert fired(index, change(object="Orders")) == []
    assert fired(index, change(namespace="audit")) == (["w1"] if name == "orders" else [])


def test_an_object_whose_name_has_a_dot_is_found_by_it() -> None:
    index = TriggerIndex([trigger(watched="crm.contact")])
    assert fired(index, change(object="crm.contact", namespace="records")) == ["w1"]


def test_a_change_of_an_organisation_fires_only_its_triggers() -> None:
    index = TriggerIndex([trigger(workflow="w1"), trigger(workflow="w2", org="other")])
    assert fired(index, change(org="acme")) == ["w1"]
    assert fired(index, change(org="nobody")) == []
    assert fired(index, change(org="")) == ["w1", "w2"]


def test_rows_of_a_snapshot_fire_only_triggers_that_ask_for_them() -> None:
    index = TriggerIndex([trigger(workflow="w1"), trigger(workflow="w2", snapshot=True)])
    assert fired(index, change(snapshot=True)) == ["w2"]


def test_changes_from_before_the_activation_are_not_the_triggers_own() -> None:
    index = TriggerIndex([trigger(since=1000)])
    assert fired(index, change(at=999)) == []
    assert fired(index, change(at=1000)) == ["w1"]
    assert fired(index, change(at=0)) == ["w1"]


def test_an_unknown_value_fires_only_if_the_trigger_says_so() -> None:
    conditions = (("body", "eq", "x"),)
    index = TriggerIndex(
        [
            trigger(*conditions, workflow="skip"),
            trigger(*conditions, workflow="fire", on_unknown="fire"),
            trigger(*conditions, workflow="error", on_unknown="error"),
        ]
    )
    undecided: list[ActiveTrigger] = []
    event = change({}, event=UPDATED, unavailable=frozenset({"body"}))
    assert [t.workflow_id for t in index.match(event, undecided)] == ["fire"]
    assert [t.workflow_id for t in undecided] == ["error"]


def test_a_status_that_changed_to_a_value_is_looked_up() -> None:
    index = TriggerIndex(
        trigger(("status", "changed_to", f"s{n}"), workflow=f"w{n}") for n in range(100)
    )
    event = change({"status": "s7"}, event=UPDATED, before={"status": "s6"})
    assert fired(index, event) == ["w7"]
    assert len(index._groups["", "orders"].candidates(event)) == 1
    assert fired(index, change({"status": "s7"}, event=DELETED, before={"status": "s6"})) == []


def test_a_workflow_may_have_two_triggers() -> None:
    index = TriggerIndex([trigger(node="a"), trigger(node="b", watched="users")])
    assert fired(index, change()) == fired(index, change(object="users")) == ["w1"]
    index.remove("w1")
    assert fired(index, change()) == fired(index, change(object="users")) == []


def test_triggers_of_other_kinds_are_passed_over() -> None:
    index = TriggerIndex([trigger(kind="webhook")])
    assert (len(index), index.objects(), fired(index, change())) == (0, frozenset(), [])


@given(TRIGGERS, TRIGGERS, st.lists(CHANGES, min_size=1, max_size=3))
def test_replacing_all_triggers_is_as_good_as_a_new_index(
    old: list[ActiveTrigger], new: list[ActiveTrigger], changes: list[ChangeRecord]
) -> None:
    new = [ActiveTrigger(t.org, t.workflow_id, "v2", t.trigger, t.since) for t in new]
    index = TriggerIndex(old)
    index.replace([*old[:3], *new[3:]])
    fresh = TriggerIndex([*old[:3], *new[3:]])
    assert (len(index), index.objects()) == (len(fresh), fresh.objects())
    for event in changes:
        assert sorted(fired(index, event)) == sorted(fired(fresh, event))


def test_a_new_version_or_a_new_activation_replaces_the_old_one() -> None:
    index = TriggerIndex([trigger(("a", "eq", 1), workflow="w1"), trigger(workflow="w2")])
    other = trigger(("a", "eq", 2), workflow="w1")
    index.replace([ActiveTrigger(other.org, "w1", "v2", other.trigger)])
    assert fired(index, change({"a": 1})) == []
    assert fired(index, change({"a": 2})) == ["w1"]
    index.replace([ActiveTrigger(other.org, "w1", "v2", other.trigger, since=9)])
    assert fired(index, change({"a": 2}, at=8)) == []
