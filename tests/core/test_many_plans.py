"""Twenty thousand random plans against the reference interpreter, on all processors.

Every plan is played with events that come twice, late and in any order, by processes that die and
are replaced; what becomes of each node, and of the run, must be what the reference says.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from permaflow.plan import Plan
from pipeline.core.events import Event, Woken
from tests.core.agreement import agree
from tests.core.plans import ORDERLY, Table, cases
from tests.core.reference import expect
from tests.core.world import World

PLANS = 20_000
WITHIN = 600.0
"""Seconds; the promise is for two processors."""

MOST_TURNS = 6_000
SMALLER = replace(ORDERLY, nodes=8)
"""Than those of the other properties, which are fewer."""


def play(plan: Plan, table: Table, chance: random.Random) -> World:
    """A run whose events come in any order, again and again, to processes that come and go."""
    world = World(plan, table, audited=False)
    world.tell(Woken())
    told: list[Event] = [Woken()]
    for _ in range(MOST_TURNS):
        if world.run.finished:
            return world
        choices = world.next_events()
        assert choices, "the run is stuck"
        event = chance.choice(choices)
        told.append(event)
        match chance.randrange(8):
            case 0:
                world.tell(event, event)
            case 1:
                world.tell(event, chance.choice(told))
            case 2:
                world.restart()
                world.tell(event)
            case 3:
                world.tell(chance.choice(told))
            case _:
                world.tell(event)
    raise AssertionError("the run does not end")


def hunt(count: int, number: int) -> None:
    """`count` plans; the seed makes them the same again. Prints how many there were."""
    tried = 0

    @seed(number)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(cases(SMALLER), st.randoms(use_true_random=False))
    def compare(case: tuple[Plan, Table], chance: random.Random) -> None:
        nonlocal tried
        tried += 1
        world = play(*case, chance)
        agree(world, case, expect(*case, world.run.trigger))

    compare()
    print(tried)


@pytest.mark.slow
def test_twenty_thousand_random_plans_come_to_what_the_reference_says() -> None:
    processors = os.cpu_count() or 1
    number = int(os.environ.get("PERMAFLOW_TEST_SEED", "0")) or random.randrange(1, 10**6)
    print(f"PERMAFLOW_TEST_SEED={number}")
    began = time.monotonic()
    share = -(-PLANS // processors)
    hunters = [
        subprocess.Popen(
            [
                sys.executable,
                "-c",
                f"from tests.core.test_many_plans import hunt; hunt({share}, {number + each})",
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for each in range(processors)
    ]
    said = [hunter.communicate(timeout=WITHIN) for hunter in hunters]
    for hunter, (_, error) in zip(hunters, said, strict=True):
        assert hunter.returncode == 0, error[-4000:]
    assert sum(int(output.split()[-1]) for output, _ in said) >= PLANS
    assert time.monotonic() - began < WITHIN
