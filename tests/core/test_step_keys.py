"""The keys under which outside systems tell a repetition from a new piece of work."""

from uuid import uuid4

from pydantic import BaseModel

from permaflow.plan import Goto, Node, Plan, Ref, Task
from permaflow.task import Done, TaskType
from pipeline.attempt import attempt
from pipeline.core.decide import decide
from pipeline.core.dispatching import outstanding
from pipeline.core.effects import Dispatch
from pipeline.core.events import AttemptDone, AttemptFailed, Woken
from pipeline.core.program import Program
from pipeline.core.state import Run
from pipeline.wire import Dispatch as WireDispatch
from tests.core.no_services import services_for_nothing

PLAN = Plan(
    {
        "work": Node("work", "code_function", Task("code", {})),
        "check": Node(
            "check", "code_function", Task("code", {}), when=Ref("work"), on_error=Goto("work")
        ),
    }
)


def dispatched(run, *events):
    return [
        (effect.node, effect.attempt, effect.visit)
        for effect in decide(run, events).effects
        if isinstance(effect, Dispatch)
    ]


def test_a_goto_opens_a_step_as_a_new_visit_and_attempts_count_on():
    run = Run(uuid4(), Program(PLAN), {}, "")

    assert dispatched(run, Woken()) == [("work", 1, 0)]
    assert dispatched(run, AttemptDone("", "work", 1)) == [("check", 1, 0)]
    failed = AttemptFailed("", "check", 1, "bad", "no", retryable=False)
    assert dispatched(run, failed) == [("work", 2, 1)]
    assert [effect.visit for effect in outstanding(run)] == [1]
    assert dispatched(run, AttemptDone("", "work", 2)) == [("check", 2, 1)]


async def keys(**fields):
    """`idempotency_key` and `step_key` as a task sees them."""
    seen = []

    async def run(config, ctx):
        seen.append((ctx.idempotency_key, ctx.step_key))
        return Done()

    class Nothing(BaseModel):
        pass

    org, run_id = uuid4(), fields.pop("run_id")
    dispatch = WireDispatch(
        run_id=run_id, scope="", node="n", type="t", config={}, timeout=5.0, **fields
    )
    services = services_for_nothing()
    await attempt(dispatch, {}, str(org), TaskType("t", "s", Nothing, Nothing, run), services)
    return seen[0]


async def test_attempts_share_the_key_of_the_step_and_visits_do_not():
    run_id = uuid4()
    first = await keys(run_id=run_id, attempt=1)
    again = await keys(run_id=run_id, attempt=1, nudge=1)
    retried = await keys(run_id=run_id, attempt=2)
    visited = await keys(run_id=run_id, attempt=3, visit=1)

    assert first == again
    assert first[1] == retried[1]
    assert first[0] != retried[0]
    assert len({first[1], visited[1]}) == 2
