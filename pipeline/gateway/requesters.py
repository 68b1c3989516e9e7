"""Approvals that nobody may give to their own requests, in workflows that do not know who asks.

A run that a person starts has a requester. One that a change, a webhook, a time or an integration
starts has none that is a person, so the ban of self-approval holds nobody back, unless the
approval says who asks.
"""

from __future__ import annotations

from collections.abc import Iterator

from permaflow.plan import Compiled, Json, Problem, Question
from pipeline.core.approval import KIND
from specs.approvals import Asking

KNOWN = frozenset({"manual"})
"""Triggers whose runs somebody has started."""


def nobody_asks(document: Json, compiled: Compiled) -> Iterator[Problem]:
    """A warning for each such approval, with its place in the document."""
    strange = sorted({each.kind for each in compiled.triggers} - KNOWN)
    if compiled.plan is None or not strange:
        return
    for node in compiled.plan.nodes.values():
        work = node.work
        if not (isinstance(work, Question) and work.kind == KIND):
            continue
        asking = work.config
        assert isinstance(asking, Asking)
        if asking.rules["self_approval"] or asking.knows_who_asks:
            continue
        kinds = " or ".join(f"`trigger_{kind}`" for kind in strange)
        yield Problem(
            place_of(document, node.id),
            "unknown_requester",
            f"Who asked may not decide about `{node.id}`, but of a run that {kinds} starts nobody "
            "knows who asked. Name them by `requester`, such as `{{trigger.record.created_by}}`, "
            "or allow it by `self_approval: true`.",
        )


def place_of(document: Json, node: str) -> str:
    """Where a node is written: the pointer to it in the list that holds it; "" if nowhere."""
    if not isinstance(document, dict):
        return ""
    dag = document.get("dag")
    lists = [("/nodes", document.get("nodes")), ("/steps", document.get("steps"))]
    if isinstance(dag, dict):
        lists.append(("/dag/tasks", dag.get("tasks")))
    for pointer, listed in lists:
        for index, each in enumerate(listed if isinstance(listed, list) else ()):
            if isinstance(each, dict) and node in (each.get("id"), each.get("name")):
                return f"{pointer}/{index}"
    return ""
