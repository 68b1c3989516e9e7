"""Runs in Temporal's own environment: `temporal_app.py ADDRESS` and the numbers of a workload.

A step is one activity; its value is the moment its body ran. The worker and the client share
the process.
"""

import sys
import time
import uuid
from datetime import timedelta

import uvloop
from closed_loop import drive
from temporalio import activity, workflow
from temporalio.client import Client
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

QUEUE = "chain"


@activity.defn
async def noop() -> int:
    return time.monotonic_ns()


@workflow.defn
class Chain:
    @workflow.run
    async def run(self, steps: int) -> list[int]:
        limit = timedelta(minutes=5)
        return [
            await workflow.execute_activity(noop, start_to_close_timeout=limit)
            for _ in range(steps)
        ]


async def main() -> None:
    address, *numbers = sys.argv[1:]
    client = await Client.connect(address)

    async def call(steps: int) -> list[int]:
        return await client.execute_workflow(
            Chain.run, steps, id=uuid.uuid4().hex, task_queue=QUEUE
        )

    worker = Worker(
        client,
        task_queue=QUEUE,
        workflows=[Chain],
        activities=[noop],
        workflow_runner=UnsandboxedWorkflowRunner(),
        max_cached_workflows=2_000,
    )
    async with worker:
        await drive(call, numbers)


uvloop.run(main())
