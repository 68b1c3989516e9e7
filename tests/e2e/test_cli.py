"""The commands, as a person or a script uses them against a running `permaflow up`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.fix_up import Permaflow, Up

pytestmark = pytest.mark.service

ECHO = {
    "nodes": [
        {"id": "start", "type": "trigger_manual"},
        {
            "id": "say",
            "type": "code_function",
            "config": {"function_slug": "echo", "input": "{{trigger.word}}"},
        },
    ],
    "edges": [{"id": "e", "source": "start", "target": "say"}],
}
FAILS = {
    "nodes": [
        {"id": "start", "type": "trigger_manual"},
        {"id": "say", "type": "code_function", "config": {"function_slug": "nobody-has-this"}},
    ],
    "edges": [{"id": "e", "source": "start", "target": "say"}],
}
WAITS = {
    "nodes": [
        {"id": "start", "type": "trigger_manual"},
        {"id": "rest", "type": "logic_delay", "config": {"duration": 3600}},
    ],
    "edges": [{"id": "e", "source": "start", "target": "rest"}],
}

WORD = '{"word": "any"}'


@pytest.fixture
def permaflow(running: Up) -> Permaflow:
    return running.permaflow


@pytest.fixture
def echo(permaflow: Permaflow, tmp_path: Path) -> str:
    return saved(permaflow, tmp_path, "echo", ECHO)


def saved(permaflow: Permaflow, folder: Path, name: str, document: object) -> str:
    """The name of an active workflow."""
    path = folder / f"{name}.json"
    path.write_text(json.dumps(document))
    assert permaflow.json("workflow", "apply", path, "--activate")["status"] == "active"
    return name


def started(permaflow: Permaflow, workflow: str, data: str = "{}") -> str:
    return str(permaflow.json("run", "start", workflow, "--data", data)["id"])


def test_applying_a_file_again_makes_the_next_version_of_the_same_workflow(
    permaflow: Permaflow, tmp_path: Path
) -> None:
    path = tmp_path / "twice.json"
    path.write_text(json.dumps(ECHO))
    first = permaflow.json("workflow", "apply", path)
    second = permaflow.json("workflow", "apply", path, "--activate")
    assert (first["version"], first["status"], first["name"]) == (1, "draft", "twice")
    assert (second["version"], second["status"], second["id"]) == (2, "active", first["id"])


def test_switching_on_what_waits_for_a_table_that_is_not_there_warns(
    permaflow: Permaflow, tmp_path: Path
) -> None:
    config = {"object": "public.ordres", "events": ["created"]}
    nodes = [{"id": "start", "type": "trigger_record", "config": config}, ECHO["nodes"][1]]
    path = tmp_path / "misspelt.json"
    path.write_text(json.dumps({"nodes": nodes, "edges": ECHO["edges"]}))
    warning = "warning: changes do not count yet: a table that a trigger names is not there"
    assert warning in permaflow("workflow", "apply", path, "--activate").stderr
    assert warning not in permaflow("workflow", "pause", "misspelt").stderr
    assert warning in permaflow("workflow", "activate", "misspelt").stderr


def test_a_refused_document_is_told_with_every_place(permaflow: Permaflow, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_text(json.dumps({"nodes": [{"id": "a", "type": "nonsense"}], "edges": []}))
    done = permaflow("workflow", "apply", path, "--json")
    assert done.returncode == 1
    assert done.stdout == ""
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "invalid_document"
    assert error["errors"][0]["pointer"] == "/definition/nodes/0/type"


def test_a_workflow_is_listed_shown_paused_and_activated_by_its_name(
    permaflow: Permaflow, echo: str
) -> None:
    assert echo in [each["name"] for each in permaflow.json("workflow", "list")]
    assert json.loads(permaflow("workflow", "get", echo, "--document").stdout) == ECHO
    assert permaflow.json("workflow", "pause", echo)["status"] == "paused"
    refused = permaflow("run", "start", echo)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr == (
        "permaflow: Workflow not found or not active. "
        f"`permaflow workflow activate {echo}` switches it on.\n"
    )
    assert permaflow.json("workflow", "activate", echo)["status"] == "active"


def test_waiting_for_a_run_gives_its_output_and_its_outcome(
    permaflow: Permaflow, echo: str, tmp_path: Path
) -> None:
    done = permaflow("run", "start", echo, "--data", '{"word": "hello"}', "--wait", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == {"echo": "hello"}

    fails = saved(permaflow, tmp_path, "fails", FAILS)
    failed = permaflow("run", "start", fails, "--wait", "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["status"] == "failed"


def test_data_comes_from_a_file_or_from_standard_input(
    permaflow: Permaflow, echo: str, tmp_path: Path
) -> None:
    path = tmp_path / "data.json"
    path.write_text('{"word": "from a file"}')
    for data, given in ((f"@{path}", None), ("@-", '{"word": "from a file"}')):
        done = permaflow("run", "start", echo, "--data", data, "--wait", "--json", given=given)
        assert json.loads(done.stdout)["output"] == {"echo": "from a file"}


def test_watching_a_run_prints_its_events_one_a_line_to_the_last(
    permaflow: Permaflow, echo: str
) -> None:
    done = permaflow("run", "watch", started(permaflow, echo, WORD), "--json")
    events = [json.loads(line)["event"] for line in done.stdout.splitlines()]
    assert done.returncode == 0
    assert events[0] == "run_started"
    assert events[-1] == "run_completed"
    assert events.count("run_completed") == 1


def test_watching_for_too_long_ends_with_124_and_the_run_goes_on(
    permaflow: Permaflow, tmp_path: Path
) -> None:
    run = started(permaflow, saved(permaflow, tmp_path, "waits", WAITS))
    assert permaflow("run", "watch", run, "--timeout", "0.5").returncode == 124
    assert permaflow.json("run", "get", run)["status"] == "waiting"
    permaflow.json("run", "cancel", run, "--reason", "enough")
    assert permaflow("run", "watch", run).returncode == 1
    assert permaflow.json("run", "get", run)["status"] == "cancelled"


def test_a_failed_run_is_retried_as_the_same_run_and_a_completed_one_never(
    permaflow: Permaflow, echo: str, tmp_path: Path
) -> None:
    failed = permaflow(
        "run", "start", saved(permaflow, tmp_path, "fails", FAILS), "--wait", "--json"
    )
    run = json.loads(failed.stdout)["id"]
    assert permaflow.json("run", "retry", run)["id"] == run
    events = permaflow("run", "watch", run, "--json").stdout.splitlines()
    names = [json.loads(line)["event"] for line in events]
    assert names.count("run_completed") == 2
    assert permaflow.json("run", "get", run)["reopened"] == 1

    done = permaflow("run", "start", echo, "--data", WORD, "--wait", "--json")
    refused = permaflow("run", "retry", json.loads(done.stdout)["id"], "--json")
    assert refused.returncode == 1
    assert json.loads(refused.stderr)["error"]["code"] == "wrong_state"


def test_a_run_is_paused_and_resumed(permaflow: Permaflow, tmp_path: Path) -> None:
    run = started(permaflow, saved(permaflow, tmp_path, "held", WAITS))
    assert permaflow.json("run", "pause", run)["paused"] is True
    assert permaflow.json("run", "get", run)["status"] == "waiting"
    assert permaflow.json("run", "resume", run)["paused"] is False
    permaflow.json("run", "cancel", run)
    assert permaflow("run", "watch", run).returncode == 1


def test_runs_are_listed_by_workflow_and_status(permaflow: Permaflow, echo: str) -> None:
    done = permaflow("run", "start", echo, "--data", WORD, "--wait", "--json")
    run = json.loads(done.stdout)["id"]
    found = permaflow.json("run", "list", "--workflow", echo, "--status", "completed", "--limit", 1)
    assert [each["id"] for each in found] == [run]
    refused = permaflow("run", "list", "--status", "nonsense")
    assert refused.returncode == 1
    assert "completed" in refused.stderr


def test_steps_of_a_paused_stage_wait_until_it_is_resumed(permaflow: Permaflow, echo: str) -> None:
    permaflow.json("stage", "pause", "code", "--for", "10m")
    try:
        run = started(permaflow, echo, '{"word": "later"}')
        assert permaflow("run", "watch", run, "--timeout", 2).returncode == 124
        (code,) = (each for each in permaflow.json("stage", "list") if each["stage"] == "code")
        assert (code["paused"], code["pending"]) == (True, 1)
    finally:
        permaflow.json("stage", "resume", "code")
    assert permaflow("run", "watch", run, "--timeout", 30).returncode == 0


def test_a_stage_that_is_not_there_is_refused(permaflow: Permaflow) -> None:
    refused = permaflow("stage", "pause", "nowhere")
    assert refused.returncode == 1
    assert "there are code, email, http" in refused.stderr
    assert permaflow("stage", "pause", "code", "--for", "soon").returncode == 2


def test_the_doctor_finds_a_running_system_well(permaflow: Permaflow) -> None:
    done = permaflow("doctor", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (0, True), report
    said = {line["message"] for line in report["checks"]}
    assert "wal_level = logical" in said
    assert "the API key is known" in said
    assert any(message.startswith("the schema is at head") for message in said)
    assert [line for line in report["checks"] if line["state"] == "fail"] == []


def test_the_doctor_fails_for_a_database_that_is_not_there(permaflow: Permaflow) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    done = permaflow("doctor", "--json", PERMAFLOW_DATABASE_URL=nowhere)
    assert done.returncode == 1
    failed = [each for each in json.loads(done.stdout)["checks"] if each["state"] == "fail"]
    assert [each["check"] for each in failed] == ["postgres"]


def test_migrations_are_shown_and_applied_to_an_empty_database(
    permaflow: Permaflow, empty_database_url: str
) -> None:
    before = permaflow("db", "status", "--url", empty_database_url, "--json")
    pending = json.loads(before.stdout)["pending"]
    assert before.returncode == 1
    assert pending
    assert permaflow.json("db", "migrate", "--url", empty_database_url) == {"applied": pending}
    assert permaflow.json("db", "status", "--url", empty_database_url)["pending"] == []
    assert permaflow.json("db", "migrate", "--url", empty_database_url) == {"applied": []}


def test_a_key_that_the_gateway_does_not_know_is_told_with_what_to_set(
    permaflow: Permaflow,
) -> None:
    refused = permaflow("workflow", "list", PERMAFLOW_API_KEY="pf_wrong_wrong")
    assert refused.returncode == 1
    assert "PERMAFLOW_API_KEY" in refused.stderr


def test_tables_for_a_pipe_are_neither_coloured_nor_cut(permaflow: Permaflow, echo: str) -> None:
    run = started(permaflow, echo)
    listed = permaflow("run", "list").stdout
    assert run in listed
    assert "\x1b" not in listed
    assert "…" not in listed.replace(" …", "")


ASKS = {
    "nodes": [
        {"id": "start", "type": "trigger_manual"},
        {
            "id": "ask",
            "type": "logic_approval",
            "config": {
                "title": "Order {{trigger.id}}",
                "assignees": ["ana", "bob"],
                "delegation": True,
                "form": {"type": "object", "required": ["amount"]},
            },
        },
    ],
    "edges": [{"id": "e", "source": "start", "target": "ask"}],
}


def asked(permaflow: Permaflow, workflow: str, number: int) -> tuple[str, str]:
    """A run that waits for an approval, and the id of that."""
    run = started(permaflow, workflow, json.dumps({"id": number}))
    while not (found := permaflow.json("approval", "list", "--run", run)):
        pass  # each look takes a process
    assert [each["title"] for each in found] == [f"Order {number}"]
    return run, str(found[0]["id"])


def test_an_approval_is_listed_shown_handed_over_and_decided(
    permaflow: Permaflow, tmp_path: Path
) -> None:
    asks = saved(permaflow, tmp_path, "asks", ASKS)
    run, approval = asked(permaflow, asks, 7)
    assert "Order 7" in permaflow("approval", "list").stdout
    handed = permaflow.json("approval", "delegate", approval, "carl", "--user", "ana")
    assert handed["waiting_for"] == ["bob", "carl"]
    empty = permaflow("approval", "approve", approval, "--user", "carl", "--json")
    assert empty.returncode == 1
    assert json.loads(empty.stderr)["error"]["errors"][0]["pointer"] == "/data"
    data = '{"amount": 5}'
    decided = permaflow.json("approval", "approve", approval, "--user", "carl", "--data", data)
    assert (decided["status"], decided["closed_by"]) == ("approved", "carl")
    again = permaflow("approval", "reject", approval, "--user", "bob")
    assert (again.returncode, again.stderr) == (
        1,
        "permaflow: It is approved by carl already.\n",
    )
    shown = permaflow("approval", "show", approval).stdout
    assert "delegate" in shown
    assert "approved" in shown
    assert permaflow("run", "watch", run).returncode == 0


def test_a_rejected_approval_fails_its_run(permaflow: Permaflow, tmp_path: Path) -> None:
    asks = saved(permaflow, tmp_path, "asks-again", ASKS)
    run, approval = asked(permaflow, asks, 8)
    words = ("--user", "bob", "--comment", "too dear")
    assert permaflow.json("approval", "reject", approval, *words)["status"] == "rejected"
    assert permaflow("run", "watch", run).returncode == 1
