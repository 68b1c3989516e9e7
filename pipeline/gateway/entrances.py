"""Where runs come in: the triggers of active workflows, and where webhook addresses lead.

Kept in memory for a second, because webhooks come by the thousand; only what was found is kept.
Whether a workflow is active is decided by the statement that starts the run, so an old memory can
start nothing that may not start.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import orjson

from connectors.webhook_signatures import Verification, read_verification
from permaflow.plan import Json, TriggerSpec
from pipeline.gateway.cache import Cache
from pipeline.gateway.input_schemas import Validator, compile_schema
from pipeline.gateway.shared_pool import SharedPool
from pipeline.store import stats, triggers, workflows
from pipeline.store.database import Connection
from pipeline.store.secrets import SecretBox

KEPT = 1.0
MOST_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Entrance:
    """An active workflow: how it is started by hand, and what its input must look like.

    `typical_seconds` is how long its runs take as a rule.
    """

    trigger: TriggerSpec | None
    schema: Validator | None
    typical_seconds: float | None = None


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
        self._workflows: Cache[tuple[UUID, UUID], Entrance] = Cache(KEPT, MOST_KEPT)
        self._addresses: Cache[str, Address] = Cache(KEPT, MOST_KEPT)

    def forget(self) -> None:
        """Something changed: look again."""
        self._workflows.clear()
        self._addresses.clear()

    async def workflow(self, org: UUID, workflow_id: UUID) -> Entrance | None:
        """How an active workflow is started by hand; None if it is not active, or not there."""
        name = (org, workflow_id)
        return await self._workflows.get(name, lambda: self._workflow(org, workflow_id))

    async def address(self, token: str) -> Address | None:
        """Where a token leads; None if nowhere, or to a workflow that is not active."""
        return await self._addresses.get(token, lambda: self._address(token))

    async def _workflow(self, org: UUID, workflow_id: UUID) -> Entrance | None:
        specs, seconds = await self._pool.run_as(org, _of_workflow, org, workflow_id)
        if specs is None:
            return None
        chosen = next((spec for spec in specs if spec.kind == "manual"), None)
        if chosen is None and specs:
            chosen = specs[0]
        schema = chosen.settings.get("input_schema") if chosen and chosen.kind == "manual" else None
        return Entrance(chosen, compile_schema(schema), seconds)

    async def _address(self, token: str) -> Address | None:
        target = await self._pool.run(triggers.find_webhook, token)
        if target is None or target.status != workflows.ACTIVE:
            return None
        specs = await self._pool.run_as(
            target.org_id, triggers.of_workflow, target.org_id, target.workflow_id
        )
        spec = next((each for each in specs or () if each.node == target.node), None)
        if spec is None:
            return None
        return Address(
            target.org_id,
            target.workflow_id,
            target.node,
            read_verification(spec.settings.get("verification")),
            self._secrets(target.workflow_id, target.node, target.encrypted_secret),
            _names(spec.settings),
            compile_schema(spec.settings.get("input_schema")),
        )

    def _secrets(self, workflow_id: UUID, node: str, stored: bytes | None) -> tuple[str, ...]:
        if stored is None:
            return ()
        return tuple(orjson.loads(self._box.decrypt(stored, secret_place(workflow_id, node))))


async def _of_workflow(
    connection: Connection, org: UUID, workflow_id: UUID
) -> tuple[list[TriggerSpec] | None, float | None]:
    specs = await triggers.of_workflow(connection, org, workflow_id)
    return specs, await stats.typical_seconds(connection, org, workflow_id)


def secret_place(workflow_id: UUID, node: str) -> str:
    """What a webhook's secret is bound to."""
    return f"webhook:{workflow_id}:{node}:secret"


def _names(settings: Mapping[str, Json]) -> frozenset[str]:
    names = settings.get("headers")
    if not isinstance(names, list):
        return frozenset()
    return frozenset(name.lower() for name in names if isinstance(name, str))
