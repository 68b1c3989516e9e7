"""Runs in Celery's own environment: the worker imports it as a module, the load runs it by path.

A step is one task of a `chain`; its value is the list of the moments at which it and
those before it ran.
"""

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from time import monotonic_ns

from celery import Celery, chain
from closed_loop import drive

IN_FLIGHT_ARGUMENT = 5

app = Celery("celery_app", broker=os.environ["CHAIN_URL"], backend=os.environ["CHAIN_URL"])
app.conf.update(
    task_acks_late=True,
    worker_prefetch_multiplier=16,
    task_serializer="json",
    result_serializer="json",
)


@app.task(name="noop")
def noop(starts: list[int]) -> list[int]:
    return [*starts, monotonic_ns()]


def run(steps: int) -> list[int]:
    signatures = [noop.s([]), *(noop.s() for _ in range(steps - 1))]
    return chain(*signatures).apply_async().get(timeout=120)


async def main() -> None:
    numbers = sys.argv[1:]
    threads = ThreadPoolExecutor(int(numbers[IN_FLIGHT_ARGUMENT]))

    async def call(steps: int) -> list[int]:
        return await asyncio.get_running_loop().run_in_executor(threads, run, steps)

    await drive(call, numbers)


if __name__ == "__main__":
    asyncio.run(main())
