"""Workflows: versions that never change, legal statuses, triggers that switch with them."""

from __future__ import annotations

import asyncio
from itertools import product
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from permaflow.errors import NotFoundError, StateError
from pipeline.store import triggers, versions, workflows
from pipeline.store.database import Database
from pipeline.store.workflows import TRANSITIONS, Draft
from tests.fix_store import DRAFT, TRIGGERS, active_workflow

pytestmark = pytest.mark.service

NEXT = Draft(name="Renamed", document=b'{"next":true}', dialect="dag", triggers=TRIGGERS[1:])

TO_REACH = {
    "draft": [],
    "active": ["active"],
    "paused": ["active", "paused"],
    "archived": ["archived"],
}


async def workflow_in(store: Database, org: UUID, status: str) -> UUID:
    workflow_id = uuid7()
    await store.run(workflows.create, org, workflow_id, DRAFT)
    for step in TO_REACH[status]:
        await store.run(workflows.set_status, org, workflow_id, step, TRIGGERS)
    return workflow_id


async def nodes(store: Database, workflow_id: UUID) -> dict[str, int]:
    """The active triggers of a workflow: node → version."""
    found = await store.run(triggers.active)
    return {each.spec.node: each.version for each in found if each.workflow_id == workflow_id}


async def test_a_new_workflow_is_a_draft_at_version_1(store: Database, org: UUID) -> None:
    made = await store.run(workflows.create, org, uuid7(), DRAFT)
    assert (made.status, made.version, made.activated_at) == ("draft", 1, None)
    assert await store.run(workflows.get, org, made.id) == made
    assert await nodes(store, made.id) == {}


async def test_a_document_comes_back_as_it_was_written(store: Database, org: UUID) -> None:
    text = '{"b":1,  "a": [1.0, 1e2, "ü"]}\n'.encode()
    workflow_id = uuid7()
    await store.run(workflows.create, org, workflow_id, Draft("n", text, "graph", by="me"))
    found = await store.run(versions.document, workflow_id)
    assert (found.document, found.dialect, found.created_by) == (text, "graph", "me")


async def test_an_update_makes_the_next_version_and_leaves_the_first(
    store: Database, org: UUID, workflow: UUID
) -> None:
    changed = await store.run(workflows.update, org, workflow, NEXT)
    assert (changed.version, changed.name, changed.status) == (2, "Renamed", "active")
    assert (await store.run(versions.document, workflow)).document == NEXT.document
    assert (await store.run(versions.document, workflow, 1)).document == DRAFT.document
    found = await store.run(versions.find, org, workflow)
    assert [(each.version, each.dialect) for each in found] == [(2, "dag"), (1, "graph")]


async def test_concurrent_updates_make_one_version_each(
    store: Database, org: UUID, workflow: UUID
) -> None:
    made = await asyncio.gather(
        *(store.run(workflows.update, org, workflow, NEXT) for _ in range(10))
    )
    assert sorted(each.version for each in made) == list(range(2, 12))


async def test_an_update_of_what_somebody_else_has_changed_is_refused(
    store: Database, org: UUID, workflow: UUID
) -> None:
    await store.run(workflows.update, org, workflow, NEXT, expected=1)
    with pytest.raises(StateError, match="at version 2, not 1"):
        await store.run(workflows.update, org, workflow, NEXT, expected=1)


async def test_an_archived_workflow_cannot_be_changed(store: Database, org: UUID) -> None:
    workflow_id = await workflow_in(store, org, "archived")
    with pytest.raises(StateError, match="archived workflow cannot be changed"):
        await store.run(workflows.update, org, workflow_id, NEXT)


@pytest.mark.parametrize(("before", "after"), list(product(TRANSITIONS, TRANSITIONS)))
async def test_a_status_follows_only_where_the_table_allows_it(
    store: Database, org: UUID, before: str, after: str
) -> None:
    workflow_id = await workflow_in(store, org, before)
    if after in TRANSITIONS[before]:
        changed = await store.run(workflows.set_status, org, workflow_id, after, TRIGGERS)
        assert changed.status == after
    else:
        possible = " or ".join(TRANSITIONS[before]) or "nothing else"
        with pytest.raises(StateError, match=f"is {before} .* can become {possible}"):
            await store.run(workflows.set_status, org, workflow_id, after, TRIGGERS)
        assert (await store.run(workflows.get, org, workflow_id)).status == before


def test_the_legal_transitions_are_those_that_users_were_promised() -> None:
    legal = {(before, after) for before, several in TRANSITIONS.items() for after in several}
    assert legal == {
        ("draft", "active"),
        ("draft", "archived"),
        ("active", "paused"),
        ("paused", "active"),
        ("paused", "archived"),
    }


async def test_an_activation_of_a_version_that_is_no_longer_current_is_refused(
    store: Database, org: UUID
) -> None:
    workflow_id = await workflow_in(store, org, "draft")
    await store.run(workflows.update, org, workflow_id, NEXT)
    with pytest.raises(StateError, match="version 2, not 1"):
        await store.run(workflows.set_status, org, workflow_id, "active", TRIGGERS, expected=1)


async def test_only_an_active_workflow_has_triggers(store: Database, org: UUID) -> None:
    workflow_id = await workflow_in(store, org, "active")
    assert await nodes(store, workflow_id) == {"hook": 1, "row": 1}
    await store.run(workflows.set_status, org, workflow_id, "paused")
    assert await nodes(store, workflow_id) == {}
    await store.run(workflows.set_status, org, workflow_id, "active", TRIGGERS)
    await store.run(workflows.delete, org, workflow_id)
    assert await nodes(store, workflow_id) == {}


async def test_triggers_of_an_active_workflow_switch_with_its_version(
    store: Database, org: UUID, workflow: UUID
) -> None:
    await store.run(workflows.update, org, workflow, NEXT)
    assert await nodes(store, workflow) == {"row": 2}


async def test_an_update_of_a_draft_brings_no_triggers(store: Database, org: UUID) -> None:
    workflow_id = await workflow_in(store, org, "draft")
    await store.run(workflows.update, org, workflow_id, NEXT)
    assert await nodes(store, workflow_id) == {}


async def test_a_trigger_comes_back_as_it_was_compiled(
    store: Database, org: UUID, workflow: UUID
) -> None:
    found = await store.run(triggers.active)
    assert tuple(each.spec for each in found) == TRIGGERS
    assert {(each.org, each.workflow_id) for each in found} == {(org, workflow)}
    [only] = await store.run(triggers.active, "webhook")
    assert only.spec == TRIGGERS[0]


async def test_the_generation_grows_exactly_when_active_triggers_change(
    store: Database, org: UUID
) -> None:
    async def grew() -> bool:
        nonlocal seen
        before, seen = seen, await store.run(triggers.generation)
        return seen > before

    seen = await store.run(triggers.generation)
    workflow_id = await workflow_in(store, org, "draft")
    await store.run(workflows.update, org, workflow_id, NEXT)
    assert not await grew()
    for status in ("active", "paused", "active"):
        await store.run(workflows.set_status, org, workflow_id, status, TRIGGERS)
        assert await grew()
    await store.run(workflows.update, org, workflow_id, NEXT)
    assert await grew()
    await store.run(workflows.delete, org, workflow_id)
    assert await grew()


async def test_the_address_of_a_webhook_stays_over_versions_and_pauses(
    store: Database, org: UUID, workflow: UUID
) -> None:
    [first] = await store.run(triggers.webhooks, org, workflow)
    assert len(first.token) >= 32
    await store.run(workflows.update, org, workflow, DRAFT)
    await store.run(workflows.set_status, org, workflow, "paused")
    await store.run(workflows.set_status, org, workflow, "active", TRIGGERS)
    assert await store.run(triggers.webhooks, org, workflow) == [first]


async def test_a_webhook_tells_the_status_of_its_workflow(
    store: Database, org: UUID, workflow: UUID
) -> None:
    [hook] = await store.run(triggers.webhooks, org, workflow)
    await store.run(workflows.set_status, org, workflow, "paused")
    target = await store.run(triggers.find_webhook, hook.token)
    assert target is not None
    assert (target.workflow_id, target.status, target.version) == (workflow, "paused", 1)
    await store.run(workflows.delete, org, workflow)
    assert await store.run(triggers.find_webhook, hook.token) is None
    assert await store.run(triggers.find_webhook, "wrong") is None


async def test_a_webhook_has_its_secret_before_and_after_it_is_active(
    store: Database, org: UUID
) -> None:
    workflow_id = await workflow_in(store, org, "draft")
    token = await store.run(triggers.set_webhook_secret, org, workflow_id, "hook", b"sealed")
    await store.run(workflows.set_status, org, workflow_id, "active", TRIGGERS)
    [hook] = await store.run(triggers.webhooks, org, workflow_id)
    assert (hook.token, hook.is_signed) == (token, True)
    target = await store.run(triggers.find_webhook, token)
    assert target is not None
    assert target.encrypted_secret == b"sealed"
    await store.run(triggers.set_webhook_secret, org, workflow_id, "hook", None)
    [hook] = await store.run(triggers.webhooks, org, workflow_id)
    assert not hook.is_signed


async def test_what_is_deleted_or_belongs_to_others_is_not_found(
    store: Database, org: UUID, other_org: UUID, workflow: UUID
) -> None:
    with pytest.raises(NotFoundError):
        await store.run(workflows.get, other_org, workflow)
    with pytest.raises(NotFoundError):
        await store.run(triggers.set_webhook_secret, other_org, workflow, "hook", b"x")
    await store.run(workflows.delete, org, workflow)
    for refused in (workflows.get, workflows.delete):
        with pytest.raises(NotFoundError):
            await store.run(refused, org, workflow)
    assert await store.run(workflows.find, org) == []


async def test_pages_follow_each_other_without_gaps(store: Database, org: UUID) -> None:
    made = [await active_workflow(store, org) for _ in range(5)]
    await store.run(workflows.set_status, org, made[0], "paused")
    first = await store.run(workflows.find, org, limit=3)
    rest = await store.run(workflows.find, org, limit=3, before=first[-1].id)
    assert [each.id for each in first + rest] == made[::-1]
    assert [each.id for each in await store.run(workflows.find, org, status="paused")] == made[:1]
