"""The steps dialect with everything running: events of records in, records out."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from tests.fix_engine import WITHIN
from tests.fix_site import RunningSite

pytestmark = pytest.mark.service

ONBOARDING = {
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
    "fallback": [{"action": "Ticket.create", "mapping": {"why": "error.message"}}],
    "timeout": 30_000,
}
DEAL = {"name": "Acme", "plan": "pro", "status": "open", "contact": {"name": "Ann"}}


async def data_of(door: httpx.AsyncClient, noun: str) -> list[dict[str, Any]]:
    found = (await door.get(f"/records/v1/{noun}")).json()["data"]
    return [{"id": record["id"], **record["data"]} for record in found]


async def made(door: httpx.AsyncClient, noun: str, record_id: str, data: Any) -> None:
    answer = await door.post(f"/records/v1/{noun}", json={"id": record_id, "data": data})
    assert answer.status_code == 201, answer.text


async def test_a_deal_that_is_won_becomes_a_customer_with_all_that_belongs_to_it(
    site: RunningSite,
) -> None:
    workflow = await site.active({"name": "Onboarding", "definition": ONBOARDING})
    await made(site.door, "Deal", "d1", DEAL)
    changed = await site.door.patch("/records/v1/Deal/d1", json={"data": {"status": "won"}})
    assert changed.status_code == 200
    (run,) = await site.ended(workflow["id"], 1)
    assert run["status"] == "completed"
    (customer,) = await data_of(site.door, "Customer")
    assert customer == {"id": customer["id"], "name": "Acme", "contact": {"name": "Ann"}}
    (subscription,) = await data_of(site.door, "Subscription")
    assert (subscription["plan"], subscription["customer"]) == ("pro", customer["id"])
    (activity,) = await data_of(site.door, "Activity")
    assert (activity["subject"], activity["type"]) == ("Welcome call with Ann", "Call")
    assert await data_of(site.door, "Ticket") == []


async def test_a_deal_that_lacks_what_a_step_needs_becomes_a_ticket(site: RunningSite) -> None:
    workflow = await site.active({"name": "Onboarding", "definition": ONBOARDING})
    await made(site.door, "Deal", "d1", {"name": "Acme", "status": "won", "contact": {}})
    (run,) = await site.ended(workflow["id"], 1)
    assert run["status"] == "completed"
    (ticket,) = await data_of(site.door, "Ticket")
    assert "`deal.plan` leads nowhere" in ticket["why"]
    assert await data_of(site.door, "Project") == []


async def test_leads_go_round_those_who_take_turns(site: RunningSite) -> None:
    document = {
        "triggerEvent": "Lead.created",
        "steps": [
            {
                "action": "Lead.assign",
                "mapping": {"assignee": "round-robin"},
                "assignees": ["ann", "bo", "cy"],
            },
            {
                "action": "Activity.create",
                "mapping": {"subject": '"Follow up: " + lead.name', "type": "Task"},
                "flag": "follow-up",
            },
        ],
        "errorHandling": "Continue",
    }
    workflow = await site.active({"name": "Assignment", "definition": document})
    async with asyncio.timeout(WITHIN):
        await asyncio.gather(
            *(made(site.door, "Lead", f"l{i}", {"name": f"Lead {i}"}) for i in range(7))
        )
    assert {run["status"] for run in await site.ended(workflow["id"], 7)} == {"completed"}
    taken = sorted(lead["assignee"] for lead in await data_of(site.door, "Lead"))
    assert taken == ["ann", "ann", "ann", "bo", "bo", "cy", "cy"]
    assert await data_of(site.door, "Activity") == []
    await made(site.door, "FeatureFlag", "follow-up", {"enabled": True})
    await made(site.door, "Lead", "l8", {"name": "Lead 8"})
    await site.ended(workflow["id"], 8)
    (activity,) = await data_of(site.door, "Activity")
    assert activity["subject"] == "Follow up: Lead 8"


async def test_what_fails_is_undone_and_told(site: RunningSite) -> None:
    document = {
        "triggerEvent": "Deal.won",
        "steps": [
            {
                "action": "Customer.create",
                "mapping": {"name": "deal.name"},
                "compensate": {"action": "Customer.delete"},
            },
            {"action": "Invoice.create", "mapping": {"total": "deal.total * 2"}},
        ],
        "onFailure": {"action": "Deal.update", "mapping": {"stage": "stuck", "at": "error.node"}},
    }
    workflow = await site.active({"name": "Undone", "definition": document})
    await made(site.door, "Deal", "d1", {"name": "Acme", "status": "won", "total": "many"})
    (run,) = await site.ended(workflow["id"], 1)
    assert run["status"] == "compensated"
    shown = (await site.door.get(f"/workflows/v1/runs/{run['id']}")).json()
    assert shown["error"]["code"] == "evaluation"
    assert await data_of(site.door, "Customer") == []
    (deal,) = await data_of(site.door, "Deal")
    assert (deal["stage"], deal["at"]) == ("stuck", "step_1")
