"""The two workflows of the tutorial for real: changes of records start them, a provider answers
over HTTP, people approve with keys of their own, and the records tell what came of it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from pipeline.store import keys
from tests.connectors.sites import Seen, Site, answer
from tests.fix_gateway import RUNS
from tests.fix_site import RunningSite, Sites

pytestmark = pytest.mark.service

EXAMPLES = Path(__file__).parents[2] / "examples"
APPROVALS = "/workflows/v1/approvals"
PERSONAL = ["approvals:read", "approvals:write", "notifications:read"]
KEY = "pay-4711"


@dataclass
class Town:
    """The running system, its people, and the provider whom the workflows speak to."""

    site: RunningSite
    provider: Site
    stack: AsyncExitStack

    async def person(self, name: str) -> httpx.AsyncClient:
        engine = self.site.engine
        _, key = await engine.database.run(keys.create, engine.org, name, PERSONAL, user_name=name)
        client = httpx.AsyncClient(
            base_url=self.site.door.base_url, headers={"authorization": f"Bearer {key}"}
        )
        return await self.stack.enter_async_context(client)

    async def group(self, name: str, *members: str) -> None:
        path = f"/workflows/v1/groups/{name}"
        answered = await self.site.door.put(path, json={"members": members})
        assert answered.status_code in (200, 201), answered.text

    async def make(self, noun: str, name: str, data: dict[str, Any]) -> None:
        body = {"id": name, "data": data}
        answered = await self.site.door.post(f"/records/v1/{noun}", json=body)
        assert answered.status_code == 201, answered.text

    async def records(self, noun: str) -> list[dict[str, Any]]:
        found = (await self.site.door.get(f"/records/v1/{noun}")).json()["data"]
        return [each["data"] for each in found]

    async def decide(self, name: str, decision: str, **more: Any) -> dict[str, Any]:
        """Answer the approval that waits for this person, once there is one; gives it."""
        person = await self.person(name)

        async def waiting() -> list[dict[str, Any]]:
            found: list[dict[str, Any]] = (await person.get(f"{APPROVALS}/pending")).json()["data"]
            return found

        (asked,) = await self.site.engine.once(waiting)
        path = f"{APPROVALS}/{asked['id']}/respond"
        answered = await person.post(path, json={"decision": decision, **more})
        assert answered.status_code == 200, answered.text
        return asked

    async def told(self, name: str) -> list[str]:
        person = await self.person(name)
        found = (await person.get("/notifications/v1")).json()["data"]
        return [each["title"] for each in found]

    async def steps(self, run: dict[str, Any]) -> dict[str, str]:
        """What became of each step, in their order."""
        found = (await self.site.door.get(f"{RUNS}/{run['id']}/steps")).json()["data"]
        return {each["node"]: each["status"] for each in found}

    def asked(self) -> list[str]:
        return [f"{seen.method} {seen.path}" for seen in self.provider.seen]


def provide(seen: Seen) -> bytes:
    """The stock, the payments and the parcels: nobody carries anything to Nowhere."""
    match seen.method, seen.path:
        case "POST", "/pay/charges" | "/pay/refunds" if (
            seen.headers.get("authorization") != f"Bearer {KEY}"
        ):
            return answer(401)
        case "POST", "/parcels/shipments":
            if orjson.loads(seen.body)["to"] == "Nowhere":
                return _said(422, {"error": "no_carrier"})
            return _said(201, {"tracking": "P-1"})
        case "POST", "/stock/reservations" | "/pay/charges" | "/pay/refunds":
            return _said(201, {"id": "1"})
        case "DELETE", path if path.startswith("/stock/reservations/"):
            return answer(204)
    return answer(404)


def _said(status: int, body: Any) -> bytes:
    return answer(status, {"Content-Type": "application/json"}, orjson.dumps(body))


@asynccontextmanager
async def town(sites: Sites) -> AsyncIterator[Town]:
    async with (
        Site(provide) as provider,
        sites(http_allow=provider.permit) as site,
        AsyncExitStack() as stack,
    ):
        yield Town(site, provider, stack)


def example(name: str, provider: Site) -> dict[str, Any]:
    """An example as it is in its file; only the addresses are ours."""
    text = (EXAMPLES / f"{name}.json").read_text(encoding="utf-8")
    for host in ("stock", "pay", "parcels"):
        text = text.replace(f"https://{host}.example.com", f"{provider.url}/{host}")
    assert "example.com" not in text
    found: dict[str, Any] = json.loads(text)
    return found


# --- an order -------------------------------------------------------------------------------------


async def orders(town: Town) -> str:
    """The active workflow, with the key that it pays by."""
    stored = await town.site.door.put("/secrets/v1/payments-key", json={"value": KEY})
    assert stored.status_code == 204, stored.text
    workflow = await town.site.active(example("order-fulfilment", town.provider))
    await town.site.published("record")
    return str(workflow["id"])


def order(amount: int, address: str = "Main St 1") -> dict[str, Any]:
    return {"amount": amount, "address": address, "lines": [{"sku": "tea", "count": 2}]}


async def test_an_order_is_reserved_charged_and_shipped(sites: Sites) -> None:
    async with town(sites) as here:
        workflow = await orders(here)
        await here.make("orders", "ord-1", order(120))
        (run,) = await here.site.ended(workflow, 1)
        assert run["status"] == "completed"
        assert here.asked() == [
            "POST /stock/reservations",
            "POST /pay/charges",
            "POST /parcels/shipments",
        ]
        reserved, charged, _ = (orjson.loads(seen.body) for seen in here.provider.seen)
        assert reserved == {"order": "ord-1", "lines": [{"sku": "tea", "count": 2}]}
        assert charged == {"order": "ord-1", "amount": 120}
        assert await here.records("order_event") == [
            {"order": "ord-1", "what": "shipped", "tracking": "P-1"}
        ]


async def test_an_order_that_nobody_will_carry_is_undone_the_last_step_first(sites: Sites) -> None:
    async with town(sites) as here:
        workflow = await orders(here)
        await here.make("orders", "ord-2", order(120, "Nowhere"))
        (run,) = await here.site.ended(workflow, 1)
        assert run["status"] == "compensated"
        assert here.asked() == [
            "POST /stock/reservations",
            "POST /pay/charges",
            "POST /parcels/shipments",
            "POST /pay/refunds",
            "DELETE /stock/reservations/ord-2",
        ]
        assert orjson.loads(here.provider.seen[3].body) == {"order": "ord-2", "amount": 120}
        assert len({seen.headers["idempotency-key"] for seen in here.provider.seen}) == 5
        assert await here.records("order_event") == [
            {"order": "ord-2", "what": "failed", "step": "ship", "why": "HTTP 422"}
        ]
        steps = await here.steps(run)
        assert list(steps)[-3:] == ["charge#compensate", "reserve#compensate", "note-failed"]


async def test_a_large_order_waits_for_somebody_in_sales(sites: Sites) -> None:
    async with town(sites) as here:
        await here.group("sales", "sam", "sue")
        workflow = await orders(here)
        await here.make("orders", "ord-3", order(9_000))
        asked = await here.decide("sue", "approve")
        assert asked["title"] == "Order ord-3 over 9000"
        (run,) = await here.site.ended(workflow, 1)
        assert run["status"] == "completed"
        assert (await here.steps(run))["approve"] == "completed"
        assert "POST /parcels/shipments" in here.asked()


async def test_a_large_order_that_is_refused_is_never_charged(sites: Sites) -> None:
    async with town(sites) as here:
        await here.group("sales", "sam", "sue")
        workflow = await orders(here)
        await here.make("orders", "ord-4", order(9_000))
        await here.decide("sam", "reject", comment="too dear")
        (run,) = await here.site.ended(workflow, 1)
        assert run["status"] == "compensated"
        assert here.asked() == ["POST /stock/reservations", "DELETE /stock/reservations/ord-4"]
        (told,) = await here.records("order_event")
        assert (told["what"], told["step"]) == ("failed", "approve")
        assert "too dear" in told["why"]


# --- a change of metadata -------------------------------------------------------------------------

ASSET = {"owner": "ana", "description": "All of them.", "tags": []}


async def requests(town: Town, **changed: Any) -> str:
    """The active workflow, and the asset that changes are asked for."""
    document = example("metadata-approval", town.provider)
    for task in document["definition"]["dag"]["tasks"]:
        if task["name"] == "manual-approval-block":
            kept = [each for each in task["arguments"] if not each.keys() & changed.keys()]
            given = [{name: value} for name, value in changed.items() if value]
            task["arguments"] = [*kept, *given]
    await town.make("asset", "orders", ASSET)
    await town.group("stewards", "sten")
    workflow = await town.site.active(document)
    await town.site.published("record")
    return str(workflow["id"])


def change(by: str, **fields: Any) -> dict[str, Any]:
    return {"asset": "orders", "requested_by": by, "change": fields}


async def test_a_small_change_by_the_owner_is_applied_at_once(sites: Sites) -> None:
    async with town(sites) as here:
        workflow = await requests(here)
        await here.make("change_request", "r-1", change("ana", description="Open ones."))
        (run,) = await here.site.ended(workflow, 1)
        assert run["status"] == "completed"
        assert await here.records("asset") == [{**ASSET, "description": "Open ones."}]
        assert (await here.records("change_request"))[0]["status"] == "applied"
        assert await here.told("ana") == ["Your request was approved!"]


async def test_another_change_is_applied_once_a_steward_approves(sites: Sites) -> None:
    async with town(sites) as here:
        workflow = await requests(here)
        await here.make("change_request", "r-2", change("bob", owner="bob"))
        asked = await here.decide("sten", "approve")
        assert asked["title"] == "bob wants to change orders"
        (run,) = await here.site.ended(workflow, 1)
        assert run["status"] == "completed"
        assert await here.records("asset") == [{**ASSET, "owner": "bob"}]
        assert (await here.records("change_request"))[0]["status"] == "applied"
        assert await here.told("bob") == ["Your request was approved!"]


async def test_a_change_that_its_owner_rejects_is_not_applied(sites: Sites) -> None:
    async with town(sites) as here:
        workflow = await requests(here)
        await here.make("change_request", "r-3", change("bob", owner="bob"))
        await here.decide("ana", "reject", comment="It is mine.")
        (run,) = await here.site.ended(workflow, 1)
        assert run["status"] == "completed"
        assert await here.records("asset") == [ASSET]
        assert (await here.records("change_request"))[0]["status"] == "refused"
        assert await here.told("bob") == ["Your request was not carried out"]


async def test_a_change_that_nobody_looks_at_in_time_is_not_applied(sites: Sites) -> None:
    async with town(sites) as here:
        workflow = await requests(here, timeout_seconds=0.5, escalation=None, reminder=None)
        await here.make("change_request", "r-4", change("bob", owner="bob"))
        (run,) = await here.site.ended(workflow, 1)
        assert run["status"] == "completed"
        assert (await here.steps(run))["tell-refused"] == "completed"
        assert await here.records("asset") == [ASSET]
        assert (await here.records("change_request"))[0]["status"] == "refused"


async def test_a_change_of_what_is_not_there_is_refused(sites: Sites) -> None:
    async with town(sites) as here:
        workflow = await requests(here)
        asked = {**change("bob", owner="bob"), "asset": "nothing"}
        await here.make("change_request", "r-5", asked)
        (run,) = await here.site.ended(workflow, 1)
        assert run["status"] == "completed"
        assert await here.told("bob") == ["Your request was not carried out"]
