"""The engine `v8`: JavaScript by V8 through mini-racer's library, a new isolate for every job.

The library is used by its C functions alone: its Python side runs an event loop in a thread of its
own for every isolate, which needs more of the kernel than a cell has. What code wrote to the
console is fetched when it has ended, so that of code that was stopped is lost.
"""

from __future__ import annotations

import _thread
import ctypes
import json
import os
import re
import sys

from stages.jail.confine import Needs
from stages.jail.frames import MAX_LINE, MAX_LINES, failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_HEAD = "(async function anonymous(input\n) {\n"
_HEAD_LINES = 2
_DATA = 1 << 30
"""V8 does not start with less than 512 MB of data, and buffers count against nothing else."""

_STRING, _UNDEFINED, _FUNCTION, _FIRST_ERROR, _OUT_OF_MEMORY = 5, 11, 100, 200, 202
_STRINGS = (_STRING, 200, 201, 202, 204)

_WRAP = """
((prelude) => {
  const { stringify } = JSON;
  const slice = Function.prototype.call.bind(String.prototype.slice);
  let told = "", lines = 0, end = false;
  // Of text alone, put together by hand: code may have changed how anything else is written.
  const add = (texts) => {
    let all = "";
    for (let i = 0; i < texts.length; i++) all += (i ? "," : "") + stringify(texts[i]);
    told += `${told ? "," : ""}[${all}]`;
  };
  const run = prelude((...texts) => {
    if (texts[0] !== "line") {
      if (!end) add(texts);
      end = true;
    } else if (lines++ <= MOST) {
      add(["line", slice(texts[1], 0, LONGEST)]);
    }
  });
  return (code, given) => (code === undefined ? `[${told}]` : run(code, given));
})
"""

_in_code = re.compile(r"eval at .*<anonymous>:(\d+):(\d+)\)")
_in_script = re.compile(r"^<anonymous>:(\d+)")


class _Value(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("value", ctypes.c_void_p), ("size", ctypes.c_size_t), ("type", ctypes.c_uint8))


_Handle = ctypes.POINTER(_Value)
_Callback = ctypes.CFUNCTYPE(None, ctypes.c_uint64, _Handle)
_number = ctypes.c_uint64
_SIGNATURES = {
    "mr_init_v8": (None, ctypes.c_char_p, ctypes.c_char_p),
    "mr_init_context": (_number, _Callback),
    "mr_free_context": (None, _number),
    "mr_set_hard_memory_limit": (None, _number, ctypes.c_size_t),
    "mr_hard_memory_limit_reached": (ctypes.c_bool, _number),
    "mr_alloc_string_val": (_Handle, _number, ctypes.c_char_p, _number, ctypes.c_uint8),
    "mr_alloc_int_val": (_Handle, _number, ctypes.c_int64, ctypes.c_uint8),
    "mr_array_push": (_Handle, _number, _Handle, _Handle),
    "mr_free_value": (None, _number, _Handle),
    "mr_eval": (_number, _number, _Handle, _number),
    "mr_call_function": (_number, _number, _Handle, _Handle, _Handle, _number),
}


class Engine:
    """See `stages.jail.child`."""

    def __init__(self, prelude: str, memory: int) -> None:
        limits = _WRAP.replace("MOST", str(MAX_LINES)).replace("LONGEST", str(MAX_LINE))
        self._prelude = f"({limits.strip()})({prelude.strip().rstrip(';')})"
        self.needs = Needs(threads=True, data=_DATA)
        self._library = _load()
        self._answers: list[ctypes._Pointer[_Value]] = []
        self._answered = _thread.allocate_lock()
        self._answered.acquire()
        self._callback = _Callback(self._hear)
        self._context = 0
        self.renew()

    def run(self, code: str, given: str, memory: int, line: Callable[[str], None]) -> str | bytes:
        """The output as JSON, or a failure's frame."""
        self._library.mr_set_hard_memory_limit(self._context, memory)
        kind, text = self._call(code, given)
        if self._library.mr_hard_memory_limit_reached(self._context) or kind == _OUT_OF_MEMORY:
            return failure("memory", "", "out of memory")
        if kind < _FIRST_ERROR:
            kind, text = self._call()
        if kind != _STRING:
            return failure("thrown", "InternalError", text)
        found: list[str] | None = None
        for told in json.loads(text):
            if told[0] == "line":
                line(told[1])
            else:
                found = told
        return self._judge(found, code)

    def renew(self) -> None:
        """A new isolate, so that no job sees what another left behind."""
        if self._context:
            self._library.mr_free_context(self._context)
        self._context = self._library.mr_init_context(self._callback)
        self._function = self._wait(
            self._library.mr_eval(self._context, self._text(self._prelude), 0)
        )
        if self._function.contents.type != _FUNCTION:
            raise RuntimeError(_read(self._function)[1])

    def _judge(self, found: list[str] | None, code: str) -> str | bytes:
        if found is None:
            return failure("never_settled", "", "It waits for something that never comes.")
        kind, *texts = found
        if kind == "done":
            return texts[0]
        name, message, stack = texts
        place = _in_code.search(stack) if kind != "bad_output" else None
        if kind == "syntax":
            _, told = _read(self._evaluate(f"{_HEAD}{code}\n}})"))
            place = _in_script.search(told)
        line = int(place[1]) - _HEAD_LINES if place else 0
        column = int(place[2]) if place and place.re is _in_code else 0
        return failure(kind, name, message, max(0, line), column)

    # --- the library ------------------------------------------------------------------------------

    def _hear(self, _callback: int, answer: ctypes._Pointer[_Value]) -> None:
        self._answers.append(answer)
        self._answered.release()

    def _wait(self, _task: int) -> ctypes._Pointer[_Value]:
        self._answered.acquire()
        return self._answers.pop()

    def _text(self, text: str) -> ctypes._Pointer[_Value]:
        data = text.encode(errors="replace")
        found: ctypes._Pointer[_Value] = self._library.mr_alloc_string_val(
            self._context, data, len(data), _STRING
        )
        return found

    def _evaluate(self, code: str) -> ctypes._Pointer[_Value]:
        return self._wait(self._library.mr_eval(self._context, self._text(code), 0))

    def _call(self, *arguments: str) -> tuple[int, str]:
        # What is allocated here is freed with the isolate.
        array = self._evaluate("[]")
        for argument in arguments:
            self._library.mr_array_push(self._context, array, self._text(argument))
        this = self._library.mr_alloc_int_val(self._context, 0, _UNDEFINED)
        task = self._library.mr_call_function(self._context, self._function, this, array, 0)
        return _read(self._wait(task))


def _read(answer: ctypes._Pointer[_Value]) -> tuple[int, str]:
    kind, value, size = (getattr(answer.contents, name) for name in ("type", "value", "size"))
    if kind not in _STRINGS or not size:
        return kind, ""
    return kind, ctypes.string_at(value, size).decode(errors="replace")


def _load() -> ctypes.CDLL:
    for place in sys.path:
        folder = os.path.join(place, "py_mini_racer")
        if os.path.isdir(folder):
            break
    library = ctypes.CDLL(os.path.join(folder, "libmini_racer.so"))
    for name, (result, *arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    library.mr_init_v8(b"--single-threaded", os.path.join(folder, "icudtl.dat").encode())
    return library
