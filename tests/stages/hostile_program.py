"""The engine that was taken over, as the program that such an engine starts."""

from __future__ import annotations

import hostile_engine

from stages.jail import seccomp
from stages.jail.confine import Needs

seccomp.FRONT = seccomp.PROGRAM  # this process plays the program, not the one in front of it


class Engine(hostile_engine.Engine):
    def __init__(self, prelude: str, memory: int) -> None:
        super().__init__(prelude, memory)
        self.needs = Needs(
            threads=True,
            address_space=memory + (64 << 20),
            files=("/bin/true",),
            start=lambda: None,
        )
