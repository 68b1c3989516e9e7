"""Logs and metrics speak through the catalogue, and only through it."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from prometheus_client.metrics import MetricWrapperBase

from pipeline import telemetry

if TYPE_CHECKING:
    from conftest import Module

CATALOGUE = "pipeline/telemetry.py"
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
CONSTANTS = {
    name: telemetry.EVENTS[value]
    for name, value in vars(telemetry).items()
    if name.isupper() and isinstance(value, str) and value in telemetry.EVENTS
}


def lines(modules: list[Module]) -> Iterator[tuple[str, ast.Call, str]]:
    """Where, which call and which level: every log line that the engine may write."""
    for module in modules:
        if module.in_package and module.path != CATALOGUE:
            for node in ast.walk(module.tree):
                match node:
                    case ast.Call(
                        func=ast.Attribute(value=ast.Name(id="log" | "logger"), attr=level)
                    ) if level in LEVELS:
                        yield f"{module.path}:{node.lineno}", node, level


def event_of(call: ast.Call) -> telemetry.LogEvent | None:
    match call.args:
        case [ast.Attribute(value=ast.Name(id="telemetry"), attr=name)] | [ast.Name(id=name)]:
            return CONSTANTS.get(name)
    return None


def test_every_log_line_is_an_event_of_the_catalogue(modules: list[Module]) -> None:
    unknown = [where for where, call, _ in lines(modules) if event_of(call) is None]
    assert not unknown


def test_every_log_line_has_the_level_and_fields_of_its_event(modules: list[Module]) -> None:
    """`log.exception` may stand for any level: it adds the traceback of a surprise."""
    wrong = [
        f"{where} {event.name}"
        for where, call, level in lines(modules)
        if (event := event_of(call))
        and (
            level not in (event.level, "exception")
            or {keyword.arg for keyword in call.keywords} - {*event.fields, "exc_info"}
        )
    ]
    assert not wrong


def test_every_name_of_the_catalogue_is_used(modules: list[Module]) -> None:
    """What is declared, and never told, is missed by whoever watches for it."""
    used = {
        node.attr
        for module in modules
        if module.in_package and module.path != CATALOGUE
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "telemetry"
    }
    measured = {
        name for name, value in vars(telemetry).items() if isinstance(value, MetricWrapperBase)
    }
    assert not {*CONSTANTS, *measured} - used


def test_metrics_are_made_in_the_catalogue_alone(modules: list[Module]) -> None:
    makers = {"Counter", "Gauge", "Histogram", "Summary", "Info", "Enum"}
    elsewhere = [
        module.path
        for module in modules
        if module.in_package and module.path != CATALOGUE
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ImportFrom)
        and node.module == "prometheus_client"
        and makers & {alias.name for alias in node.names}
    ]
    assert not elsewhere


def metrics() -> list[MetricWrapperBase]:
    return [value for value in vars(telemetry).values() if isinstance(value, MetricWrapperBase)]


@pytest.mark.parametrize("metric", metrics(), ids=lambda metric: metric._name)
def test_a_metric_is_named_as_ours_and_has_no_id_for_a_label(metric: MetricWrapperBase) -> None:
    assert re.fullmatch(r"permaflow_[a-z_]+", metric._name)
    assert not [label for label in metric._labelnames if label == "id" or label.endswith("_id")]


def test_every_event_is_named_after_a_thing_and_what_happened_to_it() -> None:
    for name in telemetry.EVENTS:
        assert re.fullmatch(r"[a-z_]+\.[a-z_]+", name), name


def test_whatever_a_line_holds_it_is_one_line_of_json_without_secrets() -> None:
    code = (
        "from pipeline import telemetry\n"
        "telemetry.configure('INFO', 'json')\n"
        "telemetry.log.info('a', text='lone \\ud800 and\\nmore', number=2**70, other={1, 2})\n"
        "telemetry.log.info('b', smtp_password='hunter2', Authorization='hunter2', node='n')\n"
        "try: 1 / 0\n"
        "except ZeroDivisionError: telemetry.log.exception('c')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True)
    first, second, third = map(json.loads, done.stderr.splitlines())
    assert (first["event"], first["level"]) == ("a", "info")
    assert (first["text"], first["number"]) == ("lone \ud800 and\nmore", 2**70)
    assert (second["smtp_password"], second["Authorization"], second["node"]) == ("***", "***", "n")
    assert "ZeroDivisionError" in third["exception"]
