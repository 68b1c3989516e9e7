"""Commands about runs in doubt, runs that change their version, and dry runs, on a real site."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest

from tests.fix_engine import graph, task
from tests.fix_site import RunningSite

pytestmark = pytest.mark.service

COMMAND = str(Path(sys.executable).with_name("permaflow"))


async def command(site: RunningSite, *words: str) -> tuple[int, str, str]:
    """Exit code, output and messages."""
    key = site.door.headers["authorization"].removeprefix("Bearer ")
    env = {
        "PATH": os.environ["PATH"],
        "PERMAFLOW_API_URL": str(site.door.base_url),
        "PERMAFLOW_API_KEY": key,
    }
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        COMMAND, *words, stdout=pipe, stderr=pipe, env=env
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def as_json(site: RunningSite, *words: str) -> dict[str, Any]:
    code, out, err = await command(site, *words, "--json")
    assert code == 0, err
    found: dict[str, Any] = orjson.loads(out)
    return found


async def in_doubt(site: RunningSite) -> str:
    """A run whose step `pay` outlived its timeout."""
    pay = task("pay", seconds=60, timeout_seconds=0.2, on_unknown="ask")
    document = graph(pay, task("after"), edges=("t>pay", "pay>after"))
    (run_id,) = await site.engine.start(await site.engine.workflow(document))
    await site.engine.until(run_id, "waiting")
    return str(run_id)


async def test_somebody_says_on_the_command_line_what_became_of_a_step(site: RunningSite) -> None:
    run_id = await in_doubt(site)
    code, _, said = await command(site, "run", "resolve", run_id, "pay", "perhaps")
    assert (code, "done, fail or retry" in said) == (2, True)
    code, _, said = await command(site, "run", "resolve", run_id, "after", "done")
    assert (code, "does not wait" in said) == (1, True)
    found = await as_json(site, "run", "resolve", run_id, "pay", "done", "--output", '{"id": 7}')
    assert (found["node"], found["outcome"]) == ("pay", "done")
    run = await site.engine.until(UUID(run_id))
    assert run.status == "completed"
    steps = (await site.door.get(f"/workflows/v1/runs/{run_id}/steps?node=pay")).json()["data"]
    assert steps[0]["output"] == {"id": 7}


async def test_a_step_that_failed_says_so_and_why(site: RunningSite) -> None:
    run_id = await in_doubt(site)
    words = ("run", "resolve", run_id, "pay", "fail", "--message", "the bank refused it")
    code, _, said = await command(site, *words)
    assert (code, said) == (0, "Noted: pay has failed.\n")
    run = await site.engine.until(UUID(run_id))
    assert (run.status, b"the bank refused it" in (run.error or b"")) == ("failed", True)


async def test_open_runs_go_over_by_a_command_that_tells_which_cannot(site: RunningSite) -> None:
    rest = {"id": "rest", "type": "logic_delay", "config": {"duration": "1h"}}
    document = graph(rest, edges=("t>rest",))
    path = "/workflows/v1/definitions"
    made = (await site.door.post(path, json={"name": "Rests", "definition": document})).json()
    one = f"{path}/{made['id']}"
    await site.door.patch(f"{one}/status", json={"status": "active"})
    started = await site.door.post("/workflows/v1/runs", json={"workflow_id": made["id"]})
    run_id = started.json()["id"]
    await site.engine.until(run_id, "waiting")
    longer = graph(rest, task("more"), edges=("t>rest", "rest>more"))
    await site.door.put(one, json={"definition": longer})
    found = await as_json(site, "workflow", "migrate-runs", "Rests", "--dry-run")
    assert (found["version"], found["checked"], found["migrated"]) == (2, 1, 1)
    assert (await as_json(site, "workflow", "migrate-runs", "Rests", "--from", "7"))["checked"] == 0
    code, _, said = await command(site, "workflow", "migrate-runs", "Rests")
    assert (code, said) == (0, "1 of 1 runs went over to version 2.\n")
    other = graph({**rest, "config": {"duration": "2h"}}, edges=("t>rest",))
    await site.door.put(one, json={"definition": other})
    code, out, said = await command(site, "workflow", "migrate-runs", "Rests")
    assert (code, said) == (0, "0 of 1 runs went over to version 3.\n")
    assert run_id in out
    assert "`rest` is under way, and is changed" in out


async def test_a_dry_run_tells_which_events_would_start_no_run(
    site: RunningSite, tmp_path: Path
) -> None:
    document = graph(task("a"), edges=("t>a",))
    body: dict[str, Any] = {"name": "Counts", "definition": document}
    made = await site.door.post("/workflows/v1/definitions", json=body)
    one = f"/workflows/v1/definitions/{made.json()['id']}"
    await site.door.patch(f"{one}/status", json={"status": "active"})
    body = {"workflow_id": made.json()["id"], "trigger_data": {"n": 1}}
    run_id = (await site.door.post("/workflows/v1/runs", json=body)).json()["id"]
    schema = {"input_schema": {"type": "object", "required": ["m"]}}
    hand = {"id": "hand", "type": "trigger_manual", "config": schema}
    path = tmp_path / "counts.json"
    edge = {"id": "e", "source": "hand", "target": "a"}
    path.write_bytes(orjson.dumps({"nodes": [hand, task("a")], "edges": [edge]}))
    words = ("workflow", "dry-run", str(path), "--events", "5", "--of", "Counts")
    code, out, said = await command(site, *words)
    assert code == 0, said  # no run would start, so none would fail
    assert run_id in out
    assert "no run: The input does not fit the `input_schema` of `hand`" in out
    assert "The active version 1 starts a run from this event, this none." in said
