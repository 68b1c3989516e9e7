"""Running as root: the account PostgreSQL runs under, because it refuses to run as root."""

from __future__ import annotations

import os
import pwd
import struct
from dataclasses import dataclass
from pathlib import Path

from permaflow.errors import ServerError

_CANDIDATES = ("permaflow", "postgres", "nobody")
_ACL = "system.posix_acl_access"
_ACL_VERSION = 2
_USER_OBJ, _USER, _GROUP_OBJ, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x10, 0x20
_NO_ID = 0xFFFFFFFF
_SEARCH = 0o1


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    uid: int
    gid: int


def unprivileged_account(data: Path) -> Account | None:
    """The account to run under, None when this process is not root.

    Whoever owns `data` keeps it; else the first of permaflow, postgres and nobody that exists.
    """
    if os.geteuid() != 0:
        return None
    if data.exists() and data.stat().st_uid != 0:
        entry = pwd.getpwuid(data.stat().st_uid)
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)
    raise ServerError(
        "PostgreSQL does not run as root and this system has none of the accounts "
        f"{', '.join(_CANDIDATES)}. Create one of them, or run as another user."
    )


def let_through(account: Account, path: Path) -> None:
    """Lets `account` (and nobody else) pass through the closed folders above `path`.

    Adds a search-only entry to their access control lists, so that data or wheels below a home
    directory with mode 0700 can be reached. It cannot list or read those folders.
    """
    for folder in reversed(path.resolve().parents):
        found = folder.stat()
        if found.st_mode & 0o001 or (found.st_uid == account.uid and found.st_mode & 0o100):
            continue
        try:
            _add_search(folder, found.st_mode, account)
        except OSError as error:
            raise ServerError(
                f"PostgreSQL runs as the user {account.name}, who may not pass through {folder} "
                f"(mode {found.st_mode & 0o777:o}). Use a data directory and a virtual "
                f"environment outside of it, or run `chmod o+x {folder}`."
            ) from error


def _add_search(folder: Path, mode: int, account: Account) -> None:
    """linux/posix_acl_xattr.h: a version, then entries (tag, permissions, id) in this order."""
    try:
        raw = os.getxattr(folder, _ACL)
        entries = [struct.unpack_from("<HHI", raw, at) for at in range(4, len(raw), 8)]
    except (OSError, AttributeError):
        entries = [
            (_USER_OBJ, mode >> 6 & 7, _NO_ID),
            (_GROUP_OBJ, mode >> 3 & 7, _NO_ID),
            (_OTHER, mode & 7, _NO_ID),
        ]
    # A chmod of the folder narrows the mask, and with it what the entry of a user is worth.
    worth = next((bits for tag, bits, _ in entries if tag == _MASK), 0)
    if any(
        tag == _USER and id_ == account.uid and bits & worth & _SEARCH for tag, bits, id_ in entries
    ):
        return
    kept = [e for e in entries if not (e[0] == _USER and e[2] == account.uid) and e[0] != _MASK]
    kept.append((_USER, _SEARCH, account.uid))
    mask = 0
    for tag, bits, _ in kept:
        if tag not in (_USER_OBJ, _OTHER):
            mask |= bits
    kept.append((_MASK, mask, _NO_ID))
    kept.sort(key=lambda entry: (entry[0], entry[2]))
    packed = struct.pack("<I", _ACL_VERSION) + b"".join(struct.pack("<HHI", *e) for e in kept)
    if not hasattr(os, "setxattr"):
        raise OSError("access control lists are set on Linux only")
    os.setxattr(folder, _ACL, packed)
