"""An engine that has been taken over: it runs Python with all that the process can do.

It is loaded inside a cell, and shows what the jail holds when the engine does not.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import mmap
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable

from stages.jail.confine import Needs
from stages.jail.frames import failure

KNOWN = {
    module.__name__: module
    for module in (ctypes, fcntl, json, mmap, os, signal, socket, struct, threading, time)
}


class Engine:
    def __init__(self, prelude: str, memory: int) -> None:
        self.needs = Needs(address_space=memory + (64 << 20))
        self.kept: dict[str, object] = {}
        KNOWN["libc"] = ctypes.CDLL(None, use_errno=True)  # type: ignore[assignment]
        socket.getaddrinfo("127.0.0.1", 1)  # loads what it needs
        "a".encode("idna")

    def run(self, code: str, given: str, memory: int, line: Callable[[str], None]) -> str | bytes:
        scope = {**KNOWN, "given": json.loads(given), "line": line, "kept": self.kept}
        try:
            exec(code, scope)
        except BaseException as error:
            return failure("thrown", type(error).__name__, str(error))
        return json.dumps(scope.get("out"))

    def renew(self) -> None:
        pass
