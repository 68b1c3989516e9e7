"""The workflow in the README is one: it compiles as it stands there."""

from __future__ import annotations

import json
import re
from pathlib import Path

from permaflow.plan import Condition
from pipeline import builtins
from pipeline.settings import Settings
from specs.graph import GraphDialect


def test_the_workflow_of_the_readme_compiles(root: Path) -> None:
    readme = (root / "README.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"```json\n(.*?)```", readme, re.DOTALL)
    document = json.loads(text)
    dialect = GraphDialect()

    compiled = dialect.compile(document, builtins.task_types(Settings(_env_file=None)))

    assert dialect.recognises(document)
    assert compiled.problems == ()
    assert compiled.plan is not None
    assert set(compiled.plan.nodes) == {"order", "announce"}
    (trigger,) = compiled.triggers
    assert (trigger.object, trigger.events) == ("orders", {"created"})
    assert trigger.conditions == (Condition(("amount",), "gt", 100),)
