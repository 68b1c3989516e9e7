"""`permaflow key` against a real database."""

from __future__ import annotations

import subprocess
import sys

import orjson

from pipeline.store import keys
from pipeline.store.database import Database


def permaflow(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "pipeline.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, check=False)


async def test_a_key_is_made_shown_without_its_secret_and_ended(database_url: str) -> None:
    made = permaflow("key", "create", "ci", "--scope", "runs:read", "--url", database_url, "--json")
    assert made.returncode == 0, made.stderr
    facts = orjson.loads(made.stdout)
    async with Database(database_url) as database:
        caller = await database.run(keys.verify, facts["key"])
        assert caller is not None
        assert caller.scopes == {"runs:read"}

        listed = permaflow("key", "list", "--url", database_url, "--json")
        assert [key["id"] for key in orjson.loads(listed.stdout)] == [facts["id"]]
        assert facts["key"].encode() not in listed.stdout

        assert permaflow("key", "revoke", facts["id"], "--url", database_url).returncode == 0
        assert await database.run(keys.verify, facts["key"]) is None


def test_an_unknown_scope_is_refused_with_a_sentence(database_url: str) -> None:
    answer = permaflow("key", "create", "x", "--scope", "all", "--url", database_url)
    assert answer.returncode == 1
    assert b"There is no scope all" in answer.stderr
    assert b"Traceback" not in answer.stderr
