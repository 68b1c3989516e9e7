"""Landlock: no file, no TCP port, no abstract socket and no signal to anybody outside."""

from __future__ import annotations

import ctypes
import os
import struct

from stages.jail import libc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_VERSION, _BENEATH = 1, 1
_RUN, _READ = 1, 4
_FILES = {1: 13, 2: 14, 3: 15, 5: 16}
"""ABI → how many rights on files it knows; those above keep the number of the one before."""


def apply(programs: Sequence[str] = ()) -> int:
    """Deny all that the kernel's Landlock can deny, except to read and run `programs`; gives its
    ABI. Raises `OSError`.
    """
    abi = libc.syscall("landlock_create_ruleset", None, 0, _VERSION)
    files = (1 << max(bits for since, bits in _FILES.items() if since <= abi)) - 1
    ports = 0b11 if abi >= 4 else 0
    scopes = 0b11 if abi >= 6 else 0
    attributes = struct.pack("=QQQ", files, ports, scopes)
    size = 24 if abi >= 6 else 16 if abi >= 4 else 8
    rules = libc.syscall(
        "landlock_create_ruleset", ctypes.create_string_buffer(attributes, 24), size, 0
    )
    for path in programs:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = ctypes.create_string_buffer(struct.pack("=Qi", _RUN | _READ, opened), 12)
        libc.syscall("landlock_add_rule", rules, _BENEATH, rule, 0)
        os.close(opened)
    libc.syscall("landlock_restrict_self", rules, 0)
    libc.syscall("close", rules)
    return abi
