"""What is deployed speaks the project's words: settings, vertices, packages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.settings import Settings

VERTICES = {"gateway", "ingest", "orchestrator", "runner", "completion", "clock"}
VARIABLES = {f"PERMAFLOW_{name.upper()}" for name in Settings.model_fields}


@pytest.fixture(scope="module")
def services(root: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((root / "deploy/compose.yaml").read_text())["services"])


@pytest.fixture(scope="module")
def dockerfile(root: Path) -> str:
    return (root / "deploy/Dockerfile").read_text()


def test_compose_runs_every_vertex_from_the_same_image(services: dict[str, Any]) -> None:
    ours = {name: service for name, service in services.items() if service["image"] == "permaflow"}
    assert {name: service["command"] for name, service in ours.items()} == {
        "schema": ["db", "migrate"],
        **{name: ["serve", name] for name in VERTICES},
    }


def test_compose_starts_no_vertex_before_the_schema_is_there(services: dict[str, Any]) -> None:
    for vertex in VERTICES:
        waits = services[vertex]["depends_on"]["schema"]
        assert waits == {"condition": "service_completed_successfully"}
    assert services["schema"]["restart"] == "no"


def test_compose_waits_for_servers_that_can_say_they_are_ready(services: dict[str, Any]) -> None:
    servers = {name for name, service in services.items() if "healthcheck" in service}
    assert servers == {"postgres", "nats", "kafka", "valkey"}
    for vertex in VERTICES:
        assert set(services[vertex]["depends_on"]) == servers | {"schema"}


def test_compose_and_image_name_only_settings_that_exist(
    services: dict[str, Any], dockerfile: str
) -> None:
    named = set(re.findall(r"PERMAFLOW_[A-Z_]+", dockerfile))
    for vertex in VERTICES:
        named |= set(services[vertex]["environment"])
    assert named <= VARIABLES
    assert {"PERMAFLOW_DATABASE_URL", "PERMAFLOW_NATS_URL", "PERMAFLOW_KAFKA_BOOTSTRAP"} <= named


def test_compose_tells_every_vertex_of_servers_that_it_starts(services: dict[str, Any]) -> None:
    for value in services["gateway"]["environment"].values():
        for host in re.findall(r"(?:@|//|^)([a-z]+):\d+", value):
            assert host in services


def test_compose_names_a_version_of_every_image(services: dict[str, Any]) -> None:
    images = [s["image"] for name, s in services.items() if name not in VERTICES | {"schema"}]
    assert all(re.search(r":\d", image) for image in images), images


def test_the_image_runs_the_command_as_an_unprivileged_user(dockerfile: str) -> None:
    last = dockerfile.rpartition("\nFROM ")[2]
    assert re.findall(r"^USER (.+)$", last, re.MULTILINE) == ["10001:10001"]
    assert 'ENTRYPOINT ["permaflow"]' in last


def test_the_image_is_built_from_every_package(
    dockerfile: str, packages: tuple[str, ...], root: Path
) -> None:
    copied = re.findall(r"^COPY (\w+) (\w+)$", dockerfile, re.MULTILINE)
    assert copied == [(name, name) for name in packages]
    allowed = (root / ".dockerignore").read_text().split()
    assert {f"!{name}" for name in packages} <= set(allowed)
