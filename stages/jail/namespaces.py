"""Namespaces: a network without interfaces, a file tree without files, nobody else to see."""

from __future__ import annotations

import ctypes
import os

from stages.jail import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_MOUNTS, _CGROUPS, _HOST, _IPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
_USERS, _PROCESSES, _NETWORK = 0x10000000, 0x20000000, 0x40000000
_ALL = _MOUNTS | _CGROUPS | _HOST | _IPC | _PROCESSES | _NETWORK

_READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC, _REMOUNT = 1, 2, 4, 8, 32
_RECURSIVE, _PRIVATE = 0x4000, 0x40000
_DETACH = 2
_BIND, _NO_ACCESS_TIMES = 4096, 0xC00
_DIE_WITH_PARENT = 1
_SIGKILL = 9


def enter() -> None:
    """New namespaces of every kind, and the process that goes on is the first of its own.

    What called this waits for it and ends as it ends. Raises `OSError` if the kernel refuses.
    """
    user, group = os.geteuid(), os.getegid()
    if user != 0:
        libc.call("unshare", ctypes.c_int(_USERS))
        for path, text in (
            ("/proc/self/setgroups", "deny"),
            ("/proc/self/uid_map", f"{user} {user} 1"),
            ("/proc/self/gid_map", f"{group} {group} 1"),
        ):
            _write(path, text)
    # Last, because after it this process can start no threads: only its children are inside.
    libc.call("unshare", ctypes.c_int(_ALL))
    child = os.fork()
    if child:
        _wait_for(child)
    die_with_parent()


def die_with_parent() -> None:
    """Whoever started this process takes it along. A change of the user would undo it."""
    libc.prctl(_DIE_WITH_PARENT, _SIGKILL)


def empty_root(files: Sequence[str] = ()) -> None:
    """The root of the file tree becomes a folder that cannot be written to, and that holds nothing
    but `files`, each where it was.
    """
    libc.call("mount", None, b"/", None, ctypes.c_ulong(_PRIVATE | _RECURSIVE), None)
    harmless = _NO_SUID | _NO_DEVICES | _NO_EXEC
    size = b"size=64k,nr_inodes=100" if files else b"size=4k,nr_inodes=1"
    # Any folder will do as the place for the new root, as long as it is there.
    libc.call("mount", b"none", b"/proc", b"tmpfs", ctypes.c_ulong(harmless), size)
    for path in files:
        _keep(path)
    os.chdir("/proc")
    libc.syscall("pivot_root", b".", b".")
    libc.call("umount2", b".", ctypes.c_int(_DETACH))
    os.chdir("/")
    flags = ctypes.c_ulong(harmless | _READ_ONLY | _REMOUNT)
    libc.call("mount", b"none", b"/", None, flags, size)


def _keep(path: str) -> None:
    """Show a file in the new root, so that it can be read and run and no more."""
    there = f"/proc{path}"
    os.makedirs(os.path.dirname(there), exist_ok=True)
    os.close(os.open(there, os.O_CREAT | os.O_RDONLY))
    libc.call("mount", path.encode(), there.encode(), None, ctypes.c_ulong(_BIND), None)
    # What the file had to leave before, it may not get back.
    before = os.statvfs(path).f_flag & (_NO_EXEC | _NO_ACCESS_TIMES)
    flags = _BIND | _REMOUNT | _READ_ONLY | _NO_SUID | _NO_DEVICES | before
    libc.call("mount", None, there.encode(), None, ctypes.c_ulong(flags), None)


def _write(path: str, text: str) -> None:
    opened = os.open(path, os.O_WRONLY)
    try:
        os.write(opened, text.encode())
    finally:
        os.close(opened)


def _wait_for(child: int) -> None:
    """Hold nothing, wait, and end in the same way.

    It stays the user that it was: else the kernel would not let its death take the child along.
    """
    os.close(0)
    os.close(1)
    die_with_parent()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 1)
