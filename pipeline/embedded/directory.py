"""What lies where in a data directory.

::

    lock            held by the owner
    ports.json      the port of each server, kept so that a restart is found where it was
    secrets/        one 0600 file per password
    logs/           one file per server
    run/            who runs: pid files and sockets
    postgres/ nats/ valkey/    the servers' own data
"""

from __future__ import annotations

import json
import os
import random
import secrets
import socket
from pathlib import Path

from permaflow.errors import ServerError

# Below the range that systems hand out for outgoing connections: a client that keeps trying to
# reach a stopped server can otherwise be given the very port as its own and connect to itself.
_PORTS = range(15_000, 32_000)
_LOG_LIMIT = 16 * 1024 * 1024


class DataDirectory:
    def __init__(self, path: Path) -> None:
        self.path = path.expanduser().absolute()

    def create(self) -> None:
        """Makes the directory and proves that it can be written to."""
        try:
            fresh = not self.path.exists()
            self.path.mkdir(parents=True, exist_ok=True)
            if fresh:
                # Root's PostgreSQL runs under another account and must pass through, not read.
                self.path.chmod(0o711 if os.geteuid() == 0 else 0o700)
            for name, mode in (("secrets", 0o700), ("logs", 0o700), ("run", 0o711)):
                folder = self.path / name
                if not folder.is_dir():
                    folder.mkdir()
                    folder.chmod(mode)
                if not os.access(folder, os.W_OK | os.X_OK):
                    raise PermissionError(13, "Permission denied", str(folder))
        except OSError as error:
            raise ServerError(
                f"The data directory {self.path} cannot be used: {error.strerror} "
                f"({error.filename}). Give a directory that this user may write to."
            ) from error

    def folder(self, name: str) -> Path:
        """A folder for one server's data, private to its owner."""
        folder = self.path / name
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
        return folder

    def log(self, name: str) -> Path:
        """The server's log file; a long one is set aside first."""
        path = self.path / "logs" / f"{name}.log"
        if path.exists() and path.stat().st_size > _LOG_LIMIT:
            path.replace(path.with_suffix(".log.1"))
        return path

    def run_file(self, name: str) -> Path:
        return self.path / "run" / f"{name}.json"

    def secret(self, name: str) -> str:
        """A random password, made once and kept in a file that only its owner can read."""
        path = self.path / "secrets" / name
        try:
            kept = path.read_text().strip()
        except FileNotFoundError:
            kept = ""
        return kept or self._write_private(path, secrets.token_urlsafe(24))

    def port(self, name: str) -> int:
        """The remembered port when it is free, else another free one, remembered from now on."""
        path = self.path / "ports.json"
        try:
            ports = json.loads(path.read_text())
        except (FileNotFoundError, ValueError):
            ports = {}
        kept = ports.get(name)
        if isinstance(kept, int) and _is_free(kept):
            return kept
        ports[name] = _free_port(taken=set(ports.values()))
        self._write_private(path, json.dumps(ports))
        return int(ports[name])

    @staticmethod
    def _write_private(path: Path, text: str) -> str:
        """Whole or not at all, also when the process dies on the way."""
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as stream:
            stream.write(text + "\n")
        draft.replace(path)
        return text


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Connections of a server that was killed may linger; only a listener makes a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port(taken: set[int]) -> int:
    for port in random.sample(_PORTS, 200):
        if port not in taken and _is_free(port):
            return port
    raise ServerError(
        f"No free port was found between {_PORTS.start} and {_PORTS.stop} on 127.0.0.1."
    )
