"""The engine that was taken over, as one that needs threads and machine code."""

from __future__ import annotations

import hostile_engine

from stages.jail.confine import Needs


class Engine(hostile_engine.Engine):
    def __init__(self, prelude: str, memory: int) -> None:
        super().__init__(prelude, memory)
        self.needs = Needs(threads=True, address_space=memory + (64 << 20), data=1 << 28)
