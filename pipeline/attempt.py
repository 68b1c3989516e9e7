"""One attempt of one task: from a dispatch to a result, whatever happens in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from typing import Any, Protocol
from uuid import UUID

import msgspec
from pydantic import ValidationError

from permaflow.errors import PermaflowError
from permaflow.task import (
    Documents,
    Done,
    Functions,
    Integrations,
    Mail,
    Notifications,
    Park,
    Records,
    Reject,
    Retry,
    Secrets,
    Snippets,
    Tables,
    TaskContext,
    TaskType,
    failure,
)
from pipeline import telemetry
from pipeline.bound_http import AskingHttp, BoundHttp
from pipeline.redaction import redacted, redacted_text
from pipeline.result_limits import details, readable
from pipeline.step_log import StepLog
from pipeline.telemetry import log
from pipeline.wire import Dispatch, StepDone, StepFailed, StepParked

Result = StepDone | StepFailed | StepParked

_seconds = lru_cache(maxsize=1_000)(lambda seconds: timedelta(seconds=seconds))

AGAIN = 5.0
"""Seconds that a task has to clean up after its timeout, before it is cancelled again."""


class OpenSecrets(Secrets, Protocol):
    """Secrets that know which of them were asked for."""

    @property
    def used(self) -> Sequence[str]: ...

    def check(self, host: str) -> None:
        """Raises `SecretHostError` if one of them may not be sent to this host."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """What tasks may use of the world; what belongs to an organisation is given for it, some of it
    for a run of it, and `secrets` for one attempt.
    """

    http: AskingHttp
    tables: Callable[[str], Tables]
    functions: Functions
    records: Callable[[str, UUID], Records]
    documents: Callable[[str, UUID], Documents]
    notifications: Callable[[str, UUID], Notifications]
    secrets: Callable[[str], OpenSecrets]
    mail: Mail | None = None
    integrations: Callable[[str], Integrations | None] = lambda org: None
    snippets: Callable[[str], Snippets | None] = lambda org: None


async def attempt(
    dispatch: Dispatch, config: Any, org: str, task_type: TaskType, services: Services
) -> Result:
    """Run a task to its verdict. Never raises, except when it is cancelled from outside."""
    secrets = services.secrets(org)
    lines = StepLog(dispatch, lambda text: redacted_text(text, secrets.used))
    result = await _attempt(dispatch, config, org, task_type, services, lines, secrets)
    if lines.lines is None or isinstance(result, StepParked):
        return result
    return msgspec.structs.replace(result, log=lines.lines)


async def _attempt(
    dispatch: Dispatch,
    config: Any,
    org: str,
    task_type: TaskType,
    services: Services,
    lines: StepLog,
    secrets: OpenSecrets,
) -> Result:
    loop = asyncio.get_running_loop()
    running = asyncio.current_task(loop)
    assert running is not None
    limit = _TimeLimit(loop, running, dispatch.timeout)
    try:
        try:
            parsed = task_type.config.model_validate(config)
        except ValidationError as error:
            return failed(dispatch, "invalid_config", _explain(error), retryable=False)
        context = _context(dispatch, org, services, lines, secrets)
        verdict = await task_type.run(parsed, context)
        if limit.late and isinstance(verdict, Retry):
            return _timed_out(dispatch)
        return judged(dispatch, redacted(verdict, secrets.used))
    except asyncio.CancelledError as error:
        if limit.late:
            return _timed_out(dispatch)
        if running.cancelling():
            raise
        # Nobody cancelled it: it awaited what somebody did.
        return crashed(dispatch, error, secrets.used)
    except PermaflowError as error:
        if limit.late:
            return _timed_out(dispatch)
        return judged(dispatch, redacted(failure(error), secrets.used))
    except (Exception, SystemExit) as error:
        return _timed_out(dispatch) if limit.late else crashed(dispatch, error, secrets.used)
    finally:
        limit.end()


class _TimeLimit:
    """Cancels a task that is `late`, as often as need be: a cancellation may get lost on its way,
    `asyncio.wait_for` drops one that comes just as what it waits for does.

    A class, because a function that calls itself again is garbage that only the collector finds:
    of every step, that took a fifth of a busy runner's time.
    """

    __slots__ = ("_handle", "_loop", "_task", "late")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, task: asyncio.Task[Any], seconds: float
    ) -> None:
        self.late = 0
        self._loop = loop
        self._task = task
        self._handle = loop.call_later(seconds, self._stop)

    def _stop(self) -> None:
        self.late += 1
        self._task.cancel()
        self._handle = self._loop.call_later(AGAIN, self._stop)

    def end(self) -> None:
        self._handle.cancel()
        for _ in range(self.late):
            self._task.uncancel()


def _timed_out(dispatch: Dispatch) -> Result:
    """Whatever else was wrong with a task that was told to stop, it had taken too long."""
    message = f"It took longer than its {dispatch.timeout:g} seconds."
    return failed(dispatch, "timeout", message, retryable=True, timed_out=True)


def crashed(dispatch: Dispatch, error: BaseException, secrets: Sequence[str] = ()) -> Result:
    """The result of what was never meant to be raised: another attempt may fare better.

    The traceback is not logged where it might quote one of the secrets.
    """
    log.error(
        telemetry.STEP_CRASHED,
        run_id=str(dispatch.run_id),
        node=dispatch.node,
        type=dispatch.type,
        error=redacted_text(repr(error), secrets),
        exc_info=None if secrets else error,
    )
    message = redacted_text(f"{type(error).__name__}: {error}", secrets)
    return failed(dispatch, "crashed", message, retryable=True)


def judged(dispatch: Dispatch, verdict: object) -> Result:
    key = (dispatch.run_id, dispatch.scope, dispatch.node, dispatch.attempt)
    match verdict:
        case Done(output=output, port=port):
            return StepDone(*key, output, readable(port) if port is not None else None)
        case Retry(message=message, code=code, after=after, details=told):
            wait = after.total_seconds() if after is not None else None
            text = readable(message)
            return StepFailed(*key, readable(code), text, True, False, wait, details(told))
        case Reject(message=message, code=code, details=told):
            text = readable(message)
            return StepFailed(*key, readable(code), text, False, False, None, details(told))
        case Park(reason=reason, after=after):
            return StepParked(*key, after.total_seconds(), readable(reason))
        case _:
            message = (
                f"The task type `{dispatch.type}` gave back {type(verdict).__name__}; a task gives "
                "back Done, Retry, Reject or Park."
            )
            return failed(dispatch, "bad_verdict", message, retryable=False)


def failed(
    dispatch: Dispatch, code: str, message: str, *, retryable: bool, timed_out: bool = False
) -> StepFailed:
    return StepFailed(
        dispatch.run_id,
        dispatch.scope,
        dispatch.node,
        dispatch.attempt,
        code,
        readable(message),
        retryable,
        timed_out,
    )


def _context(
    dispatch: Dispatch, org: str, services: Services, lines: StepLog, secrets: OpenSecrets
) -> TaskContext:
    run_id = dispatch.run_id
    return TaskContext(
        org,
        run_id,
        dispatch.node,
        dispatch.scope,
        dispatch.attempt,
        dispatch.visit,
        _seconds(dispatch.timeout),
        BoundHttp(services.http, secrets.check),
        services.records(org, run_id),
        services.tables(org),
        services.functions,
        secrets,
        services.documents(org, run_id),
        services.notifications(org, run_id),
        services.mail,
        services.integrations(org),
        services.snippets(org),
        lines.write,
    )


def _explain(error: ValidationError) -> str:
    first = error.errors()[0]
    where = "/".join(str(part) for part in first["loc"])
    return f"The config of this step is wrong at `/{where}`: {first['msg']}."
