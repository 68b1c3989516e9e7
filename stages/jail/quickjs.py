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

_in_source = re.compile(r"^ +at <input>:(\d+):(\d+)$", re.MULTILINE)
_in_code = re.compile(r"^ +at (.+) \(<input>:(\d+):(\d+)\)$", re.MULTILINE)


class Engine:
    """See `stages.jail.child`."""

    def __init__(self, prelude: str, memory: int) -> None:
        self._prelude = prelude
        self._call_line = str(prelude[: prelude.index("body(parse(given))")].count("\n") + 1)
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
        if (name == "InternalError" and message.endswith("out of memory")) or (
            not name and message == "null"
        ):
            return failure("memory", name, message)
        line, column = self._place(kind, stack)
        return failure(kind, name, message, max(0, line - _HEAD_LINES), column)

    def _place(self, kind: str, stack: str) -> tuple[int, int]:
        """Line and column as the engine counts them; (0, 0) if it names none of the code."""
        if kind == "syntax":
            found = _in_source.search(stack)
            return (int(found[1]), int(found[2])) if found else (0, 0)
        if kind == "bad_output":
            return 0, 0
        places = _in_code.findall(stack)
        if places and places[-1][:2] == ("<anonymous>", self._call_line):
            places.pop()  # where the code was called
        return (int(places[0][1]), int(places[0][2])) if places else (0, 0)
