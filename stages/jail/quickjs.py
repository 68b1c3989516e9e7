"""The engine of JavaScript: QuickJS, a new context for every job."""

from __future__ import annotations

import re

import _quickjs

from stages.jail.confine import Needs
from stages.jail.frames import failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_STACK = 1 << 20
_HEAD_LINES = 2
"""Lines that `AsyncFunction` puts in front of the code."""

_place = re.compile(r"<input>:(\d+):(\d+)")


class Engine:
    """See `stages.jail.child`."""

    def __init__(self, prelude: str, memory: int) -> None:
        self._prelude = prelude
        self._told: list[tuple[str, ...]] = []
        self._line: Callable[[str], None] = lambda text: None
        self.needs = Needs(address_space=memory + (192 << 20))
        self._prepare()

    def _prepare(self) -> None:
        self._told = []
        self._context = _quickjs.Context()
        self._context.set_max_stack_size(_STACK)
        self._context.add_callable("tell", self._tell)
        self._run = self._context.eval(
            f"(() => {{ const t = tell; delete globalThis.tell; return ({self._prelude})(t) }})()"
        )

    def _tell(self, kind: str, *texts: str) -> None:
        if kind == "line":
            self._line(texts[0])
        elif not self._told:
            self._told.append((kind, *texts))

    def run(self, code: str, given: str, memory: int, line: Callable[[str], None]) -> str | bytes:
        """The output as JSON, or a failure's frame."""
        self._line = line
        self._context.set_memory_limit(memory)
        try:
            self._run(code, given)
            while not self._told and self._context.execute_pending_job():
                pass
        except (_quickjs.JSException, _quickjs.StackOverflow, MemoryError) as error:
            text = str(error)
            self._told.append(("thrown", "InternalError", text.partition("\n")[0], text))
        return self._judge()

    def renew(self) -> None:
        """A new context, so that no job sees what another left behind."""
        self._prepare()

    def _judge(self) -> str | bytes:
        if not self._told:
            message = "It waits for something that never comes."
            return failure("never_settled", "", message)
        kind, *texts = self._told[0]
        if kind == "done":
            return texts[0]
        name, message, stack = texts
        # Without memory for an error the engine throws null.
        if (name == "InternalError" and message.endswith("out of memory")) or message == "null":
            return failure("memory", name, message)
        found = _place.search(stack) if kind != "bad_output" else None
        line, column = (int(found[1]) - _HEAD_LINES, int(found[2])) if found else (0, 0)
        return failure(kind, name, message, max(0, line), column)
