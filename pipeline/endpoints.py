"""Where a running `permaflow up` can be reached: `<data_dir>/endpoints.json`, for its owner only.

`up` writes it once everything is ready and removes it at the end. Commands read it for whatever
the settings leave open, so that they find what runs on this machine without being told.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pydantic import SecretStr

from permaflow.errors import SettingsError
from pipeline.embedded.process import is_alive
from pipeline.settings import Settings

FILE = "endpoints.json"
KEY_FILE = "api-key"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """`ops` is the ops port of each vertex at the time of writing."""

    pid: int
    api_url: str
    database_url: str
    nats_url: str
    kafka_bootstrap: str
    redis_url: str
    ops: Mapping[str, int] = field(default_factory=dict)


def write(data_dir: Path, endpoints: Endpoints) -> None:
    """Whole or not at all."""
    path = data_dir / FILE
    draft = path.with_name(f".{FILE}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(asdict(endpoints), file, indent=2)
        file.write("\n")
    draft.replace(path)


def remove(data_dir: Path) -> None:
    (data_dir / FILE).unlink(missing_ok=True)


def read(data_dir: Path) -> Endpoints | None:
    """None if nothing runs there; what a killed process left behind counts for nothing."""
    try:
        found = Endpoints(**json.loads((data_dir / FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return found if is_alive(found.pid) else None


def located(settings: Settings) -> Settings:
    """The settings, with what a running `up` can fill in. What is set stays."""
    found = read(settings.data_dir)
    more: dict[str, object] = {}
    if found is not None:
        for name in ("database_url", "nats_url", "kafka_bootstrap", "redis_url"):
            if not getattr(settings, name):
                more[name] = getattr(found, name)
        if "api_url" not in settings.model_fields_set:
            more["api_url"] = found.api_url
    if not settings.api_key.get_secret_value():
        more["api_key"] = SecretStr(read_key(settings.data_dir))
    return settings.model_copy(update=more)


def needed(settings: Settings, name: str) -> str:
    """The URL of a server that a command cannot do without. Raises `SettingsError`."""
    url: str = getattr(located(settings), name)
    if not url:
        raise SettingsError(f"PERMAFLOW_{name.upper()} is not set, and {not_running(settings)}")
    return url


def not_running(settings: Settings) -> str:
    """Half a sentence: where no `up` was found, and what to do."""
    return (
        f"no `permaflow up` runs in {settings.data_dir.absolute()}. Start it, or set "
        "PERMAFLOW_DATA_DIR to where it runs."
    )


def read_key(data_dir: Path) -> str:
    """The API key that `up` keeps; empty if there is none, or it is not ours to read."""
    try:
        return (data_dir / KEY_FILE).read_text().strip()
    except OSError:
        return ""
