"""Where runs come in: the triggers of active workflows, and where webhook addresses lead.

Kept in memory for a second, because webhooks come by the thousand; only what was found is kept.
Whether a workflow is active is decided by the statement that starts the run, so an old memory can
start nothing that may not start.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar
from uuid import UUID

import orjson

from connectors.webhook_signatures import Verification, read_verification
from permaflow.plan import Json, TriggerSpec
from pipeline.gateway.input_schemas import Validator, compile_schema
from pipeline.gateway.shared_pool import SharedPool
from pipeline.store import triggers, workflows
from pipeline.store.secrets import SecretBox

KEPT = 1.0
MOST_KEPT = 10_000

Name = TypeVar("Name")
Thing = TypeVar("Thing")


@dataclass(frozen=True, slots=True)
class Entrance:
    """An active workflow: how it is started by hand, and what its input must look like."""

    trigger: TriggerSpec | None
    schema: Validator | None


@dataclass(frozen=True, slots=True)
class Address:
    """Where a webhook's token leads."""

    org: UUID
    workflow_id: UUID
    node: str
    verification: Verification
    secrets: tuple[str, ...]
    headers: frozenset[str]
    schema: Validator | None


class Entrances:
    """Finds them, and remembers for a moment."""

    def __init__(self, pool: SharedPool, box: SecretBox) -> None:
        self._pool = pool
        self._box = box
        self._workflows: _Kept[UUID, tuple[UUID, Entrance]] = _Kept()
        self._addresses: _Kept[str, Address] = _Kept()

    def forget(self) -> None:
        """Something changed: look again."""
        self._workflows.clear()
        self._addresses.clear()

    async def workflow(self, org: UUID, workflow_id: UUID) -> Entrance | None:
        """How an active workflow is started by hand; None if it is not active, or not there."""
        kept = self._workflows.get(workflow_id)
        if kept is not None and kept[0] == org:
            return kept[1]
        turn = self._workflows.turn
        specs = await self._pool.run_as(org, triggers.of_workflow, org, workflow_id)
        if specs is None:
            return None
        chosen = next((spec for spec in specs if spec.kind == "manual"), None)
        if chosen is None and specs:
            chosen = specs[0]
        schema = chosen.settings.get("input_schema") if chosen and chosen.kind == "manual" else None
        entrance = Entrance(chosen, compile_schema(schema))
        self._workflows.put(workflow_id, (org, entrance), turn)
        return entrance

    async def address(self, token: str) -> Address | None:
        """Where a token leads; None if nowhere, or to a workflow that is not active."""
        kept = self._addresses.get(token)
        if kept is not None:
            return kept
        turn = self._addresses.turn
        target = await self._pool.run(triggers.find_webhook, token)
        if target is None or target.status != workflows.ACTIVE:
            return None
        specs = await self._pool.run_as(
            target.org_id, triggers.of_workflow, target.org_id, target.workflow_id
        )
        spec = next((each for each in specs or () if each.node == target.node), None)
        if spec is None:
            return None
        address = Address(
            target.org_id,
            target.workflow_id,
            target.node,
            read_verification(spec.settings.get("verification")),
            self._secrets(target.workflow_id, target.node, target.encrypted_secret),
            _names(spec.settings),
            compile_schema(spec.settings.get("input_schema")),
        )
        self._addresses.put(token, address, turn)
        return address

    def _secrets(self, workflow_id: UUID, node: str, stored: bytes | None) -> tuple[str, ...]:
        if stored is None:
            return ()
        return tuple(orjson.loads(self._box.decrypt(stored, secret_place(workflow_id, node))))


def secret_place(workflow_id: UUID, node: str) -> str:
    """What a webhook's secret is bound to."""
    return f"webhook:{workflow_id}:{node}:secret"


def _names(settings: Mapping[str, Json]) -> frozenset[str]:
    names = settings.get("headers")
    if not isinstance(names, list):
        return frozenset()
    return frozenset(name.lower() for name in names if isinstance(name, str))


class _Kept(Generic[Name, Thing]):
    """Things by name, for `KEPT` seconds, `MOST_KEPT` of them."""

    def __init__(self) -> None:
        self._things: OrderedDict[Name, tuple[float, Thing]] = OrderedDict()
        self.turn = 0
        """Changes with each `clear`: what was asked for before it is too old to be kept."""

    def get(self, name: Name) -> Thing | None:
        found = self._things.get(name)
        return found[1] if found is not None and found[0] > _now() else None

    def put(self, name: Name, thing: Thing, turn: int) -> None:
        if turn != self.turn:
            return
        self._things[name] = (_now() + KEPT, thing)
        self._things.move_to_end(name)
        if len(self._things) > MOST_KEPT:
            self._things.popitem(last=False)

    def clear(self) -> None:
        self.turn += 1
        self._things.clear()


def _now() -> float:
    return asyncio.get_running_loop().time()
