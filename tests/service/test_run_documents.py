"""The document of a run: the one that it was started with, and how every step of it stands."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from permaflow.plan import Json
from pipeline.core.entries import (
    Dispatched,
    Entry,
    Failed,
    Iterated,
    LoopOpened,
    Skipped,
    Started,
    Succeeded,
    Waiting,
)
from pipeline.core.view import History
from pipeline.gateway.run_documents import with_states
from tests.fix_site import RunningSite

AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
SECONDS = int(AT.timestamp())


def history(*rows: Entry) -> History:
    found = History()
    for number, entry in enumerate(rows):
        found.add(AT + timedelta(seconds=number), [entry])
    return found


def states(steps: list[Any]) -> list[tuple[str, Json]]:
    return [(step["status"], step.get("updated_at")) for step in steps]


def test_every_block_of_a_dag_says_how_it_stands_and_since_when() -> None:
    names = ("done", "gone", "bad", "now", "asleep", "later")
    tasks = [{"name": name, "type": "HTTP", "status": "PENDING"} for name in names]
    told = history(
        Started(""),
        Succeeded("", "done", 1),
        Skipped("", "gone"),
        Failed("", "bad", 1, "x", "y"),
        Dispatched("", "now", 1),
        Waiting("", "asleep", 5.0, None),
    )
    document = with_states({"dag": {"tasks": tasks}}, told)
    assert states(document["dag"]["tasks"]) == [
        ("SUCCESS", SECONDS + 1),
        ("SKIPPED", SECONDS + 2),
        ("FAILED", SECONDS + 3),
        ("RUNNING", SECONDS + 4),
        ("WAITING", SECONDS + 5),
        ("PENDING", None),
    ]


def test_a_node_of_a_loop_shows_the_worst_of_its_iterations() -> None:
    nodes: list[Json] = [{"id": "each"}, {"id": "one"}, {"id": "two"}]
    told = history(
        LoopOpened("", "each", [1, 2]),
        Iterated("", "each", 0, 2),
        Succeeded("each[0]", "one", 1),
        Failed("each[1]", "one", 1, "x", "y"),
        Dispatched("each[0]", "two", 1),
        Skipped("each[1]", "two"),
    )
    found = states(with_states({"nodes": nodes}, told)["nodes"])
    assert [status for status, _ in found] == ["RUNNING", "FAILED", "RUNNING"]


def test_steps_are_found_by_their_numbers_and_ids_also_in_text() -> None:
    steps = [{"action": "Note.create"}, {"id": "mine", "action": "Note.create"}]
    document = {"triggerEvent": "Deal.won", "steps": json.dumps(steps), "fallback": steps[:1]}
    told = history(Succeeded("", "step_0", 1), Dispatched("", "mine", 1), Skipped("", "fallback_0"))
    found = with_states(document, told)
    assert [status for status, _ in states(found["steps"])] == ["SUCCESS", "RUNNING"]
    assert [status for status, _ in states(found["fallback"])] == ["SKIPPED"]


@pytest.mark.service
async def test_the_document_of_a_run_tells_the_whole_run(site: RunningSite) -> None:
    blocks = [
        {"name": "a", "type": "test_script", "arguments": [{"answers": ["done"]}]},
        {"name": "b", "type": "test_script", "arguments": [], "depends": "a.FAILED"},
        {"name": "c", "type": "test_script", "arguments": [], "depends": "a.SUCCESS || b.SUCCESS"},
    ]
    dag = {"dag": {"entrypoint": "a", "exitpoints": ["c"], "tasks": blocks}}
    workflow = await site.active({"name": "Blocks", "definition": dag})
    run_id = await site.start(workflow["id"])
    await site.watch(run_id)
    answer = (await site.door.get(f"/workflows/v1/runs/{run_id}/document")).json()
    assert (answer["dialect"], answer["status"], answer["version"]) == ("dag", "completed", 1)
    tasks = answer["document"]["dag"]["tasks"]
    assert [each["status"] for each in tasks] == ["SUCCESS", "SKIPPED", "SUCCESS"]
    assert all(isinstance(each["updated_at"], int) for each in tasks)
    assert [each["depends"] for each in tasks[1:]] == [each["depends"] for each in blocks[1:]]
