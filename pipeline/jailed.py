"""The jail of a runner: how the settings want it, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

from permaflow.errors import JailError, PermaflowError, SettingsError
from permaflow.task import Snippets
from pipeline import telemetry
from pipeline.settings import Settings, split
from pipeline.telemetry import log
from stages.jail.confine import LAYERS
from stages.jail.engines import QUICKJS
from stages.jail.pool import Pool, PoolLimits, Watch
from stages.jail.snippets import JailedSnippets


async def open_snippets(
    settings: Settings, stack: AsyncExitStack, *, warm: bool
) -> Callable[[str], Snippets]:
    """The snippets of an organisation; their processes end with `stack`.

    `warm` has a process ready before it is needed. Raises `SettingsError` when the jail is then
    not as the settings demand.
    """
    watch = Watch(_tell_ready, _tell_failed, _tell_breached)
    pool = await stack.enter_async_context(Pool(limits_of(settings), watch))
    if warm and settings.jail_require:
        try:
            await pool.warm()
        except JailError as error:
            raise SettingsError(str(error)) from error
    elif warm:
        pool.fill(QUICKJS)
    most, memory = settings.max_output_bytes, settings.jail_memory << 20
    return partial(JailedSnippets, pool, output=most, memory=memory)


def limits_of(settings: Settings) -> PoolLimits:
    required = split(settings.jail_require)
    return PoolLimits(
        processes=settings.jail_processes,
        jobs=settings.jail_jobs,
        memory=settings.jail_memory << 20,
        require=LAYERS if required == ("all",) else required,
    )


def _tell_ready(layers: Sequence[str], missing: Mapping[str, str]) -> None:
    log.info(telemetry.JAIL_READY, layers=list(layers))
    if missing:
        log.warning(telemetry.JAIL_WEAK, missing=dict(missing))


def _tell_failed(error: PermaflowError) -> None:
    log.error(telemetry.JAIL_FAILED, error=str(error))


def _tell_breached(org: str, error: PermaflowError) -> None:
    log.error(telemetry.JAIL_BREACHED, org=org, error=str(error))
