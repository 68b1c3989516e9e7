"""Ten thousand joins of any and of some branches that end in any order: each fires once."""

from __future__ import annotations

import random
from collections import Counter

from permaflow.plan import CONTINUE, TAKEN, AtLeast, Ref
from pipeline.core.entries import Cancelled, Dispatched, Skipped, Succeeded
from pipeline.core.events import AttemptDone, AttemptFailed, Event, Woken
from tests.core.plans import TASK, plan_of, step
from tests.core.world import World

RACES = 10_000


def race(seed: int) -> str:
    """What the join came to; asserted to be what the order of the branches says."""
    chance = random.Random(seed)
    branches = [f"b{number}" for number in range(chance.randint(2, 6))]
    need = chance.choice((1, 1, chance.randint(1, len(branches))))
    when = AtLeast(need, tuple(Ref(name, TAKEN) for name in branches))
    plan = plan_of(
        *(step(name, TASK, on_error=CONTINUE) for name in branches),
        step("join", TASK, when, cancels=tuple(branches)),
    )
    world = World(plan, audited=False)
    world.tell(Woken())
    told: list[Event] = []
    for name in branches:
        ok = chance.random() < 0.7
        done = AttemptDone("", name, 1, name)
        told += [done if ok else AttemptFailed("", name, 1, "broke", "no", False)]
    chance.shuffle(told)
    good = [index for index, event in enumerate(told) if isinstance(event, AttemptDone)]
    again = [chance.choice(told) for _ in range(chance.randint(0, 4))]
    order = list(told)
    while order:
        size = chance.randint(1, 3)
        world.tell(*order[:size], *again[:1])
        order, again = order[size:], again[1:]
    for event in told:
        world.tell(event)
    fired = [e for e in world.of(Dispatched) if e.node == "join"]
    skipped = [e for e in world.of(Skipped) if e.node == "join"]
    assert len(fired) + len(skipped) == 1
    assert bool(fired) is (len(good) >= need)
    if not fired:
        return "skipped"
    ended = {e.node for e in world.of(Succeeded)}
    cancelled = {e.node for e in world.of(Cancelled)}
    assert need <= len(ended)
    assert not ended & cancelled
    world.tell(AttemptDone("", "join", 1, "joined"))
    assert world.run.finished
    world.check()
    return "some cancelled" if cancelled else "all ended"


def test_ten_thousand_joins_of_some_branches_fire_once_each() -> None:
    found = Counter(race(seed) for seed in range(RACES))
    assert set(found) == {"skipped", "some cancelled", "all ended"}
    assert min(found.values()) > 500, found
