"""What an engine that was taken over tries, and the canaries that it tries it on.

A payload is Python for `hostile_engine`: it sets `out` to what it got hold of, or leaves a trace.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import _quickjs

from stages.jail.engines import Engine

SECRET = "canary-5e1f9c27-not-for-anybody"


class _Hostile(Engine):
    @property
    def paths(self) -> tuple[str, ...]:
        here = Path(__file__).parent
        return (str(here.parents[1]), str(here))


HOSTILE = _Hostile("hostile", "hostile_engine", "", "")
HOSTILE_MACHINE = _Hostile("hostile-machine", "hostile_machine", "", "")
HOSTILE_PROGRAM = _Hostile("hostile-program", "hostile_program", "", "")

PAYLOADS = {
    "read a file": "out = open(given['file']).read()",
    "read a file by its number": """
fd = libc.open(given['file'].encode(), 0)
assert fd >= 0, ctypes.get_errno()
out = os.read(fd, 100).decode()
""",
    "list a folder": "out = os.listdir(given['folder'])",
    "write a file": "open(given['folder'] + '/trace', 'w').write('was here')",
    "remove a file": "os.unlink(given['victim'])",
    "make a folder": "os.mkdir(given['folder'] + '/trace')",
    "link to a file": "os.symlink('/etc/passwd', given['folder'] + '/trace')",
    "open a device": "out = len(os.read(os.open('/dev/zero', os.O_RDONLY), 10))",
    "read the environment of the runner": """
out = open(f"/proc/{given['runner']}/environ", 'rb').read().decode(errors='replace')
assert "PATH=" in out
""",
    "read the memory of the runner": """
local = ctypes.create_string_buffer(64)
class Span(ctypes.Structure):
    _fields_ = [('at', ctypes.c_void_p), ('size', ctypes.c_size_t)]
here, there = Span(ctypes.addressof(local), 64), Span(given['address'], given['size'])
got = libc.process_vm_readv(given['runner'], ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
assert got > 0, ctypes.get_errno()
out = local.value.decode()
""",
    "signal the runner": "os.kill(given['runner'], signal.SIGUSR1)",
    "see the runner": "os.kill(given['runner'], 0); out = True",
    "connect by TCP": """
s = socket.socket(); s.settimeout(2); s.connect(('127.0.0.1', given['tcp'])); s.send(b'hello')
""",
    "send by UDP": """
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b'hello', ('127.0.0.1', given['udp']))
""",
    "talk to an abstract socket": """
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b'hello', b'\\0' + given['abstract'].encode())
""",
    "talk to a socket in the file tree": """
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b'hello', given['unix'])
""",
    "start a process": """
pid = os.fork()
if pid == 0:
    os._exit(7)
out = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
""",
    "run a program": """
os.execv('/bin/sh', ['sh', '-c', 'echo was here > ' + given['folder'] + '/trace'])
""",
    "load a library from a file": "out = bool(ctypes.CDLL(given['library'])) and True",
    "become somebody else": "os.setuid(given['other']); out = True",
    "make a namespace of users": "assert libc.unshare(0x10000000) == 0; out = True",
    "make a namespace with a process": """
pid = libc.syscall({'x86_64': 56, 'aarch64': 220}[os.uname().machine], 0x10000000 | 17, 0, 0, 0, 0)
if pid == 0:
    os._exit(0)
assert pid > 0
os.waitpid(pid, 0)
out = True
""",
    "change the limits of another": """
pid = given['runner']
one = (ctypes.c_uint64 * 2)()
assert libc.prlimit(pid, 4, None, one) == 0, ctypes.get_errno()
out = True
""",
    "take more memory than it may": "kept['a'] = bytearray(400 << 20); out = True",
    "open many descriptors": "kept['a'] = [os.dup(1) for _ in range(200)]; out = True",
    "raise its own limits": """
import resource
resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20)); out = True
""",
}
"""Each of them works where there is no jail."""

ONLY_ROOT = {"become somebody else", "read the memory of the runner"}
"""A plain user cannot do the one anyway; the other depends on how the system is set up."""

PROGRAMS_MAY = {"start a process"}
"""A program that an engine starts may have threads, and a few processes are as good as threads."""

ONLY_SECCOMP = {"make a namespace of users"}
"""What no other layer forbids: it is harmless by itself, and a door to more of the kernel."""


@dataclass
class Canaries:
    """Things that nobody in a cell may touch; `traces` says what somebody did with them."""

    given: dict[str, Any]
    folder: Path
    listeners: list[socket.socket]
    signals: list[int] = field(default_factory=list)

    def traces(self) -> list[str]:
        found = [f"signal {number}" for number in self.signals]
        if os.path.lexists(self.folder / "trace"):
            found.append("something was made")
        if not (self.folder / "victim").exists():
            found.append("something was removed")
        for listener in self.listeners:
            with contextlib.suppress(BlockingIOError):
                if listener.type is socket.SOCK_STREAM:
                    listener.accept()[0].close()
                else:
                    listener.recv(100)
                found.append(f"{listener.getsockname()!r} heard something")
        return found


@contextmanager
def canaries(folder: Path) -> Iterator[Canaries]:
    (folder / "secret").write_text(SECRET)
    (folder / "victim").touch()
    for path in (folder, *folder.iterdir()):
        path.chmod(0o777)
    address = ctypes.create_string_buffer(SECRET.encode())
    families = (
        (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
        (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
        (socket.AF_UNIX, socket.SOCK_DGRAM, f"\0permaflow-canary-{os.getpid()}"),
        (socket.AF_UNIX, socket.SOCK_DGRAM, str(folder / "socket")),
    )
    with contextlib.ExitStack() as stack:
        listeners = []
        for family, kind, place in families:
            listener = stack.enter_context(socket.socket(family, kind))
            listener.bind(place)
            listener.setblocking(False)
            listeners.append(listener)
        listeners[0].listen()
        (folder / "socket").chmod(0o777)
        given = {
            "file": str(folder / "secret"),
            "victim": str(folder / "victim"),
            "folder": str(folder),
            "unix": str(folder / "socket"),
            "tcp": listeners[0].getsockname()[1],
            "udp": listeners[1].getsockname()[1],
            "abstract": f"permaflow-canary-{os.getpid()}",
            "runner": os.getpid(),
            "address": ctypes.addressof(address),
            "size": len(SECRET),
            "library": _quickjs.__file__,
            "other": 54321,
        }
        made = Canaries(given, folder, listeners)
        before = signal.signal(signal.SIGUSR1, lambda number, _frame: made.signals.append(number))
        try:
            yield made
        finally:
            signal.signal(signal.SIGUSR1, before)
