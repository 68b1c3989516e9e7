"""The three calls of the first workflow that anybody makes, as they stand in the guide."""

from __future__ import annotations

import httpx

FIRST = {
    "name": "New Order Processing",
    "trigger_type": "cdc",
    "definition": {
        "nodes": [
            {
                "id": "trigger",
                "type": "trigger_record",
                "config": {"event": "created", "object": "orders"},
            },
            {
                "id": "validate",
                "type": "code_function",
                "config": {"function_slug": "validate-order"},
            },
            {
                "id": "notify",
                "type": "action_http",
                "config": {
                    "url": "https://hooks.slack.com/...",
                    "method": "POST",
                    "body": {"text": "New order: {{trigger.record.id}}"},
                },
            },
        ],
        "edges": [
            {"id": "e1", "source": "trigger", "target": "validate"},
            {"id": "e2", "source": "validate", "target": "notify"},
        ],
    },
}


async def test_the_three_calls_of_the_guide_work_as_written(door: httpx.AsyncClient) -> None:
    saved = await door.post("/workflows/v1/definitions", json=FIRST)
    assert saved.status_code == 201, saved.text
    assert saved.json()["status"] == "draft"
    assert saved.json()["definition"] == FIRST["definition"]
    workflow_id = saved.json()["id"]

    active = await door.patch(
        f"/workflows/v1/definitions/{workflow_id}/status", json={"status": "active"}
    )
    assert active.status_code == 200, active.text
    assert active.json()["status"] == "active"

    started = await door.post(
        "/workflows/v1/runs",
        json={"workflow_id": workflow_id, "trigger_data": {"order_id": "ord-123"}},
    )
    assert started.status_code == 202, started.text
    run_id = started.json()["id"]
    assert started.json()["status"] == "running"
    assert started.headers["location"] == f"/workflows/v1/runs/{run_id}"

    run = await door.get(f"/workflows/v1/runs/{run_id}")
    assert run.status_code == 200, run.text
    assert run.json()["trigger_data"] == {
        "order_id": "ord-123",
        "record": {"id": "ord-123", "order_id": "ord-123"},
    }
