"""The options that a step may have in any dialect: on_error, retry, timeout, ports, max_visits."""

from __future__ import annotations

from datetime import timedelta

from permaflow.plan import CONTINUE, NO_RETRY, STOP, Goto, OnError, Retry, Task
from specs.documents import Step
from specs.durations import LONGEST_SECONDS
from specs.reading import Fields, shown

MAX_VISITS = 1_000
MAX_PORTS = 100
DEFAULT_RETRIES = 3
"""Of a `retry` that does not say how many; without `retry` there are none."""


def read_options(step: Step, timeout: str, default: OnError) -> None:
    """Reads them into `step`; `timeout` is the name that the dialect gives the timeout."""
    fields = step.fields
    step.on_error = _on_error(fields, default)
    said = read_timeout(fields, timeout)
    if said is not None and step.timeout is not None:
        fields.problem(timeout, "conflict", "The timeout stands in the config as well; remove one.")
    step.timeout = said or step.timeout
    step.ports = _ports(step)
    step.max_visits = fields.whole("max_visits", 1, MAX_VISITS, 100)
    if fields.has("retry"):
        step.retry = read_retry(fields)


def _ports(step: Step) -> tuple[str, ...]:
    """`ports`: the ways out that the result of a task may name."""
    fields = step.fields
    ports: dict[str, None] = {}
    for index, port in enumerate(fields.array("ports")[:MAX_PORTS]):
        if type(port) is not str or not port or port in ports or port == "error":
            fields.report.add(
                f"{fields.at('ports')}/{index}",
                "bad_value",
                "A port is a string, unlike the others and other than `error`.",
            )
        else:
            ports[port] = None
    if len(fields.array("ports")) > MAX_PORTS:
        fields.problem("ports", "too_large", f"A step may have {MAX_PORTS} ports.")
    if ports and not isinstance(step.work, Task):
        fields.problem("ports", "bad_value", "Only tasks have ports of their own; remove `ports`.")
    return tuple(ports)


def read_timeout(fields: Fields, name: str) -> timedelta | None:
    seconds = fields.number(name, 0.001, LONGEST_SECONDS)
    return None if seconds is None else timedelta(seconds=seconds)


def _on_error(fields: Fields, default: OnError) -> OnError:
    value = fields.text("on_error")
    match value:
        case None:
            return default
        case "stop":
            return STOP
        case "continue":
            return CONTINUE
        case _ if value.startswith("goto:") and value[5:].strip():
            return Goto(value[5:].strip())
    fields.problem(
        "on_error",
        "bad_value",
        f"`on_error` is {shown(value)}; {fields.report.guess(value, ('stop', 'continue'))}"
        "it is `stop`, `continue` or `goto:` and the id of a step.",
    )
    return default


def read_retry(outer: Fields) -> Retry:
    fields = Fields(outer.object("retry"), outer.at("retry"), outer.report)
    fields.only({"max_retries", "backoff", "initial_delay_ms", "max_delay_ms", "jitter"})
    backoff = fields.choice("backoff", ("exponential", "fixed", "constant"), "exponential")
    longest = LONGEST_SECONDS * 1000
    initial = fields.number("initial_delay_ms", 0, longest)
    most = fields.number("max_delay_ms", 0, longest)
    jitter = fields.values.get("jitter")
    if type(jitter) is bool:
        share: float | None = float(jitter)
    else:
        share = fields.number("jitter", 0, 1)
    return Retry(
        max_retries=fields.whole("max_retries", 0, 1_000, DEFAULT_RETRIES),
        initial_delay=NO_RETRY.initial_delay
        if initial is None
        else timedelta(milliseconds=initial),
        max_delay=NO_RETRY.max_delay if most is None else timedelta(milliseconds=most),
        factor=2.0 if backoff == "exponential" else 1.0,
        jitter=1.0 if share is None else share,
    )
