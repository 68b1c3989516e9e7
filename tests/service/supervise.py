"""Runs a stack in a process of its own, as `permaflow up` does, for tests that kill that process.

usage: supervise.py DATA_DIR SERVERS [--uid=N] [--no-death-signal]

Prints one line of JSON when the servers are ready and stops them in order when its input ends.
"""

from __future__ import annotations

import asyncio
import concurrent.futures.thread
import encodings.idna
import json
import os
import sys
from pathlib import Path

import psycopg

from permaflow.errors import ServerError
from pipeline.embedded import process
from pipeline.embedded.stack import Stack

# Loaded before the change of user: the interpreter may lie where another user cannot read.
PRELOADED = (concurrent.futures.thread, encodings.idna, psycopg)


async def main(data_dir: Path, servers: frozenset[str]) -> None:
    async with Stack(data_dir, servers=servers) as stack:
        report = {
            "pids": stack.pids,
            "urls": {name: server.url for name, server in stack.servers.items()},
            "uid": os.geteuid(),
        }
        print(json.dumps(report), flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    for option in sys.argv[3:]:
        if option == "--no-death-signal":
            process._LIBC = None
        elif option.startswith("--uid="):
            uid = int(option.removeprefix("--uid="))
            os.setgroups([])
            os.setgid(uid)
            os.setuid(uid)
    try:
        asyncio.run(main(Path(sys.argv[1]), frozenset(sys.argv[2].split(","))))
    except ServerError as error:
        sys.exit(f"permaflow: {error}")
