"""One owner per data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from permaflow.errors import ServerError


class DirectoryLock:
    """An flock on `<data_dir>/lock`. The kernel drops it when the owner dies, however it dies."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / "lock"
        self._file: int | None = None

    def acquire(self) -> None:
        """Raises ServerError naming the owner's pid when somebody else holds the directory."""
        file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(file, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise ServerError(
                f"The data directory {self._path.parent} is in use by process {owner}. "
                "Stop that process, or choose another data directory."
            ) from error
        os.ftruncate(file, 0)
        os.pwrite(file, f"{os.getpid()}\n".encode(), 0)
        self._file = file

    def release(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None
