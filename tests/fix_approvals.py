"""The whole engine with the gateway before it, and people with keys of their own.

town        the engine, the gateway, and `await town.person("ana")`: a client with ana's key
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import httpx
import pytest

from permaflow.plan import Json
from pipeline.core.entries import Succeeded
from pipeline.gateway.app import Application
from pipeline.gateway.ports import Ports, open_ports
from pipeline.ids import question_id
from pipeline.ops import Ops
from pipeline.store import keys, runs
from pipeline.store.database import Database
from tests.fix_engine import Engine, graph, task

APPROVALS = "/workflows/v1/approvals"
GROUPS = "/workflows/v1/groups"
PERSONAL = ("approvals:read", "approvals:write", "runs:read", "runs:write")


@dataclass
class Town:
    """Everything that an approval needs."""

    engine: Engine
    ports: Ports
    application: Application
    stack: AsyncExitStack
    people: dict[str, httpx.AsyncClient] = field(default_factory=dict)

    async def person(self, name: str, *scopes: str) -> httpx.AsyncClient:
        """A client with a key of this person; "" is a key that is nobody's."""
        who = f"{name} {scopes}"
        if who not in self.people:
            wanted = list(scopes or PERSONAL)
            _, text = await self.engine.database.run(
                keys.create, self.engine.org, name or "nobody", wanted, user_name=name
            )
            client = httpx.AsyncClient(
                transport=httpx.ASGITransport(app=self.application.asgi),
                base_url="http://gateway",
                headers={"authorization": f"Bearer {text}"},
            )
            self.people[who] = await self.stack.enter_async_context(client)
        return self.people[who]

    async def admin(self) -> httpx.AsyncClient:
        return await self.person("", "admin")

    async def group(self, name: str, *members: str) -> None:
        answer = await (await self.admin()).put(f"{GROUPS}/{name}", json={"members": members})
        assert answer.status_code in (200, 201), answer.text

    async def asked(self, data: Json = None, **config: Any) -> Gate:
        """A run that waits for an approval."""
        node = config.pop("node", {})
        return await self.run(gate(config, **node), data)

    async def run(self, document: Json, data: Json = None) -> Gate:
        """A run of a document whose approval is `ask`."""
        (run_id,) = await self.engine.start(await self.engine.workflow(document), data)
        await self.engine.until(run_id, "waiting")
        return Gate(self, run_id, question_id(run_id, "", "ask", 1))


@dataclass
class Gate:
    """One approval, and the run that waits for it."""

    town: Town
    run_id: UUID
    id: UUID

    async def respond(self, name: str, decision: str, **body: Any) -> httpx.Response:
        person = await self.town.person(name)
        sent = {"decision": decision, **body}
        return await person.post(f"{APPROVALS}/{self.id}/respond", json=sent)

    async def approve(self, name: str, **body: Any) -> None:
        answer = await self.respond(name, "approve", **body)
        assert answer.status_code == 200, answer.text

    async def reject(self, name: str, **body: Any) -> None:
        answer = await self.respond(name, "reject", **body)
        assert answer.status_code == 200, answer.text

    async def view(self, name: str = "") -> dict[str, Any]:
        person = await (self.town.person(name) if name else self.town.admin())
        answer = await person.get(f"{APPROVALS}/{self.id}")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    async def end(self) -> runs.Run:
        return await self.town.engine.until(self.run_id)

    async def output(self) -> tuple[str | None, Any]:
        """The port that the step left through, and its output, once the run is over."""
        await self.end()
        entries = await self.town.engine.entries(self.run_id)
        found = [e for e in entries if isinstance(e, Succeeded) and e.node == "ask"]
        return (found[-1].port, found[-1].output) if found else (None, None)


def gate(config: dict[str, Json], *, edges: tuple[str, ...] = (), **more: Json) -> Json:
    """An approval, and what follows each of its ports that an edge is drawn from."""
    node = {"id": "ask", "type": "logic_approval", "config": config, **more}
    ports = {edge.partition(">")[2] for edge in edges}
    steps = [task(name) for name in sorted(ports or {"yes"})]
    return graph(node, *steps, edges=("t>ask", *(edges or ("ask>yes",))))


@pytest.fixture
async def town(engine: Engine, gateway: Database) -> AsyncIterator[Town]:
    settings = engine.settings.model_copy(update={"http_port": 0})
    ports = open_ports(engine.bus, gateway, engine.types, settings)
    async with AsyncExitStack() as stack:
        yield Town(engine, ports, Application(ports, Ops({})), stack)
    await ports.starts.close()
