"""Seccomp: the few system calls that a cell at work needs; any other ends it.

The kinds of engine differ in whether they start threads and write machine code. An interpreter
without either may not even make memory executable.
"""

from __future__ import annotations

import ctypes
import struct

from stages.jail import libc

_ARCHITECTURE = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
_EPERM, _EBADF, _ENOSYS = 1, 9, 38
_LOAD, _EQUAL, _ANY_BIT, _AT_LEAST, _RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
_PROT_EXEC = 4
_CLONE_THREAD = 0x00010000
_NAMESPACES = 0x7E020000
_LOCAL = 1
_X32 = 0x40000000
_SET_MODE_FILTER, _ALL_THREADS = 1, 1

_ALWAYS = [
    "munmap",
    "mremap",
    "brk",
    "madvise",
    "futex",
    "clock_gettime",
    "gettimeofday",
    "getrandom",
    "getrusage",
    "rt_sigreturn",
    "rt_sigprocmask",
    "sigaltstack",
    "setitimer",
    "sched_yield",
    "nanosleep",
    "clock_nanosleep",
    "restart_syscall",
    "getpid",
    "gettid",
    "exit",
    "exit_group",
]
_THREADS = [
    "set_robust_list",
    "rseq",
    "rt_sigaction",
    "sched_getaffinity",
    "sched_getparam",  # by pthread_getschedparam: V8's locks sort those who wait by priority
    "sched_getscheduler",
    "getcpu",
    "membarrier",
    "pkey_mprotect",
    "pkey_alloc",
    "pkey_free",
]

_FRONT = [
    *_THREADS,
    "poll",
    "ppoll",
    "epoll_wait",
    "epoll_pwait",
    "epoll_ctl",
    "eventfd2",
    "readv",
    "writev",
    "fcntl",
    "wait4",
    "waitid",
    "close",
    "recvfrom",
    "sendto",
    "recvmsg",
    "sendmsg",
]
_PROGRAM = [
    *_FRONT,
    "execve",
    "vfork",
    "openat",
    "fstat",
    "newfstatat",
    "statx",
    "lseek",
    "pread64",
    "access",
    "faccessat2",
    "getcwd",
    "readlink",
    "readlinkat",
    "getuid",
    "getgid",
    "geteuid",
    "getegid",
    "dup2",
    "dup3",
    "arch_prctl",
    "set_tid_address",
    "epoll_create1",
    "pipe2",
    "pidfd_open",
    "ioctl",
    "sched_setaffinity",
    "seccomp",
    "prctl",
]

PLAIN, MACHINE, FRONT, PROGRAM = "plain", "machine", "front", "program"
"""Interprets in one thread · makes machine code and threads · talks to a program that it started ·
that program, and who starts it. Filters add up: what one forbids, a later one cannot allow.
"""

Instruction = tuple[int, int, int, int]


def apply(kind: str) -> None:
    """From here on only what is listed. Raises `OSError` where the kernel has no seccomp."""
    program = b"".join(struct.pack("=HBBI", *each) for each in _filter(kind))
    filters = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))

    whole = Program(len(program) // 8, ctypes.addressof(filters))
    libc.syscall("seccomp", _SET_MODE_FILTER, _ALL_THREADS, ctypes.byref(whole))


def _filter(kind: str) -> list[Instruction]:
    architecture = _ARCHITECTURE.get(libc.MACHINE)
    if architecture is None:
        raise OSError(f"There is no list of system calls for {libc.MACHINE}.")
    kill: Instruction = (_RETURN, 0, 0, _KILL)
    found: list[Instruction] = [
        (_LOAD, 0, 0, 4),
        (_EQUAL, 1, 0, architecture),
        kill,
        (_LOAD, 0, 0, 0),
        (_AT_LEAST, 0, 1, _X32),
        kill,
    ]
    allow: list[Instruction] = [(_RETURN, 0, 0, _ALLOW)]
    allowed: list[str] = {PLAIN: [], MACHINE: _THREADS, FRONT: _FRONT, PROGRAM: _PROGRAM}[kind]
    for name in (*_ALWAYS, *allowed):
        found += _when(name, allow)
    if kind in (PLAIN, MACHINE):
        closed = (_RETURN, 0, 0, _ERRNO | _EBADF)
        found += _when("read", _if_argument(0, _EQUAL, 0))
        found += _when("write", [*_if_argument(0, _EQUAL, 1)[:-1], closed])
    else:
        found += _when("read", allow)
        found += _when("write", allow)
    if kind == PLAIN:
        found += _when("mmap", _unless_argument(2, _ANY_BIT, _PROT_EXEC))
        found += _when("mprotect", _unless_argument(2, _ANY_BIT, _PROT_EXEC))
    else:
        found += _when("mmap", allow)
        found += _when("mprotect", allow)
        thread = _if_argument(0, _ANY_BIT, _CLONE_THREAD)
        no_namespace: list[Instruction] = [(_LOAD, 0, 0, 16), (_ANY_BIT, 0, 1, _NAMESPACES), kill]
        found += _when("clone", [*no_namespace, *(allow if kind == PROGRAM else thread)])
        if kind == PROGRAM:
            found += _when("socketpair", _if_argument(0, _EQUAL, _LOCAL))
            found += _when("prlimit64", _if_argument(0, _EQUAL, 0))  # its own, which only sink
        # A thread's memory asks the system about itself, and goes on without an answer.
        for name in ("openat", "newfstatat", "prctl"):
            found += _when(name, [(_RETURN, 0, 0, _ERRNO | _EPERM)])
    # The C library tries the newer call first and takes the older one when there is none.
    found += _when("clone3", [(_RETURN, 0, 0, _ERRNO | _ENOSYS)])
    return [*found, kill]


def _when(name: str, then: list[Instruction]) -> list[Instruction]:
    number = libc.number(name)
    return [] if number is None else [(_EQUAL, 0, len(then), number), *then]


def _if_argument(index: int, test: int, value: int) -> list[Instruction]:
    """Allowed if the lower half of an argument passes; the upper half counts for nothing here."""
    return [
        (_LOAD, 0, 0, 16 + 8 * index),
        (test, 0, 1, value),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL),
    ]


def _unless_argument(index: int, test: int, value: int) -> list[Instruction]:
    return [
        (_LOAD, 0, 0, 16 + 8 * index),
        (test, 1, 0, value),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _KILL),
    ]
