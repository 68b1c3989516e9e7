"""Bugs to plant in the core, and the hunt that has to find each of them.

    python -m tests.core.mutants [--compare] [name ...]

plants each bug (or those named) in a process of its own and prints how it was found; with
`--compare`, by the comparison with the reference interpreters alone, in so many plans as are tried
before it is given up. A bug is a change of the source text; one whose text is no longer there is
reported as `gone`.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import inspect
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import CodeType, ModuleType
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PATIENCE = 40
"""Seconds of processor time after which a hunt is given up."""


class Bug(NamedTuple):
    """In `module`, `old` becomes `new`."""

    name: str
    module: str
    old: str
    new: str


BUGS = (
    # What every engine of this kind gets wrong sooner or later.
    Bug(
        "a stale attempt is taken for the current one",
        "pipeline.core.staleness",
        "        and state.attempt == event.attempt\n",
        "",
    ),
    Bug(
        "a question whose node was cancelled stays open",
        "pipeline.core.fold",
        "        _withdraw(run, scope.id, name, state)\n",
        "        pass\n",
    ),
    Bug(
        "the timeout of a question outlives its answer",
        "pipeline.core.fold",
        '    _disarm(run, timer_key("timeout", scope, name, state.attempt))\n    kind = question',
        "    kind = question",
    ),
    Bug(
        "a dependency is forgotten",
        "permaflow.plan",
        "            for other in mentions(node.when):",
        "            for other in mentions(node.when)[:2]:",
    ),
    Bug(
        "one attempt too many",
        "pipeline.core.unknown",
        "state.retries < node.retry.max_retries",
        "state.retries <= node.retry.max_retries",
    ),
    Bug(
        "a join fires twice",
        "pipeline.core.decide",
        "(state.outcome is not None or state.phase is not None)",
        "state.phase is not None",
    ),
    Bug(
        "a skip is not propagated",
        "pipeline.core.decide",
        "            self.write(Skipped(scope.id, name))\n            self._ended(scope, name)",
        "            self.write(Skipped(scope.id, name))",
    ),
    # Failures and retries.
    Bug(
        "retries are not reset by a jump",
        "pipeline.core.fold",
        "        state.retries = 0\n",
        "",
    ),
    Bug(
        "an attempt number is used again after a jump",
        "pipeline.core.fold",
        "        state.retries = 0\n",
        "        state.retries = state.attempt = 0\n",
    ),
    Bug(
        "being put off uses up a retry",
        "pipeline.core.fold",
        "def _parked(run: Run, entry: Parked) -> None:\n",
        "def _parked(run: Run, entry: Parked) -> None:\n"
        "    run.scopes[entry.scope].node(entry.node).retries += 1\n",
    ),
    Bug(
        "a timeout is not told apart from a failure",
        "pipeline.core.fold",
        "Outcome.TIMED_OUT if entry.timed_out else Outcome.FAILED",
        "Outcome.FAILED",
    ),
    Bug(
        "a timeout is no failure for the end of a run",
        "pipeline.core.frontier",
        "s.outcome in FAILURES",
        "s.outcome is Outcome.FAILED",
    ),
    Bug("one jump too many", "pipeline.core.decide", ".visits >= limit", ".visits > limit"),
    Bug(
        "a step that is open again keeps its old output",
        "pipeline.core.fold",
        "        scope.steps.pop(name, None)\n",
        "",
    ),
    # Joins.
    Bug(
        "a join of all does not wait for all",
        "pipeline.core.truth",
        "    if None in values:\n        return None\n",
        "    if None in values and True not in values:\n        return None\n",
    ),
    Bug(
        "n of m gives up one too early",
        "pipeline.core.truth",
        "len(values) - values.count(False) < count",
        "len(values) - values.count(False) <= count",
    ),
    Bug(
        "a loser is not cancelled",
        "pipeline.core.decide",
        "for loser in node.cancels:",
        "for loser in node.cancels[1:]:",
    ),
    Bug(
        "a loser is not stopped",
        "pipeline.core.fold",
        "            run.dropped_steps.append((scope.id, name, state.attempt))",
        "            pass",
    ),
    Bug(
        "a loser that has not begun is let go on",
        "pipeline.core.decide",
        "if scope.node(loser).outcome is None:",
        "if scope.node(loser).phase is not None:",
    ),
    Bug(
        "those who wait for a loser do not hear of it",
        "pipeline.core.decide",
        "                self.write(Cancelled(scope.id, loser))\n"
        "                self._ended(scope, loser)",
        "                self.write(Cancelled(scope.id, loser))",
    ),
    # Jumps and the timeouts of questions.
    Bug(
        "a jump opens its target alone",
        "pipeline.core.fold",
        "    for name in run.program.descendants(entry.target):\n",
        "    for name in run.program.descendants(entry.target)[:1]:\n",
    ),
    Bug(
        "those who wait for what made a jump do not hear of it",
        "pipeline.core.decide",
        "        self._ended(scope, node.id)\n        self.write(Jumped(",
        "        self.write(Jumped(",
    ),
    Bug(
        "a question that nobody answered leaves through no port",
        "pipeline.core.decide",
        "output, work.timeout_port))",
        "output))",
    ),
    Bug(
        "a question without a port has not timed out but failed",
        "pipeline.core.decide",
        '"timeout", message, timed_out=True)',
        '"timeout", message)',
    ),
    # Timers and the end.
    Bug(
        "the timer of a dropped retry is not cleared",
        "pipeline.core.fold",
        "    elif state.phase is RETRYING:\n"
        '        _disarm(run, timer_key("retry", scope.id, name, state.attempt))\n',
        "",
    ),
    Bug(
        "the end leaves steps behind",
        "pipeline.core.fold",
        "        _drop_nodes(run, scope)\n    for key in",
        "        pass\n    for key in",
    ),
    Bug(
        "one step too many",
        "pipeline.core.decide",
        "self.run.steps_used < limit",
        "self.run.steps_used <= limit",
    ),
    Bug(
        "every exit has to succeed",
        "pipeline.core.frontier",
        "Outcome.SUCCESS in ends",
        "set(ends) == {Outcome.SUCCESS}",
    ),
    # Loops.
    Bug(
        "an output lands in the wrong slot",
        "pipeline.core.fold",
        "loop.outputs[scope.index] = output",
        "loop.outputs[loop.done - 1] = output",
    ),
    Bug(
        "a loop that moved on is forgotten",
        "pipeline.core.fold",
        "    run.touched.append((outer, scope.loop))",
        "    if scope.index:\n        run.touched.append((outer, scope.loop))",
    ),
    Bug(
        "one iteration too many is open",
        "pipeline.core.loops",
        "parallel - len(loop.open)",
        "parallel + 1 - len(loop.open)",
    ),
    Bug(
        "steps of a dropped iteration go on",
        "pipeline.core.fold",
        "            _drop_nodes(run, inner)\n",
        "",
    ),
    Bug(
        "an iteration that has closed is looked at again",
        "pipeline.core.fold",
        "    del run.scopes[scope.id]\n    loop.done",
        "    loop.done",
    ),
    # What undoes a run.
    Bug(
        "the first is undone first",
        "pipeline.core.compensating",
        "run.undo.pop()",
        "run.undo.pop(0)",
    ),
    Bug(
        "what succeeded after a doubt is undone twice",
        "pipeline.core.fold",
        "        run.doubts.discard((scope.id, entry.node))\n        keep(",
        "        keep(",
    ),
    Bug(
        "a visit is undone once more",
        "pipeline.core.compensating",
        "    if state.outcome in FAILURES:\n",
        "    if state.visits == 1:\n"
        "        run.undo.append(Execution(scope.id, name.split('#')[0], {}, scope.context))\n"
        "    if state.outcome in FAILURES:\n",
    ),
    Bug(
        "a compensation that failed ends the others",
        "pipeline.core.compensating",
        "        run.unrepaired.append(\n",
        "        run.undo.clear()\n        run.unrepaired.append(\n",
    ),
    Bug(
        "what was with a runner is not undone",
        "pipeline.core.fold",
        "                run.doubts.add((scope.id, name))\n",
        "                pass\n",
    ),
    Bug(
        "what timed out is not undone",
        "pipeline.core.fold",
        "        if doubtful or is_unknown(entry):\n",
        "        if doubtful:\n",
    ),
    Bug(
        "a run that was not undone is told to be",
        "pipeline.core.compensating",
        '"compensated" if undone else cause.status',
        '"compensated"',
    ),
    Bug(
        "somebody is told of a failure that was none",
        "pipeline.core.compensating",
        'cause is not None and cause.status != "cancelled" and run.handled',
        "cause is not None and run.handled",
    ),
    Bug(
        "a run that is undone can be cancelled",
        "pipeline.core.decide",
        "            case CancelAsked() if self.run.cause is not None:\n",
        "            case CancelAsked() if self.run.cancelled:\n",
    ),
    Bug(
        "attempts are counted anew when a node is undone again",
        "pipeline.core.compensating",
        "run.repaired.get((scope_id, name), (0, 0))",
        "0, 0",
    ),
    Bug(
        "compensations are steps that a run may run out of",
        "pipeline.core.decide",
        "self.run.steps_used < limit or self.run.cause is not None",
        "self.run.steps_used < limit",
    ),
    Bug(
        "compensations use up steps",
        "pipeline.core.fold",
        "    if run.cause is None:\n        run.steps_used += 1\n",
        "    run.steps_used += 1\n",
    ),
    Bug(
        "what may happen once is tried again",
        "pipeline.core.unknown",
        "    elif is_unknown(event) and node.on_unknown is not OnUnknown.RETRY:\n",
        "    elif is_unknown(event) and node.on_unknown is OnUnknown.ASK:\n",
    ),
    Bug(
        "people are asked twice",
        "pipeline.core.unknown",
        "            return Judgement.LATE\n",
        "            return Judgement.ASK\n",
    ),
    # Taking over.
    Bug(
        "who takes a run over renders what is out anew",
        "pipeline.core.dispatching",
        "        state.config,\n",
        "        None,\n",
    ),
    Bug(
        "who takes a run over loses what is out",
        "pipeline.core.replay",
        "                _render(run, entry)\n",
        "                pass\n",
    ),
    Bug(
        "a timer that is not known is taken for an old one",
        "pipeline.core.decide",
        "            self.unknown += 1\n            self.effects.append(ClearTimer(key))",
        "            self.stale += 1\n            self.effects.append(ClearTimer(key))",
    ),
    # Runs that are held, and runs that go on after their end.
    Bug(
        "a paused run begins something",
        "pipeline.core.decide",
        "while not run.finished and not run.paused:",
        "while not run.finished:",
    ),
    Bug(
        "a timer of a paused run counts",
        "pipeline.core.decide",
        "        elif self.run.paused:  #",
        "        elif False:  #",
    ),
    Bug(
        "a jump out of a paused run is forgotten",
        "pipeline.core.fold",
        "    if run.paused:\n        scope.nodes[entry.target].phase = DUE\n",
        "",
    ),
    Bug(
        "a retried step has no retries left",
        "pipeline.core.reopen",
        "            state.retries = 0\n",
        "",
    ),
    Bug(
        "what was under way when the run ended is forgotten",
        "pipeline.core.fold",
        "            state.phase = DUE\n",
        "",
    ),
    Bug(
        "a broken iteration is not gone on with",
        "pipeline.core.fold",
        "            loop.broken[scope.index] = scope\n",
        "            pass\n",
    ),
    Bug(
        "an error that is mended is seen",
        "pipeline.core.reopen",
        "    if fatal:\n        _see_last_error(scope)\n",
        "",
    ),
    Bug(
        "what was skipped for a failure stays skipped",
        "pipeline.core.reopen",
        "state.outcome is Outcome.SKIPPED",
        "state.outcome is None",
    ),
    Bug(
        "a failure that was dealt with is retried",
        "pipeline.core.reopen",
        "return [] if isinstance(run.plan_node(name).on_error, Continue) else [name]",
        "return list(scope.nodes)",
    ),
    Bug(
        "a cancellation from before a retry counts",
        "pipeline.core.decide",
        "if reopened < self.run.reopened:",
        "if reopened < 0:",
    ),
    Bug(
        "a retried run has no timeout",
        "pipeline.core.decide",
        "        self.effects.extend(unarmed(run))\n",
        "",
    ),
)


class Planted(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Finds and loads one module with a bug in it."""

    def __init__(self, bug: Bug) -> None:
        self.bug = bug
        path = ROOT / f"{bug.module.replace('.', '/')}.py"
        super().__init__(bug.module, str(path))
        self.text = path.read_text(encoding="utf-8")

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.bug.module:
            return None
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self)

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.text.replace(self.bug.old, self.bug.new), self.path, "exec")


def hunt(count: int = 300) -> None:
    """Fails if anything is wrong: with one of `count` random runs, or else with an example."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    from pipeline.core.events import Woken
    from tests.core import test_compensating, test_controls, test_loops, test_retry, test_runs
    from tests.core import test_properties as properties
    from tests.core.plans import cases, schedules
    from tests.core.world import World

    quick = settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )

    @quick
    @given(cases(), schedules, st.lists(st.integers(0, 999), min_size=1, max_size=9), st.booleans())
    def goes_well(case: properties.Case, schedule: list[int], noise: list[int], slow: bool) -> None:
        world = World(*case)
        world.tell(Woken())
        for turn in range(400):
            world.check()
            properties.changes_nothing(world, properties.nuisance(world, noise[turn % len(noise)]))
            if world.run.finished:
                return
            properties.stale_states_know_it(world, 1)
            choices = world.next_events(slow=slow)
            assert choices, "stuck"
            world.tell(choices[schedule[turn] % len(choices) if turn < len(schedule) else 0])
        raise AssertionError("no end")

    goes_well()
    for module in (test_compensating, test_runs, test_loops, test_retry, test_controls):
        for example in examples_of(module):
            example()


def examples_of(module: ModuleType) -> Iterator[Callable[[], None]]:
    """The tests of a module that need nothing from outside, once for each of their parameters."""
    for name, test in vars(module).items():
        if name.startswith("test_"):
            marks = [mark for mark in getattr(test, "pytestmark", ()) if mark.name == "parametrize"]
            if marks:
                ((names, values),) = (mark.args for mark in marks)
                for value in values:
                    yield partial(test, *([value] if isinstance(names, str) else value))
            elif not inspect.signature(test).parameters:
                yield test


def compare(count: int = 3_000) -> None:
    """Fails if one of `count` plans comes to anything but what the references say."""
    from tests.core import test_many_plans

    test_many_plans.hunt(count, 1, shrink=False)


def outcome_of(bug: Bug, hunt: Callable[[], None] = hunt) -> str:
    """How a bug was found, in a process of its own: the last line of what was raised."""
    planted = Planted(bug)
    if planted.text.count(bug.old) != 1:
        return "gone"
    readable, writable = os.pipe()
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_VIRTUAL, PATIENCE)
        sys.meta_path.insert(0, planted)
        try:
            hunt()
            found = "survived"
        except BaseException as error:
            found = traceback.format_exception_only(error)[0].strip().splitlines()[0][:200]
        os.write(writable, found.encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as answer:
        found = answer.read().decode()
    os.waitpid(child, 0)
    return found or "survived: no end"


def main(names: Sequence[str]) -> None:
    import hypothesis.strategies  # noqa: F401 - once, before the processes part

    by = compare if "--compare" in names else hunt
    names = [name for name in names if name != "--compare"]
    for bug in BUGS:
        if not names or bug.name in names:
            print(json.dumps([bug.name, outcome_of(bug, by)]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
