"""postgres: the truth. WAL is logical, fsync is on, passwords are needed everywhere."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from permaflow.errors import ServerError
from pipeline.embedded.accounts import Account, let_through, unprivileged_account
from pipeline.embedded.binaries import Finder
from pipeline.embedded.directory import DataDirectory
from pipeline.embedded.process import (
    Launch,
    command_line,
    end,
    environment,
    exists,
    is_alive,
    run_once,
)
from pipeline.embedded.server import NotReadyError

_ROLE = "permaflow"
_DATABASE = "permaflow"
_OLDEST = 15
_BUILTIN_LOCALES = 17
# sockaddr_un holds 108 bytes with its end; the name in the folder is .s.PGSQL.<port>.
_SOCKET_FOLDER_LIMIT = 107 - len("/.s.PGSQL.65535.lock")

_HBA = """\
# Rewritten at every start.
local all         all               scram-sha-256
local replication all               scram-sha-256
host  all         all  127.0.0.1/32 scram-sha-256
host  replication all  127.0.0.1/32 scram-sha-256
"""

_CONFIGURATION = {
    # durability and change data capture
    "wal_level": "logical",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    # an abandoned slot must not fill the disk
    "max_slot_wal_keep_size": "4GB",
    # one small machine
    "max_connections": "200",
    "shared_buffers": "256MB",
    "min_wal_size": "256MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "jit": "off",
    # a user's tables go to "public"; by default they would go to the schema named like the role
    "search_path": "public",
    # the same everywhere
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] ",
    "log_destination": "stderr",
    "logging_collector": "off",
}


class Postgres:
    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": roll back, write a checkpoint, end

    def __init__(self, directory: DataDirectory, find: Finder) -> None:
        self._directory = directory
        self._find = find
        self._data = directory.path / "postgres"
        self._port = 0
        self._fresh = False

    @property
    def url(self) -> str:
        return self._url(_DATABASE)

    @property
    def socket_url(self) -> str:
        """The same database over the unix socket, which saves some microseconds a round trip."""
        return (
            f"postgresql://{_ROLE}:{self._password}@/{_DATABASE}"
            f"?host={quote(str(self._sockets), safe='')}&port={self._port}"
        )

    def _url(self, database: str) -> str:
        return f"postgresql://{_ROLE}:{self._password}@127.0.0.1:{self._port}/{database}"

    @cached_property
    def _password(self) -> str:
        return self._directory.secret("postgres")

    @cached_property
    def _version(self) -> int:
        binary = self._find("postgres")
        printed = _output(binary, "--version")
        found = re.search(r"\) (\d+)", printed)
        if found is None:
            raise ServerError(f"{binary} does not run: it printed {printed.strip()!r}.")
        version = int(found[1])
        if version < _OLDEST:
            raise ServerError(
                f"{binary} is PostgreSQL {version}; {_OLDEST} or newer is needed. Install "
                "'permaflow[embedded]' or set PERMAFLOW_DATABASE_URL."
            )
        return version

    @cached_property
    def _sockets(self) -> Path:
        """A folder for the socket, short enough for its address; else a link leads to one."""
        folder = self._directory.path / "run" / "postgres"
        if len(os.fsencode(folder)) <= _SOCKET_FOLDER_LIMIT:
            folder.mkdir(mode=0o700, exist_ok=True)
            return folder
        if not folder.is_dir():
            folder.unlink(missing_ok=True)
            folder.symlink_to(tempfile.mkdtemp(prefix="permaflow-"))
        return folder.readlink()

    async def prepare(self) -> Launch:
        binary = self._find("postgres")
        account = unprivileged_account(self._data)
        if account is not None:
            let_through(account, self._data)
            let_through(account, binary)
        self._check()
        if not self._data.exists():
            await self._create(account)
        await self._end_orphan()
        self._port = self._directory.port(self.name)
        self._configure(account)
        return Launch((str(binary), "-D", str(self._data)), self._data, account)

    def _check(self) -> None:
        if not self._data.exists():
            return
        try:
            found = (self._data / "PG_VERSION").read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            raise ServerError(
                f"{self._data} is not a PostgreSQL data directory: it has no PG_VERSION. Move it "
                "away to start with an empty database, or restore it from a backup."
            ) from None
        if found != str(self._version):
            raise ServerError(
                f"{self._data} was made by PostgreSQL {found} and the one at hand is "
                f"{self._version}. Use the same major version, or move the data with pg_dumpall."
            )

    async def _create(self, account: Account | None) -> None:
        """initdb beside the final place, then a rename: there is no half-made directory."""
        draft = self._directory.path / "postgres.new"
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        password = draft.with_name("postgres.password")
        password.unlink(missing_ok=True)
        file = os.open(password, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as stream:
            stream.write(self._password + "\n")
        if account is not None:
            for path in (draft, password):
                os.chown(path, account.uid, account.gid)
        locale = ["--locale=C"]
        if self._version >= _BUILTIN_LOCALES:
            locale += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        log = self._directory.log("initdb")
        argv = [str(self._find("initdb")), "-D", str(draft), "-U", _ROLE, "-E", "UTF8"]
        argv += ["-A", "scram-sha-256", f"--pwfile={password}", "--no-instructions", *locale]
        try:
            status = await run_once(argv, draft, account, log)
        finally:
            password.unlink()
        if status != 0:
            tail = log.read_text(errors="replace")[-2000:]
            raise ServerError(
                f"initdb ended with status {status} for {self._data}. The end of its log "
                f"({log}):\n{tail}"
            )
        draft.rename(self._data)
        self._fresh = True

    async def _end_orphan(self) -> None:
        """A server of an earlier owner that still runs is stopped: never two on one directory."""
        pid_file = self._data / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return
        if is_alive(pid) and str(self._data) in command_line(pid):
            await end(pid, signal.SIGINT)
        elif exists(pid):
            # The number belongs to a stranger (or to a zombie) by now; PostgreSQL would refuse.
            pid_file.unlink(missing_ok=True)

    def _configure(self, account: Account | None) -> None:
        settings = dict(_CONFIGURATION)
        settings |= {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": str(self._sockets),
            "unix_socket_permissions": "0700",
        }
        pg_config = self._find("postgres").with_name("pg_config")
        if pg_config.exists() and "--with-lz4" in _output(pg_config, "--configure"):
            settings |= {"wal_compression": "lz4", "default_toast_compression": "lz4"}
        text = "# Rewritten at every start. What ALTER SYSTEM sets wins over it.\n"
        for name, value in settings.items():
            text += f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n"
        main = self._data / "postgresql.conf"
        include = "include_if_exists 'permaflow.conf'\n"
        try:
            written = main.read_text()
            if include not in written:
                main.write_text(written + include)
            for name, content in (("permaflow.conf", text), ("pg_hba.conf", _HBA)):
                path = self._data / name
                path.write_text(content)
                path.chmod(0o600)
                if account is not None:
                    os.chown(path, account.uid, account.gid)
        except OSError as error:
            raise ServerError(
                f"{self._data} is not usable: {error.strerror} ({error.filename}). Give it back to "
                "the user who made it, or restore it from a backup."
            ) from error
        if account is not None:
            os.chown(self._sockets, account.uid, account.gid)

    async def ping(self) -> None:
        """A query. Not asked before PostgreSQL says it is up: it logs whom it turned away."""
        status = (self._data / "postmaster.pid").read_text().splitlines()[7:8]
        if [line.strip() for line in status] != ["ready"]:
            raise NotReadyError("it is starting up")
        import psycopg  # takes a while, and PostgreSQL needs that time anyway

        if self._fresh:
            await self._create_database()
            self._fresh = False
        try:
            async with await psycopg.AsyncConnection.connect(self.url, autocommit=True) as session:
                await session.execute("select 1")
        except psycopg.OperationalError as error:
            message = str(error)
            if f'database "{_DATABASE}" does not exist' in message:
                self._fresh = True  # the first start ended between initdb and here
                raise NotReadyError(message.strip()) from error
            if "password authentication failed" in message:
                raise ServerError(
                    f"PostgreSQL in {self._data} does not accept the password in "
                    f"{self._directory.path / 'secrets' / 'postgres'}. Restore that file."
                ) from error
            raise NotReadyError(message.strip()) from error

    async def _create_database(self) -> None:
        import psycopg

        url = self._url("postgres")
        try:
            async with await psycopg.AsyncConnection.connect(url, autocommit=True) as session:
                await session.execute(f"create database {_DATABASE}")
        except psycopg.errors.DuplicateDatabase:
            pass
        except psycopg.OperationalError as error:
            raise NotReadyError(str(error).strip()) from error


def _output(program: Path, argument: str) -> str:
    done = subprocess.run(
        [str(program), argument], capture_output=True, text=True, check=False, env=environment()
    )
    return done.stdout or done.stderr
