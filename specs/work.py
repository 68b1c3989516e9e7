"""What a step does: a type and a config to the work of a node.

Every dialect reads its steps here, so a type means the same in each. Pointers are relative to the
config; the dialect knows where the config stands.
"""

from __future__ import annotations

from collections.abc import Callable

from permaflow.plan import (
    Branch,
    Delay,
    Json,
    Loop,
    Pass,
    Question,
    Task,
    TaskTypes,
    Trigger,
    Work,
)
from specs import approvals, logic, subworkflows, waits
from specs.expressions import NAMES, Names
from specs.paths import Path
from specs.reading import Fields, Report, shown
from specs.templates import Look, read_config
from specs.triggers import KINDS

PASSING = frozenset({"logic_parallel", "logic_join", "meta_error"})
_LOGIC: dict[str, Callable[[Fields, Look], Work]] = {
    "logic_condition": logic.read_condition,
    "logic_switch": logic.read_switch,
    "logic_loop": logic.read_loop,
    "logic_delay": logic.read_delay,
    "logic_approval": approvals.read_approval,
    "meta_subworkflow": subworkflows.read_subworkflow,
}
_ERROR = Path(("error",), "error", None)
INLINE = frozenset({*_LOGIC, *PASSING})
"""Types that the orchestrator works off by itself."""


def known_types(types: TaskTypes) -> frozenset[str]:
    return INLINE.union(KINDS, types.names())


def unknown_type(name: str, known: frozenset[str], report: Report) -> str:
    """The sentence about a type that nobody offers."""
    return (
        f"There is no type {shown(name)} here; {report.guess(name, known)}"
        f"the types are {', '.join(sorted(known))}."
    )


def read_work(
    type_name: str,
    config: dict[str, Json],
    report: Report,
    look: Look,
    types: TaskTypes,
    names: Names = NAMES,
) -> Work:
    """`type_name` is one of `known_types`. With problems, what comes back only fills the place."""
    if type_name in KINDS:
        return Trigger()
    if (read := _LOGIC.get(type_name)) is not None:
        return read(Fields(config, "", report), look)
    if type_name in PASSING:
        join = () if type_name == "meta_error" else ("join", "n")
        Fields(config, "", report).only(join, {"label", "description"})
        return Pass(_ERROR if type_name == "meta_error" else None)
    verbatim = types.verbatim(type_name)
    compiled = read_config(config, "", report, look, names, verbatim)
    problems = types.config_problems(type_name, config)
    report.extend(problems)
    return Pass() if problems else Task(types.stage(type_name), compiled)


def ports_of(work: Work) -> tuple[str, ...]:
    """The ports that a node may end through, as far as the document tells."""
    if isinstance(work, Question) and work.kind == approvals.KIND:
        return approvals.PORTS
    if isinstance(work, Question) and work.kind == waits.KIND:
        return waits.PORTS
    if not isinstance(work, Branch):
        return ()
    names = [name for name, _ in work.cases]
    if work.default is not None and work.default not in names:
        names.append(work.default)
    return tuple(names)


def may_fail(work: Work) -> bool:
    return isinstance(work, Task | Branch | Delay | Loop | Question)
