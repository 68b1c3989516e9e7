"""Triggers of active workflows, the addresses of webhooks, and the generation of both.

Whoever matches events keeps the active triggers in memory and reads them again when `generation`
has grown. Read the generation first and the triggers after it: then a change in between is seen as
a further generation, never missed.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import orjson

from permaflow.errors import NotFoundError
from permaflow.plan import Condition, TriggerSpec
from pipeline.store.database import Connection
from pipeline.store.json_values import raw, to_json
from pipeline.store.queries import query
from pipeline.store.rows import every, one

WEBHOOK = "webhook"

_REMOVE = query("triggers.remove")
_INSERT = query("triggers.insert")
_BUMP = query("triggers.bump")
_GENERATION = query("triggers.generation")
_ACTIVE = query("triggers.active")
_OF_WORKFLOW = query("triggers.of_workflow")
_PUT_WEBHOOK = query("triggers.put_webhook")
_SET_SECRET = query("triggers.set_secret")
_WEBHOOKS = query("triggers.webhooks")
_WEBHOOK = query("triggers.webhook")
_UNPUBLISHED = query("triggers.unpublished")


@dataclass(frozen=True, slots=True)
class ActiveTrigger:
    """A trigger that starts runs of `version`. Events from before `activated_at` are too old."""

    org: UUID
    workflow_id: UUID
    version: int
    activated_at: datetime
    spec: TriggerSpec


@dataclass(frozen=True, slots=True)
class Webhook:
    """The address of a webhook trigger."""

    node: str
    token: str
    is_signed: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class WebhookTarget:
    """Where a token leads. `status` is the workflow's: only an active one is fired."""

    org_id: UUID
    workflow_id: UUID
    node: str
    encrypted_secret: bytes | None
    status: str
    version: int


@dataclass(frozen=True, slots=True)
class _Row:
    org_id: UUID
    workflow_id: UUID
    version: int
    node: str
    kind: str
    object: str
    events: list[str]
    conditions: bytes
    settings: bytes
    activated_at: datetime

    def spec(self) -> TriggerSpec:
        conditions = (
            Condition(tuple(each["field"]), each["op"], each["value"])
            for each in orjson.loads(self.conditions)
        )
        return TriggerSpec(
            node=self.node,
            kind=self.kind,
            object=self.object,
            events=frozenset(self.events),
            conditions=tuple(conditions),
            settings=orjson.loads(self.settings),
        )


async def switch(
    connection: Connection,
    org: UUID,
    workflow_id: UUID,
    version: int,
    triggers: Sequence[TriggerSpec],
) -> None:
    """Makes these the active triggers of the workflow; none of them: it has none.

    Belongs at the end of the transaction that changes the workflow. A webhook trigger gets its
    address the first time and keeps it.
    """
    await connection.execute(_REMOVE, {"id": workflow_id})
    for spec in triggers:
        conditions = [
            {"field": list(each.field), "op": each.op, "value": each.value}
            for each in spec.conditions
        ]
        values = {
            "id": workflow_id,
            "node": spec.node,
            "org": org,
            "version": version,
            "kind": spec.kind,
            "object": spec.object,
            "events": sorted(spec.events),
            "conditions": raw(to_json(conditions)),
            "settings": raw(to_json(dict(spec.settings))),
        }
        await connection.execute(_INSERT, values)
        if spec.kind == WEBHOOK:
            await connection.execute(_PUT_WEBHOOK, {**values, "token": new_token()})
    await connection.execute(_BUMP)


def new_token() -> str:
    """An address that nobody guesses: 192 random bits."""
    return secrets.token_urlsafe(24)


async def generation(connection: Connection) -> int:
    """Grows whenever the set of active triggers changes."""
    row = await (await connection.execute(_GENERATION)).fetchone()
    return int(row[0]) if row else 0


async def active(connection: Connection, kind: str | None = None) -> list[ActiveTrigger]:
    """Every trigger of every active workflow, or those of one kind."""
    rows = await every(connection, _Row, _ACTIVE, {"kind": kind})
    return [
        ActiveTrigger(row.org_id, row.workflow_id, row.version, row.activated_at, row.spec())
        for row in rows
    ]


async def of_workflow(
    connection: Connection, org: UUID, workflow_id: UUID
) -> list[TriggerSpec] | None:
    """The triggers of one workflow by node; None if it is not there, or not active."""
    values = {"org": org, "id": workflow_id}
    rows = await every(connection, _Row, _OF_WORKFLOW, values)
    return [row.spec() for row in rows if row.node is not None] if rows else None


async def unpublished(
    connection: Connection, org: UUID, objects: Iterable[str], publication: str
) -> list[str]:
    """Those of these objects that name a schema of the database, and no table of it that is
    published. Without a schema an object may be a built-in record that nobody has made yet.
    """
    values = {"org": org, "objects": list(objects), "publication": publication}
    return [name for (name,) in await (await connection.execute(_UNPUBLISHED, values)).fetchall()]


async def webhooks(connection: Connection, org: UUID, workflow_id: UUID) -> list[Webhook]:
    """The addresses of the webhook triggers of a workflow."""
    return await every(connection, Webhook, _WEBHOOKS, {"id": workflow_id, "org": org})


async def set_webhook_secret(
    connection: Connection, org: UUID, workflow_id: UUID, node: str, encrypted: bytes | None
) -> str:
    """Sets or removes the secret of a webhook trigger; answers its token.

    Raises `NotFoundError`.
    """
    values = {
        "id": workflow_id,
        "org": org,
        "node": node,
        "secret": encrypted,
        "token": new_token(),
    }
    row = await (await connection.execute(_SET_SECRET, values)).fetchone()
    if row is None:
        raise NotFoundError(f"There is no workflow {workflow_id}.")
    return str(row[0])


async def find_webhook(connection: Connection, token: str) -> WebhookTarget | None:
    """Where a token leads. Needs no organisation."""
    return await one(connection, WebhookTarget, _WEBHOOK, {"token": token})
