"""`permaflow catalogue`: what workflows may be made of, told without a server."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

COMMAND = Path(sys.executable).with_name("permaflow")
ROOT = Path(__file__).parents[2]


def run(
    *arguments: str, plugins: str = "tests.catalogue_forms"
) -> subprocess.CompletedProcess[str]:
    env = {"PYTHONPATH": str(ROOT), "PERMAFLOW_PLUGINS": plugins}
    return subprocess.run(
        [COMMAND, "catalogue", *arguments], env=env, capture_output=True, text=True, timeout=60
    )


def told(*arguments: str) -> Any:
    done = run(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_every_block_is_listed_and_what_is_broken_is_told_beside() -> None:
    done = run("list")
    assert done.returncode == 0
    for name in ("trigger_record", "logic_switch", "action_http", "geo/sync"):
        assert f"\n{name} " in done.stdout
    assert "geo/lost" not in done.stdout
    assert "nowhere" in done.stderr


def test_the_twenty_types_of_nodes_are_there() -> None:
    families = {
        "trigger": ("record", "schedule", "webhook", "manual", "integration"),
        "action": ("integration", "record", "email", "http", "notification"),
        "logic": ("condition", "switch", "loop", "delay", "parallel", "approval"),
        "code": ("snippet", "function"),
        "meta": ("subworkflow", "error"),
    }
    wanted = {f"{family}_{name}" for family, names in families.items() for name in names}
    assert len(wanted) == 20
    blocks = {block["name"]: block for block in told("list")}
    assert wanted - blocks.keys() == set()
    plain = [name for name in wanted if blocks[name]["icon"] == "box"]
    assert plain == [], "give them an icon"


def test_the_blocks_of_one_category() -> None:
    assert [block["name"] for block in told("list", "--category", "Geo")] == ["geo/sync"]


def test_a_block_is_shown_with_its_fields_and_with_its_schemas() -> None:
    done = run("show", "geo/sync")
    assert "datasourceId" in done.stdout
    assert "single-row-update" in done.stdout
    shown = told("show", "geo/sync")
    assert shown["config"]["required"] == ["country"]
    assert [field["key"] for field in shown["fields"]][:2] == ["country", "city"]


def test_a_block_that_is_not_there_is_a_sentence() -> None:
    done = run("show", "nothing")
    assert done.returncode == 1
    assert "There is no task type 'nothing'" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_doctor_names_a_plug_in_that_is_broken(tmp_path: Path) -> None:
    def plug_ins(plugins: str) -> list[Any]:
        env = {"PYTHONPATH": str(ROOT), "PERMAFLOW_PLUGINS": plugins, "PATH": str(tmp_path)}
        done = subprocess.run(
            [COMMAND, "doctor", "--json"],
            env=env,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return [line for line in json.loads(done.stdout)["checks"] if line["check"] == "plug-ins"]

    (sound,) = plug_ins("")
    assert sound["state"] == "ok"
    (broken,) = plug_ins("tests.catalogue_forms")
    assert broken["state"] == "fail"
    assert "geo/lost" in broken["message"]
