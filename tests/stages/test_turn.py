from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from permaflow.errors import StoreUnavailableError
from permaflow.plan import Json
from permaflow.task import Done, Park, Reject
from permaflow.testing.task import check_task_type, config_of, make_context
from stages.turn import MAX_AMONG, ROTATIONS, task_type


@dataclass
class Turns:
    """Counts turns as the store does, for one process; `users` are the ids of records."""

    users: list[str] = field(default_factory=list)
    taken: dict[str, int] = field(default_factory=dict)
    down: bool = False

    async def find(self, object_name: str, *, after: str = "", limit: int = 100) -> list[Json]:
        return [{"id": user} for user in self.users if user > after][:limit]

    async def turn(self, object_name: str, record_id: str, key: str) -> int:
        if self.down:
            raise StoreUnavailableError
        assert (object_name, record_id) == (ROTATIONS, "r")
        return self.taken.setdefault(key, len(self.taken))


async def take(turns: Turns, node: str = "a", **config: Any) -> Any:
    context = make_context(records=turns, node=node)
    return await task_type.run(config_of(task_type, rotation="r", **config), context)


def test_it_keeps_the_promises_of_a_task_type() -> None:
    sound = {"rotation": "r", "among": ["a", "b"]}
    check_task_type(task_type, sound=sound, unsound={"rotation": "r"})
    check_task_type(task_type, sound={"rotation": "r", "object": "User"}, unsound=sound | {"x": 1})


async def test_those_who_are_named_take_turns_and_begin_again() -> None:
    turns = Turns()
    found = [await take(turns, f"step_{number}", among=["ann", "bo"]) for number in range(3)]
    assert [each.output["chosen"] for each in found] == ["ann", "bo", "ann"]
    assert found[2] == Done({"chosen": "ann", "number": 2})


async def test_a_step_that_runs_again_has_the_same_turn() -> None:
    turns = Turns()
    await take(turns, "other", among=["ann", "bo"])
    assert (await take(turns, "a", among=["ann", "bo"])) == (
        await take(turns, "a", among=["ann", "bo"])
    )


async def test_all_records_of_an_object_take_turns() -> None:
    turns = Turns(users=[f"u{number:05}" for number in range(2_500)])
    turns.taken = {str(number): number for number in range(2_400)}
    assert (await take(turns, object="User")).output["chosen"] == "u02400"


@pytest.mark.parametrize("count", [0, MAX_AMONG + 5_000])
async def test_nobody_and_very_many(count: int) -> None:
    turns = Turns(users=[f"u{number:06}" for number in range(count)])
    verdict = await take(turns, object="User")
    if count:
        assert isinstance(verdict, Done)
    else:
        assert isinstance(verdict, Reject)
        assert "there is no User" in verdict.message


async def test_a_store_that_is_away_is_asked_again() -> None:
    assert isinstance(await take(Turns(down=True), among=["a"]), Park)
