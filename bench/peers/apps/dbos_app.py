"""Runs in DBOS's own environment: `dbos_app.py DATABASE_URL` and the numbers of a workload.

A step is one `@DBOS.step`, whose result is a row in PostgreSQL; its value is the moment its
body ran.
"""

import asyncio
import sys
import time

from closed_loop import drive
from dbos import DBOS


@DBOS.step()
async def noop() -> int:
    return time.monotonic_ns()


@DBOS.workflow()
async def chain(steps: int) -> list[int]:
    return [await noop() for _ in range(steps)]


async def call(steps: int) -> list[int]:
    handle = await DBOS.start_workflow_async(chain, steps)
    return await handle.get_result()


async def main() -> None:
    database_url, *numbers = sys.argv[1:]
    DBOS(
        config={
            "name": "chain",
            "system_database_url": database_url,
            "run_admin_server": False,
            "log_level": "ERROR",
        }
    )
    DBOS.launch()
    try:
        await drive(call, numbers)
    finally:
        DBOS.destroy()


asyncio.run(main())
