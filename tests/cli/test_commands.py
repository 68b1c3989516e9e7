"""The command line without a server: help, exit codes, documents, and how fast it is there."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from pipeline.cli.app import app
from pipeline.cli.documents import check, read
from pipeline.cli.show import complain

COMMAND = Path(sys.executable).with_name("permaflow")
EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.json"))
COLD_START = 0.150


def run(*arguments: object, cwd: Path, **more: str) -> subprocess.CompletedProcess[str]:
    command = [COMMAND, *map(str, arguments)]
    env = {"PERMAFLOW_DATA_DIR": str(cwd / "data"), "PERMAFLOW_API_URL": "http://127.0.0.1:1"}
    env |= more
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=60)


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something, by its words."""
    waiting = [("", typer.main.get_command(app))]
    while waiting:
        words, command = waiting.pop()
        below = getattr(command, "commands", None)
        if below is None:
            yield words.strip(), command
        else:
            waiting += [(f"{words} {name}", each) for name, each in below.items()]


def test_the_version_is_there_in_the_blink_of_an_eye(tmp_path: Path) -> None:
    """Time of the processor, and the best of several: what else the machine does is not our doing.

    The command waits for nothing, so on a machine with nothing else to do the clock says the same.
    """
    times = []
    for _ in range(10):
        began = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([COMMAND, "--version"], capture_output=True, text=True, cwd=tmp_path)
        ended = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(ended.ru_utime + ended.ru_stime - began.ru_utime - began.ru_stime)
        assert done.stdout.startswith("permaflow ")
    assert min(times) < COLD_START


def test_help_imports_nothing_heavy() -> None:
    heavy = ("asyncio", "httpx", "psycopg", "pydantic", "rich.console", "orjson", "nats", "fastapi")
    code = (
        f"import sys, pipeline.cli.app\nprint([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(("words", "command"), list(commands()), ids=lambda each: str(each)[:40])
def test_every_command_takes_json_and_teaches_by_example(words: str, command: Any) -> None:
    options = {option for parameter in command.params for option in parameter.opts}
    assert "--json" in options
    if words != "version":
        assert f"permaflow {words}" in command.help
    assert not command.get_short_help_str(66).endswith("..."), "a list of commands cuts it off"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("serve", "nonsense"),
        ("run", "start"),
        ("run", "start", "x", "--data", "{"),
        ("run", "get", "nonsense"),
    ],
)
def test_what_is_not_understood_ends_with_2(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    plain = run(*arguments, cwd=tmp_path)
    assert (plain.returncode, plain.stdout) == (2, "")
    as_json = run(*arguments, "--json", cwd=tmp_path)
    assert (as_json.returncode, as_json.stdout) == (2, "")
    assert json.loads(as_json.stderr)["error"]["code"] == "usage"


def test_without_a_gateway_the_way_to_one_is_told(tmp_path: Path) -> None:
    plain = run("workflow", "list", cwd=tmp_path)
    assert plain.returncode == 1
    assert "permaflow up" in plain.stderr
    assert "PERMAFLOW_API_URL" in plain.stderr
    as_json = run("run", "list", "--json", cwd=tmp_path)
    assert json.loads(as_json.stderr)["error"]["code"] == "unreachable"


@pytest.mark.parametrize("arguments", [("db", "status"), ("stage", "list")])
def test_without_servers_the_setting_is_named(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "_URL is not set" in done.stderr
    assert str(tmp_path / "data") in done.stderr


@pytest.mark.parametrize("arguments", [("up",), ("serve", "runner")])
def test_a_module_of_functions_that_is_not_found_is_told_at_once(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "shop.py").touch()
    done = run(*arguments, cwd=tmp_path, PERMAFLOW_FUNCTIONS="shop")
    assert (done.returncode, done.stdout) == (1, "")
    assert "PERMAFLOW_FUNCTIONS names 'shop'" in done.stderr
    assert "PYTHONPATH" in done.stderr


def test_a_misspelt_variable_is_told_at_the_start_and_by_the_doctor(tmp_path: Path) -> None:
    wrong = {"PERMAFLOW_CONCURENCY": "7"}
    for arguments in (("up", "--functions", "nowhere"), ("serve", "clock")):
        done = run(*arguments, cwd=tmp_path, **wrong)
        assert done.returncode == 1
        assert "PERMAFLOW_CONCURENCY" in done.stderr
        assert "PERMAFLOW_CONCURRENCY" in done.stderr
    report = json.loads(run("doctor", "--json", cwd=tmp_path, **wrong).stdout)
    (line,) = [each for each in report["checks"] if each["check"] == "settings"]
    assert (line["state"], line["message"]) == (
        "warn",
        "there is no setting PERMAFLOW_CONCURENCY",
    )
    assert line["advice"] == "Did you mean PERMAFLOW_CONCURRENCY?"


def test_a_time_to_wait_without_waiting_is_refused(tmp_path: Path) -> None:
    done = run("run", "start", "Orders", "--timeout", "5", cwd=tmp_path)
    assert done.returncode == 2
    assert "give --wait as well" in done.stderr


def test_a_fault_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    complain(
        False, "bad", "`since`: A date.", 1, [{"pointer": "/query/since", "message": "A date."}]
    )
    assert capsys.readouterr().err == "permaflow: `since`: A date.\n"


def test_the_doctor_says_which_servers_cannot_be_reached(tmp_path: Path) -> None:
    urls = {
        "DATABASE": "postgresql://u:secret@127.0.0.1:1/x",
        "NATS": "nats://u:secret@127.0.0.1:1",
    }
    done = run(
        "doctor", "--json", cwd=tmp_path, **{f"PERMAFLOW_{k}_URL": v for k, v in urls.items()}
    )
    found = {line["check"]: line for line in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1
    assert "secret" not in done.stdout
    for server, setting in (("postgres", "DATABASE"), ("nats", "NATS")):
        assert "127.0.0.1" in found[server]["message"]
        assert f"PERMAFLOW_{setting}_URL" in found[server]["advice"]


def test_the_doctor_has_advice_before_anything_runs(tmp_path: Path) -> None:
    done = run("doctor", "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (0, True)
    states = {line["check"]: line["state"] for line in report["checks"]}
    assert (states["postgres"], states["nats"], states["gateway"]) == ("warn", "warn", "warn")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_sound(path: Path) -> None:
    report = check(read(path))
    assert report.valid, [str(each) for each in report.findings]


def test_problems_are_told_with_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "flow.json"
    path.write_text(
        '{\n  "nodes": [\n    {"id": "a", "type": "trigger_manual"},\n'
        '    {"id": "b", "type": "nonsense"}\n  ],\n  "edges": [\n'
        '    {"id": "e", "source": "a", "target": "c"}\n  ]\n}\n'
    )
    done = run("workflow", "validate", path, cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert any(line.startswith(f"{path}:7:") for line in lines)
    (of_type,) = (line for line in lines if line.endswith("(at /nodes/1/type)"))
    assert of_type.startswith(f"{path}:4:25: ")
    below = lines[lines.index(of_type) + 1 :]
    assert below[0] == '    4 |     {"id": "b", "type": "nonsense"}'
    assert below[1] == f"      | {' ' * 24}^"

    (report,) = json.loads(run("workflow", "validate", path, "--json", cwd=tmp_path).stdout)
    assert report["valid"] is False
    places = [(problem["line"], problem["column"]) for problem in report["problems"]]
    assert (4, 25) in places
    assert places == sorted(places)


def test_a_wrong_expression_is_shown_at_its_character(tmp_path: Path) -> None:
    path = tmp_path / "flow.json"
    path.write_text(
        '{"triggerEvent": "Deal.won",\n'
        ' "steps": [{"action": "Note.create",\n'
        '   "mapping": {"text": "deal.a + )"}}]}\n'
    )
    done = run("workflow", "validate", path, cwd=tmp_path)
    said, line, caret = done.stdout.splitlines()
    assert said.startswith(f"{path}:3:34: Unexpected `)`; expected a value")
    assert line[caret.index("^")] == ")"


@pytest.mark.parametrize(
    ("picture", "begins"), [("mermaid", "flowchart"), ("dot", "digraph"), ("svg", "<svg")]
)
def test_a_file_is_drawn(tmp_path: Path, picture: str, begins: str) -> None:
    done = run("workflow", "graph", EXAMPLES[0], "--format", picture, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(begins)
    output = tmp_path / "picture"
    written = run("workflow", "graph", EXAMPLES[0], "-f", picture, "-o", output, cwd=tmp_path)
    assert written.returncode == 0
    assert output.read_text() == done.stdout


def test_what_cannot_be_drawn_is_a_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "broken.json"
    broken.write_text('{"nodes": []}')
    for name, said in (("broken.json", "nothing to draw"), ("none.json", "no such file")):
        done = run("workflow", "graph", name, cwd=tmp_path)
        assert done.returncode == 1
        assert said in done.stderr
        assert "Traceback" not in done.stderr


def test_the_schema_of_a_dialect_is_printed(tmp_path: Path) -> None:
    for name in ("graph", "dag", "steps"):
        done = run("workflow", "schema", name, cwd=tmp_path)
        assert json.loads(done.stdout)["$id"] == f"urn:permaflow:schemas:{name}"
    assert run("workflow", "schema", "bpmn", cwd=tmp_path).returncode == 2


def test_a_request_body_is_validated_as_the_document_in_it(tmp_path: Path) -> None:
    path = tmp_path / "body.json"
    example = next(path for path in EXAMPLES if path.stem == "order-notify")
    document = json.loads(example.read_text())
    path.write_text(json.dumps({"name": "Orders", "definition": document}))
    found = read(path)
    assert found.name == "Orders"
    assert check(found).valid
    assert json.loads(found.body("Orders")) == {"name": "Orders", "definition": document}


@pytest.mark.parametrize("text", ["{", "[1, 2", '{"a": NaN}', ""])
def test_what_is_no_json_is_refused_with_a_sentence(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_text(text)
    done = run("workflow", "validate", path, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"permaflow: {path}: ")
    assert "Traceback" not in done.stderr
    if text:
        assert done.stderr.splitlines()[1] == f"    1 | {text}"


def test_what_the_gateway_would_refuse_or_warn_of_is_told_without_one(tmp_path: Path) -> None:
    hook = {"id": "hook", "type": "trigger_webhook", "config": {}}
    say = {"id": "say", "type": "code_function", "config": {"function_slug": "echo"}}
    flow = {"nodes": [hook, say], "edges": [{"id": "e", "source": "hook", "target": "say"}]}
    path = tmp_path / "hook.json"
    path.write_text(json.dumps(flow))
    open_to_all = run("workflow", "validate", path, cwd=tmp_path)
    assert open_to_all.returncode == 0
    assert ": warning: Whoever knows the address can start this workflow." in open_to_all.stdout

    hook["config"] = {"verification": {"scheme": "nonsense"}}
    path.write_text(json.dumps(flow))
    (report,) = json.loads(run("workflow", "validate", path, "--json", cwd=tmp_path).stdout)
    (problem,) = report["problems"]
    assert problem["code"] == "bad_value"
    assert problem["pointer"] == "/nodes/0/config/verification/scheme"


def test_a_document_is_played_without_a_server(tmp_path: Path) -> None:
    example = next(path for path in EXAMPLES if path.stem == "order-notify")
    record = {"id": "ord-1", "amount": 120, "placed_at": "2030-01-31T09:00:00Z"}
    data = json.dumps({"record": record})
    checked = {"validate": {"output": {"checked_at": "2030-01-31T09:00:01Z"}}}
    given = ("--data", data, "--mocks", json.dumps(checked), "--json")
    done = run("workflow", "dry-run", example, *given, cwd=tmp_path)
    (event,) = json.loads(done.stdout)["events"]
    assert (done.returncode, event["status"]) == (0, "completed")
    mocks = json.dumps(
        {**checked, "notify": {"error": {"code": "away", "message": "Nobody is there."}}}
    )
    done = run("workflow", "dry-run", example, "--data", data, "--mocks", mocks, cwd=tmp_path)
    assert done.returncode == 1
    assert "Nobody is there." in done.stdout
    done = run("workflow", "dry-run", example, "--mocks", '{"notify": 1}', cwd=tmp_path)
    assert done.returncode == 1
    assert "mocks.notify" in done.stderr
    assert "Traceback" not in done.stderr
    done = run("workflow", "dry-run", example, "--mocks", '{"notfy": {"output": 1}}', cwd=tmp_path)
    assert done.returncode == 1
    assert "did you mean 'notify'?" in done.stderr
    assert run("workflow", "dry-run", example, "--of", "x", cwd=tmp_path).returncode == 2


def test_an_output_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [COMMAND, "version", "--json"],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert done.returncode == 1
    assert "No space left on device" in json.loads(done.stderr)["error"]["message"]


def test_a_folder_that_cannot_be_made_is_told_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    done = run("new", "task-type", "action_fax", "--into", "file", cwd=tmp_path)
    assert done.returncode == 1
    assert "Not a directory" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_secret_that_is_no_text_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "secret", "set", "bin"], cwd=tmp_path, input=b"\xff\xfe", capture_output=True
    )
    assert done.returncode == 1
    assert b"A secret is text in UTF-8" in done.stderr


def test_a_workflow_has_the_name_that_its_document_gives_it(tmp_path: Path) -> None:
    (tmp_path / "flow.json").write_text('{"name": "Given", "nodes": [], "edges": []}')
    assert read(tmp_path / "flow.json").name == "Given"
    (tmp_path / "flow.json").write_text('{"nodes": [], "edges": []}')
    assert read(tmp_path / "flow.json").name == "flow"


def test_what_comes_on_standard_input_without_a_name_is_asked_for_one(tmp_path: Path) -> None:
    done = subprocess.run(
        [COMMAND, "workflow", "apply", "-"],
        cwd=tmp_path,
        input='{"nodes": [], "edges": []}',
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "give it by --name" in done.stderr
