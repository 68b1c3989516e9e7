"""The layers of the jail, in the order in which they can be put on.

Each is put on if the system has it, and reported; nothing that runs in the process later can take
one off again. What loads files or starts threads has to happen between the two functions.
"""

from __future__ import annotations

import os
import resource
import struct

from stages.jail import landlock, libc, namespaces, seccomp

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

NAMESPACES, FILES, USER, LANDLOCK, LIMITS, SECCOMP = LAYERS = (
    "namespaces",
    "files",
    "user",
    "landlock",
    "limits",
    "seccomp",
)
"""An own network, process table, and so on · an empty file tree · no root, no capability and none
to gain · Landlock · resource limits · seccomp."""

CPU_SECONDS = 600
"""What a cell may use in its whole life; it is retired long before."""

_NO_NEW_PRIVILEGES, _DROP_FROM_BOUNDS = 38, 24
_THREADS = 32
_CAPABILITIES_V3 = 0x20080522
_CAPABILITIES = 64
_OWN_USERS = 0x70000000
_NOBODY = 65534
_EVERY = ("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "MSGQUEUE", "NOFILE", "NPROC")


class Needs:
    """What an engine cannot do without."""

    __slots__ = ("address_space", "data", "files", "start", "threads")

    def __init__(
        self,
        *,
        threads: bool = False,
        address_space: int = 0,
        data: int = 0,
        files: tuple[str, ...] = (),
        start: Callable[[], object] | None = None,
    ) -> None:
        """`address_space` is on top of what is in use now, `data` is the whole; bytes, 0: any.

        `start` starts a program of `files`, which are all that it can open. It has every layer but
        the last part of seccomp around it: it may start threads and load those files.
        """
        self.threads = threads
        self.address_space = address_space
        self.data = data
        self.files = files
        self.start = start


def begin(missing: dict[str, str]) -> None:
    """Namespaces, while files can still be loaded. `missing` is layer → why it is not there; what
    stands in it already is not tried.
    """
    if os.uname().sysname == "Linux":
        namespaces.die_with_parent()
    _put_on(missing, NAMESPACES, namespaces.enter)
    if NAMESPACES in missing:
        missing.setdefault(FILES, "it needs the namespaces")


def finish(missing: dict[str, str], needs: Needs) -> None:
    """Everything else; what cannot be had is added to `missing`."""
    in_use = _in_use()
    own_user = _OWN_USERS + _process_id()
    _put_on(missing, FILES, lambda: namespaces.empty_root(needs.files))
    if os.uname().sysname == "Linux":
        libc.prctl(_NO_NEW_PRIVILEGES, 1)  # the other layers rest on it
    _put_on(missing, USER, lambda: _become_nobody(own_user))
    _put_on(missing, LANDLOCK, lambda: landlock.apply(needs.files))
    if needs.files and FILES in missing and LANDLOCK in missing:
        raise OSError(
            "This engine starts a program, which would see all files here: there is neither an "
            f"empty file tree ({missing[FILES]}) nor Landlock ({missing[LANDLOCK]})."
        )
    # Processes are counted by user: those of a cell alone only if it has a user for itself.
    alone = NAMESPACES not in missing or os.geteuid() == own_user
    _put_on(missing, LIMITS, lambda: _limit(needs, in_use, alone))
    if needs.start is not None:
        _put_on(missing, SECCOMP, lambda: seccomp.apply(seccomp.PROGRAM))
        needs.start()
    kind = seccomp.FRONT if needs.start else seccomp.MACHINE if needs.threads else seccomp.PLAIN
    _put_on(missing, SECCOMP, lambda: seccomp.apply(kind))


def _put_on(missing: dict[str, str], layer: str, put_on: Callable[[], object]) -> None:
    if layer in missing:
        return
    try:
        put_on()
    except (OSError, AttributeError, ValueError) as error:
        missing[layer] = str(error) or type(error).__name__


def _process_id() -> int:
    """As the whole machine numbers it, if that can be seen: no two cells share a user then."""
    try:
        return int(os.readlink("/proc/self"))
    except (OSError, ValueError):
        return os.getpid()


def _in_use() -> int:
    """Address space in use, in bytes."""
    try:
        opened = os.open("/proc/self/statm", os.O_RDONLY)
    except OSError:
        return 256 << 20
    try:
        return int(os.read(opened, 200).split()[0]) * resource.getpagesize()
    finally:
        os.close(opened)


def _become_nobody(own_user: int) -> None:
    for capability in range(_CAPABILITIES):
        try:
            libc.prctl(_DROP_FROM_BOUNDS, capability)
        except OSError:
            break
    if os.geteuid() == 0:
        os.setgroups([])
        try:
            os.setresgid(own_user, own_user, own_user)
            os.setresuid(own_user, own_user, own_user)
        except OSError:
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    libc.syscall("capset", struct.pack("=Ii", _CAPABILITIES_V3, 0), bytes(24))
    namespaces.die_with_parent()


def _limit(needs: Needs, in_use: int, alone: bool) -> None:
    limits = dict.fromkeys(_EVERY, 0)
    limits["CPU"] = CPU_SECONDS
    limits["AS"] = in_use + needs.address_space if needs.address_space else -1
    limits["DATA"] = needs.data or -1
    limits["NPROC"] = 0 if not needs.threads else _THREADS if alone else -1
    limits["NOFILE"] = 64 if needs.start else 0
    for name, value in limits.items():
        which = getattr(resource, f"RLIMIT_{name}", None)
        if which is not None:
            _, hard = resource.getrlimit(which)
            lower = value if hard == resource.RLIM_INFINITY or -1 < value <= hard else hard
            resource.setrlimit(which, (lower, lower))
