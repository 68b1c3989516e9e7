"""What the runners of the matrix load: a function and an integration that reach the outside."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import httpx

from permaflow.errors import BusyError, RefusedError
from permaflow.functions import function
from permaflow.plan import Json
from permaflow.ports import Integrations
from permaflow.task import Http, TaskContext


async def ask(url: str, key: str) -> Json:
    """The answer of the outside; its refusals as those of a connector."""
    async with httpx.AsyncClient(timeout=None, trust_env=False) as client:
        answer = await client.get(url, headers={"Idempotency-Key": key})
    if answer.status_code == 503:
        raise BusyError("The outside is busy.")
    if answer.status_code >= 400:
        raise RefusedError("The outside refuses.")
    return answer.json()


@function("reach-out")
async def reach_out(given: dict[str, str], ctx: TaskContext) -> Json:
    return await ask(given["url"], ctx.step_key)


class Reach:
    """An integration with one action, `reach`."""

    async def execute(
        self,
        connection_id: str,
        action_key: str,
        params: Mapping[str, Json],
        *,
        key: str,
        timeout: timedelta,
    ) -> Json:
        return await ask(params["url"], key)


def provider(org: str, http: Http) -> Integrations:
    return Reach()
