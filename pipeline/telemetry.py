"""Every log event and every metric, once. docs/reference/telemetry.md is generated from here.

Log events are past-tense names with fields, never sentences. INFO is about a line per run, DEBUG a
line per message. Metrics carry no ids. The core does not log.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import orjson
import structlog
from prometheus_client import REGISTRY, Counter, Gauge, Histogram


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One kind of log line."""

    name: str
    level: str
    doc: str
    fields: tuple[str, ...] = ()


EVENTS: dict[str, LogEvent] = {}


def event(name: str, level: str, doc: str, *fields: str) -> str:
    """Add a log event to the catalogue; its name is what code passes to the logger."""
    EVENTS[name] = LogEvent(name, level, doc, fields)
    return name


VERTEX_STARTED = event("vertex.started", "info", "A process of a vertex is ready.", "vertex")
SETTING_UNKNOWN = event(
    "setting.unknown",
    "warning",
    "A PERMAFLOW_ variable is set that nobody reads; `nearest` is what may be meant.",
    "variable",
    "nearest",
)
VERTEX_STOPPED = event("vertex.stopped", "info", "A process of a vertex drained.", "vertex")
VERTEX_FAILED = event(
    "vertex.failed", "error", "A process of a vertex cannot go on.", "vertex", "error"
)
VERTEX_ENDED = event(
    "vertex.ended",
    "warning",
    "A process of a vertex ended by itself; another takes its place.",
    "vertex",
    "status",
    "error",
)
SERVER_ENDED = event(
    "server.ended", "warning", "An embedded server ended by itself; it is started again.", "server"
)
SERVER_FAILED = event(
    "server.failed",
    "error",
    "An embedded server cannot be started again; it is tried again.",
    "server",
    "error",
)
RUN_STARTED = event(
    "run.started", "debug", "A run was committed.", "run_id", "workflow_id", "source"
)
RUN_FINISHED = event("run.finished", "info", "A run ended.", "run_id", "workflow_id", "status")
RUN_QUARANTINED = event(
    "run.quarantined",
    "error",
    "A run made the core fail three times and was ended.",
    "run_id",
    "error",
)
RUN_UNRUNNABLE = event(
    "run.unrunnable", "error", "A run's document does not compile here.", "run_id", "problem"
)
APPEND_CONFLICTED = event(
    "append.conflicted", "debug", "Another orchestrator advanced a run first.", "runs"
)
BATCH_FAILED = event(
    "batch.failed",
    "warning",
    "Messages could not be handled now and come again.",
    "vertex",
    "error",
)
PARTITIONS_CHANGED = event(
    "partitions.changed", "info", "This orchestrator holds other partitions.", "partitions"
)
APPROVALS_TENDED = event(
    "approvals.tended",
    "debug",
    "People were told or reminded of approvals, or more were asked.",
    "count",
)
STEP_STARTED = event("step.started", "debug", "A task began.", "run_id", "node", "attempt", "type")
STEP_FINISHED = event(
    "step.finished", "debug", "A task ended.", "run_id", "node", "attempt", "type", "outcome"
)
STEP_CRASHED = event(
    "step.crashed",
    "error",
    "A task raised; that is a bug in it.",
    "run_id",
    "node",
    "type",
    "error",
)
STEP_LOGGED = event("step.logged", "info", "A task wrote a line.", "run_id", "node", "line")
JAIL_READY = event(
    "jail.ready", "info", "The first process of the jail is there, with these layers.", "layers"
)
JAIL_WEAK = event(
    "jail.weak",
    "warning",
    "The system lacks layers of the jail; see the how-to on code steps.",
    "missing",
)
JAIL_FAILED = event(
    "jail.failed", "error", "No process of the jail can be started; code steps fail.", "error"
)
JAIL_BREACHED = event(
    "jail.breached",
    "error",
    "Code reached for what the jail forbids, and its process was ended.",
    "org",
    "error",
)
STEP_STOPPED = event(
    "step.stopped", "debug", "A task was stopped: its result is no longer wanted.", "run_id", "node"
)
STEP_LOST = event(
    "step.lost",
    "warning",
    "No runner that had this step came back; it is tried alone, or has failed.",
    "run_id",
    "node",
)
HOLD_REFUSED = event(
    "hold.refused",
    "warning",
    "A worker said of a step that it is at it for a time that cannot be meant; it gets no lease.",
    "holder",
    "run_id",
    "step",
    "reason",
)
MESSAGE_UNREADABLE = event(
    "message.unreadable", "error", "A message went to the dead letters.", "subject", "reason"
)
BUS_DISCONNECTED = event(
    "bus.disconnected", "warning", "NATS was lost; connecting goes on.", "reason"
)
BUS_SILENT = event("bus.silent", "warning", "NATS no longer answered pings.", "seconds")
BUS_REFUSED = event("bus.refused", "warning", "NATS refused something.", "reason")
BUS_PROTOCOL_BROKEN = event(
    "bus.protocol_broken", "warning", "NATS sent what is not its protocol.", "reason"
)
BUS_LISTENER_FAILED = event(
    "bus.listener_failed", "error", "What answers a doorbell raised.", "subject"
)
BUS_CHANNEL_MENDED = event(
    "bus.channel_mended", "warning", "A channel was gone and was made again.", "stream", "channel"
)
BUS_CHANNEL_MISSING = event(
    "bus.channel_missing", "debug", "A channel could not be made; it is tried again.", "reason"
)
BUS_STREAMS_MISSING = event(
    "bus.streams_missing", "warning", "The streams could not be made; it is tried again.", "reason"
)
CHANGES_READ = event("changes.read", "debug", "A batch of changes was read.", "source", "count")
CHANGE_REJECTED = event(
    "change.rejected",
    "warning",
    "A change went to the dead letters.",
    "source",
    "position",
    "reason",
)
TRIGGERS_LOADED = event("triggers.loaded", "info", "The active triggers were read.", "count")
SOURCE_FAILED = event(
    "source.failed", "warning", "A source of changes failed; it is tried again.", "source", "error"
)
CHANGES_LOST = event(
    "changes.lost",
    "error",
    "What was to be read next is gone, with a slot, a topic or the beginning of one: changes are "
    "lost. The error says from where reading goes on.",
    "source",
    "error",
)
TIMERS_FIRED = event("timers.fired", "debug", "Due timers were reported.", "count")
RUNS_NUDGED = event("runs.nudged", "info", "Silent runs were looked at.", "count")
HISTORY_DROPPED = event("history.dropped", "info", "Old history was dropped.", "partitions")
REQUEST_FAILED = event(
    "request.failed",
    "error",
    "A request met a bug; the answer was 500.",
    "path",
    "request_id",
    "error",
)

RUNS_STARTED = Counter("permaflow_runs_started_total", "Runs committed.", ["source"])
RUNS_FINISHED = Counter("permaflow_runs_finished_total", "Runs that ended.", ["status"])
ENTRIES_APPENDED = Counter("permaflow_entries_appended_total", "Journal entries committed.")
STEPS_DISPATCHED = Counter("permaflow_steps_dispatched_total", "Attempts sent to runners.")
STALE_RESULTS = Counter(
    "permaflow_stale_results_total",
    "Results, timers and wakes that came too late, and did nothing.",
)
CONFLICTS = Counter("permaflow_append_conflicts_total", "Appends that another process had made.")
REDELIVERIES = Counter(
    "permaflow_redeliveries_total", "Messages that came more than once.", ["vertex"]
)
STEP_ATTEMPTS = Counter("permaflow_step_attempts_total", "Attempts made.", ["type", "outcome"])
STEP_SECONDS = Histogram(
    "permaflow_step_duration_seconds",
    "Time a task took.",
    ["type"],
    buckets=(0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300),
)
STAGE_IN_WORK = Gauge("permaflow_stage_in_work", "Attempts in work here.", ["stage"])
INGEST_EVENTS = Counter("permaflow_ingest_events_total", "Changes read.", ["source", "result"])
INGEST_LAG = Gauge("permaflow_ingest_lag_seconds", "Age of the newest change read.", ["source"])
SOURCE_GAPS = Counter(
    "permaflow_source_gaps_total", "Times that changes of a source were lost.", ["source"]
)
DUPLICATE_STARTS = Counter(
    "permaflow_duplicate_starts_total",
    "Trigger events that had started their run before.",
    ["source"],
)
TIMERS = Counter("permaflow_timers_fired_total", "Timers reported as due.")
NUDGES = Counter("permaflow_nudges_total", "Silent runs that were looked at.")
DEAD_LETTERS = Counter("permaflow_dead_letters_total", "Messages put aside.", ["source"])
HTTP_REQUESTS = Counter("permaflow_http_requests_total", "Requests answered.", ["route", "status"])
HTTP_SECONDS = Histogram(
    "permaflow_http_request_seconds",
    "Time to answer.",
    ["route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5),
)
SSE_CLIENTS = Gauge("permaflow_sse_clients", "Open streams.")

METRICS = REGISTRY

log = structlog.get_logger("permaflow")

_SECRET = ("authorization", "token", "secret", "password", "cookie", "api_key")


def _hide_secrets(
    _logger: object, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    for name in line:
        if _is_secret(name):
            line[name] = "***"
    return line


@lru_cache(maxsize=1_000)
def _is_secret(name: str) -> bool:
    return any(word in name.lower() for word in _SECRET)


def _as_json(line: structlog.typing.EventDict, **options: Any) -> bytes:
    """A line as JSON; what orjson refuses (lone surrogates, huge numbers) the slower way."""
    try:
        return orjson.dumps(line, option=orjson.OPT_PASSTHROUGH_DATACLASS, **options)
    except (TypeError, ValueError):
        return json.dumps(line, **options).encode()


def configure(level: str, style: str) -> None:
    """Set up logging for this process: JSON lines on stderr, or coloured ones on a terminal."""
    console = style == "console" or (style == "auto" and sys.stderr.isatty())
    renderer: structlog.typing.Processor
    lines: Callable[..., structlog.typing.WrappedLogger]
    if console:
        renderer = structlog.dev.ConsoleRenderer()
        lines = structlog.PrintLoggerFactory(sys.stderr)
    else:
        renderer = structlog.processors.JSONRenderer(_as_json)
        lines = structlog.BytesLoggerFactory(sys.stderr.buffer)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _hide_secrets,
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=lines,
        cache_logger_on_first_use=True,
    )
