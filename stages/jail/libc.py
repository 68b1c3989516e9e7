"""The system calls that a jail is built from, by ctypes alone."""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MACHINE = os.uname().machine
_NUMBERS = {
    # name: (x86_64, aarch64)
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "fstat": (5, 80),
    "poll": (7, None),
    "ppoll": (271, 73),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "ioctl": (16, 29),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "nanosleep": (35, 101),
    "setitimer": (38, 103),
    "getpid": (39, 172),
    "clone": (56, 220),
    "exit": (60, 93),
    "gettimeofday": (96, 169),
    "getrusage": (98, 165),
    "sigaltstack": (131, 132),
    "prctl": (157, 167),
    "openat": (257, 56),
    "newfstatat": (262, 79),
    "gettid": (186, 178),
    "futex": (202, 98),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "sched_getaffinity": (204, 123),
    "restart_syscall": (219, 128),
    "clock_gettime": (228, 113),
    "clock_nanosleep": (230, 115),
    "exit_group": (231, 94),
    "set_robust_list": (273, 99),
    "getcpu": (309, 168),
    "getrandom": (318, 278),
    "membarrier": (324, 283),
    "pkey_mprotect": (329, 288),
    "pkey_alloc": (330, 289),
    "pkey_free": (331, 290),
    "rseq": (334, 293),
    "clone3": (435, 435),
    # what a program needs to start, and to talk to who started it
    "lseek": (8, 62),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "access": (21, None),
    "socketpair": (53, 199),
    "vfork": (58, None),
    "execve": (59, 221),
    "wait4": (61, 260),
    "fcntl": (72, 25),
    "getcwd": (79, 17),
    "readlink": (89, None),
    "getuid": (102, 174),
    "getgid": (104, 176),
    "geteuid": (107, 175),
    "getegid": (108, 177),
    "dup2": (33, None),
    "arch_prctl": (158, None),
    "sched_setaffinity": (203, 122),
    "set_tid_address": (218, 96),
    "epoll_wait": (232, None),
    "epoll_ctl": (233, 21),
    "waitid": (247, 95),
    "readlinkat": (267, 78),
    "epoll_pwait": (281, 22),
    "eventfd2": (290, 19),
    "epoll_create1": (291, 20),
    "dup3": (292, 24),
    "pipe2": (293, 59),
    "prlimit64": (302, 261),
    "statx": (332, 291),
    "pidfd_open": (434, 434),
    "faccessat2": (439, 439),
    "recvfrom": (45, 207),
    "sendto": (44, 206),
    "recvmsg": (47, 212),
    "sendmsg": (46, 211),
    "pidfd_send_signal": (424, 424),
    # only while a jail is built
    "capset": (126, 91),
    "pivot_root": (155, 41),
    "seccomp": (317, 277),
    "close_range": (436, 436),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
}
_COLUMN = {"x86_64": 0, "aarch64": 1}.get(MACHINE)

_library = ctypes.CDLL(None, use_errno=True)


def number(name: str) -> int | None:
    """The number of a system call here; None where it is not known."""
    return None if _COLUMN is None else _NUMBERS[name][_COLUMN]


def call(name: str, *arguments: object) -> int:
    """Call a function of the C library. Raises `OSError`."""
    answer: int = getattr(_library, name)(*arguments)
    if answer < 0:
        raise _error(name)
    return answer


def syscall(name: str, *arguments: object) -> int:
    """Call the kernel. Raises `OSError`."""
    found = number(name)
    if found is None:
        raise OSError(f"The number of {name} on {MACHINE} is not known.")
    function = _library.syscall
    function.restype = ctypes.c_long
    answer: int = function(ctypes.c_long(found), *[_wide(each) for each in arguments])
    if answer < 0:
        raise _error(name)
    return answer


def prctl(option: int, *arguments: int) -> int:
    padded: Sequence[int] = (*arguments, 0, 0, 0, 0)[:4]
    return call("prctl", ctypes.c_int(option), *[ctypes.c_ulong(each) for each in padded])


def exit_on_alarm(status_is_signal: int) -> None:
    """When the alarm rings the process ends with the number of the signal as its status, whatever
    it is doing: `_exit` itself is the handler, so no interpreter has to come by.
    """
    setter = _library.signal
    setter.restype = ctypes.c_void_p
    setter(ctypes.c_int(status_is_signal), ctypes.cast(_library._exit, ctypes.c_void_p))


def _wide(value: object) -> object:
    return ctypes.c_long(value) if isinstance(value, int) else value


def _error(name: str) -> OSError:
    code = ctypes.get_errno()
    return OSError(code, f"{name}: {os.strerror(code)}")
