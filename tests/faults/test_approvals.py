"""Gateways and orchestrators killed while people decide: each approval still has one winner."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.faults.cluster import Cluster

pytestmark = [pytest.mark.service, pytest.mark.slow]

VERTICES = ("orchestrator", "orchestrator", "clock", "completion", "gateway")
KILLED = ("gateway", "orchestrator")
PEOPLE = ("ana", "bob", "carl", "dora")
RUNS = 60
SAID_BETWEEN = 40
"""Starts and decisions from one kill to the next."""

WITHIN = 90.0
DOCUMENT = {
    "nodes": [
        {"id": "t", "type": "trigger_manual"},
        {
            "id": "ask",
            "type": "logic_approval",
            "config": {"assignees": list(PEOPLE), "quorum": {"at_least": 2}, "veto": True},
        },
    ],
    "edges": [{"id": "e", "source": "t", "target": "ask"}],
}


class Trial:
    """The cluster, and what was done to it."""

    def __init__(self, cluster: Cluster, http: httpx.AsyncClient, seed: int) -> None:
        self.cluster = cluster
        self.http = http
        self.chance = random.Random(seed)
        self.seen: Counter[str] = Counter()
        self.said = asyncio.Event()

    async def call(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """An answer, however often the gateway dies before it comes."""
        while True:
            try:
                answer = await self.http.request(method, path, json=body, params=query)
            except httpx.HTTPError:
                self.seen["cut off"] += 1
                await asyncio.sleep(0.1)
                continue
            if answer.status_code < 500:
                self.seen["said"] += method == "POST"
                self.said.set()
                return answer
            self.seen["unavailable"] += 1
            await asyncio.sleep(0.05)

    async def kill(self) -> None:
        """One process after the other, whenever people have said enough again."""
        while True:
            self.said.clear()
            while self.seen["said"] < SAID_BETWEEN * (1 + self.seen["killed gateway"]):
                await self.said.wait()
                self.said.clear()
            for vertex in KILLED:
                victim = self.chance.choice(self.cluster.pick(vertex))
                if self.cluster.signal(victim, signal.SIGKILL):
                    self.seen[f"killed {vertex}"] += 1

    async def decide(self, approval: str) -> dict[str, httpx.Response]:
        """Everybody says something, in any order."""
        people = list(PEOPLE)
        self.chance.shuffle(people)

        async def say(person: str) -> httpx.Response:
            decision = "approve" if self.chance.random() < 0.8 else "reject"
            body = {"decision": decision, "user": person}
            path = f"/workflows/v1/approvals/{approval}/respond"
            found: httpx.Response = await self.call("POST", path, body)
            return found

        return dict(zip(people, await asyncio.gather(*map(say, people)), strict=True))

    async def approval_of(self, run_id: str) -> str:
        while True:
            found = await self.call("GET", "/workflows/v1/approvals/pending", run_id=run_id)
            if found.json()["data"]:
                return str(found.json()["data"][0]["id"])
            await asyncio.sleep(0.05)

    async def ended(self, run_id: str) -> dict[str, Any]:
        while True:
            run: dict[str, Any] = (await self.call("GET", f"/workflows/v1/runs/{run_id}")).json()
            if run["finished_at"] is not None:
                return run
            await asyncio.sleep(0.1)


async def one(trial: Trial, workflow_id: str) -> str:
    """One run from its start to its end; the winner."""
    key = {"workflow_id": workflow_id}
    started = await trial.call("POST", "/workflows/v1/runs", key)
    run_id = started.json()["id"]
    approval = await trial.approval_of(run_id)
    told = await trial.decide(approval)
    run = await trial.ended(run_id)
    view = (await trial.call("GET", f"/workflows/v1/approvals/{approval}")).json()
    assert view["status"] in ("approved", "rejected")
    assert run["status"] == {"approved": "completed", "rejected": "failed"}[view["status"]]
    if view["status"] == "approved":
        assert run["output"]["by"] == view["closed_by"]
        assert len(run["output"]["decisions"]) == len(view["decisions"])
    assert {each.status_code for each in told.values()} <= {200, 409}
    decided = {each["user"] for each in view["decisions"]}
    closing = [name for name, each in told.items() if _closes(each)]
    # Who was cut off after the commit asks again, and is told what had come of it.
    assert closing in ([view["closed_by"]], [])
    assert {name for name, each in told.items() if each.status_code == 200} <= decided
    return str(view["status"])


def _closes(answer: httpx.Response) -> bool:
    return answer.status_code == 200 and answer.json()["status"] != "pending"


async def test_gateways_and_orchestrators_that_are_killed_change_no_decision(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        cluster = await Cluster(tmp_path, VERTICES).start(stack)
        http = httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{cluster.port}",
            headers={"authorization": f"Bearer {cluster.api_key}"},
            timeout=5.0,
        )
        await stack.enter_async_context(http)
        trial = Trial(cluster, http, random.randrange(10**6))
        made = await trial.call(
            "POST", "/workflows/v1/definitions", {"name": "Ask", "definition": DOCUMENT}
        )
        path = f"/workflows/v1/definitions/{made.json()['id']}/status"
        await trial.call("PATCH", path, {"status": "active"})
        killing = asyncio.create_task(trial.kill())
        async with asyncio.timeout(WITHIN):
            winners: Counter[str] = Counter()
            for _ in range(0, RUNS, 15):
                found = await asyncio.gather(*(one(trial, made.json()["id"]) for _ in range(15)))
                winners.update(found)
        killing.cancel()
    print(dict(trial.seen), dict(winners))
    assert winners.total() == RUNS
    assert set(winners) == {"approved", "rejected"}
    assert trial.seen["killed gateway"] >= 2
    assert trial.seen["killed orchestrator"] >= 2
    assert trial.seen["cut off"] >= 1
