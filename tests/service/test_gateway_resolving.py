"""Runs that are undone, and steps that people say what became of, over HTTP."""

from __future__ import annotations

from uuid import UUID

import httpx
import orjson
import pytest
from uuid_utils.compat import uuid7

from pipeline.store.database import Database
from tests.fix_gateway import RUNS, by_hand, call, graph, save_active
from tests.fix_store import append

ROWS = [
    [["started", "hand"], ["succeeded", "", "hand", 0], ["dispatched", "", "call", 1]],
    [["doubted", "", "call", 1, "outcome_unknown", "nobody came back"]],
]
TURNED = [
    ["compensating", "failed", "broke", "no", "call"],
    ["dispatched", "", "call#compensate", 1],
]


@pytest.fixture
async def run_id(door: httpx.AsyncClient, store: Database, org: UUID) -> UUID:
    """A run whose step `call` waits because nobody knows what became of it."""
    undo = {"type": "action_http", "config": {"url": "https://example.com/undo"}}
    node = {**call(), "on_unknown": "ask", "compensate": undo}
    active = await save_active(door, graph(by_hand(), node))
    answer = await door.post(RUNS, json={"workflow_id": active["id"]})
    found = UUID(answer.json()["id"])
    for seq, row in enumerate(ROWS, start=1):
        await append(store, org, found, seq, orjson.dumps(row).decode())
    async with store.connection() as connection:
        await connection.execute(
            "insert into permaflow.question"
            " (id, org_id, run_id, scope, node, attempt, kind, config)"
            " values (%s, %s, %s, '', 'call', 1, 'unknown', '{}')",
            (uuid7(), org, found),
        )
    return found


async def say(door: httpx.AsyncClient, run_id: UUID, node: str = "call", **body: object) -> int:
    return (await door.post(f"{RUNS}/{run_id}/steps/{node}/resolve", json=body)).status_code


async def answers(store: Database, run_id: UUID) -> list[tuple[object, ...]]:
    async with store.connection() as connection:
        cursor = await connection.execute(
            "select output::text, port, code, retryable from permaflow.answer where run_id = %s",
            (run_id,),
        )
        return await cursor.fetchall()


async def test_a_step_that_nobody_knows_of_waits_and_says_why(
    door: httpx.AsyncClient, run_id: UUID
) -> None:
    [step] = (await door.get(f"{RUNS}/{run_id}/steps?node=call")).json()["data"]
    assert (step["status"], step["error"]["code"]) == ("waiting", "outcome_unknown")


@pytest.mark.parametrize(
    ("body", "stored"),
    [
        ({"outcome": "done", "output": {"id": 3}, "port": "ok"}, ('{"id":3}', "ok", None, False)),
        ({"outcome": "fail"}, (None, None, "resolved", False)),
        ({"outcome": "retry"}, (None, None, "resolved", True)),
    ],
)
async def test_people_say_once_what_became_of_it(
    door: httpx.AsyncClient,
    store: Database,
    run_id: UUID,
    body: dict[str, object],
    stored: tuple[object, ...],
) -> None:
    assert await say(door, run_id, **body) == 202
    assert await answers(store, run_id) == [stored]
    assert await say(door, run_id, outcome="fail") == 409
    assert await answers(store, run_id) == [stored]


@pytest.mark.parametrize(
    ("node", "body", "code"),
    [
        ("hand", {"outcome": "done"}, 409),
        ("call", {"outcome": "done", "scope": "each[0]"}, 409),
        ("call", {"outcome": "perhaps"}, 400),
        ("call", {}, 400),
        ("call", {"outcome": "retry", "output": 1}, 400),
    ],
)
async def test_other_answers_are_refused(
    door: httpx.AsyncClient,
    store: Database,
    run_id: UUID,
    node: str,
    body: dict[str, object],
    code: int,
) -> None:
    found = await say(door, run_id, node, **body)
    assert found == code or (code == 400 and found == 422)
    assert await answers(store, run_id) == []


async def test_a_run_that_is_not_there_cannot_be_spoken_of(door: httpx.AsyncClient) -> None:
    assert await say(door, uuid7(), outcome="done") == 404


async def test_a_compensation_is_a_step_with_a_role(
    door: httpx.AsyncClient, store: Database, org: UUID, run_id: UUID
) -> None:
    await append(store, org, run_id, 3, orjson.dumps(TURNED).decode())
    steps = (await door.get(f"{RUNS}/{run_id}/steps")).json()["data"]
    assert [(step["node"], step["role"], step["type"]) for step in steps] == [
        ("hand", "step", "trigger_manual"),
        ("call", "step", "action_http"),
        ("call#compensate", "compensation", "action_http"),
    ]
    assert [step["status"] for step in steps] == ["completed", "cancelled", "running"]


async def test_to_cancel_a_run_that_is_undone_changes_nothing(
    door: httpx.AsyncClient, store: Database, run_id: UUID
) -> None:
    async with store.connection() as connection:
        await connection.execute(
            "update permaflow.run set status = 'compensating' where id = %s", (run_id,)
        )
    answer = await door.post(f"{RUNS}/{run_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "compensating")
    assert answer.json()["cancel_requested_at"] is None
