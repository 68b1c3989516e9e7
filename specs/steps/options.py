"""Options of the steps dialect: `retryPolicy` and times in milliseconds."""

from __future__ import annotations

from datetime import timedelta

from permaflow.errors import InputError
from permaflow.plan import NO_RETRY, Json, Retry
from specs.durations import LONGEST_SECONDS
from specs.json_limits import check_json_bytes
from specs.reading import Fields, kind_of

LONGEST = LONGEST_SECONDS * 1000
MAX_ATTEMPTS = 1_001
DEFAULT_ATTEMPTS = 4
"""Of a policy that does not say how many; without a policy there is one."""

_NAMES = {
    "max_attempts": "maxAttempts",
    "max_retries": "maxRetries",
    "initial_delay": "initialDelay",
    "max_delay": "maxDelay",
}
_FIELDS = frozenset(
    {"maxAttempts", "maxRetries", "backoff", "initialDelay", "maxDelay", "factor", "jitter"}
)
BACKOFFS = ("exponential", "fixed", "constant")


def decoded(fields: Fields, name: str) -> Json:
    """A member, and what it holds if it is JSON in text. None if it is absent or no JSON."""
    value = fields.values.get(name)
    if type(value) is not str:
        return value
    try:
        return check_json_bytes(value.encode())
    except InputError as error:
        fields.problem(name, "bad_json", f"`{name}` is text that must hold JSON. {error}")
        return None


def read_milliseconds(fields: Fields, name: str) -> timedelta | None:
    value = fields.number(name, 1, LONGEST)
    return None if value is None else timedelta(milliseconds=value)


def read_retry_policy(outer: Fields, default: Retry = NO_RETRY) -> Retry:
    """`{"maxAttempts": 3, "backoff": "exponential", "initialDelay": 1000}`; delays in milliseconds.

    A number alone is `maxAttempts`, which counts the first attempt. Names may be written with
    underscores, too.
    """
    value = decoded(outer, "retryPolicy")
    if value is None:
        return default
    if type(value) is int:
        value = {"maxAttempts": value}
    if type(value) is not dict:
        outer.problem(
            "retryPolicy",
            "wrong_type",
            "`retryPolicy` must be an object, or text that holds one as JSON, but it is "
            f"{kind_of(value)}.",
        )
        return default
    named = {_NAMES.get(name) or name: part for name, part in value.items()}
    fields = Fields(named, outer.at("retryPolicy"), outer.report)
    fields.only(_FIELDS)
    if fields.has("maxAttempts") and fields.has("maxRetries"):
        fields.problem("maxRetries", "conflict", "Give either `maxAttempts` or `maxRetries`.")
    attempts = fields.whole("maxAttempts", 1, MAX_ATTEMPTS, DEFAULT_ATTEMPTS)
    retries = fields.whole("maxRetries", 0, MAX_ATTEMPTS - 1, attempts - 1)
    backoff = fields.choice("backoff", BACKOFFS, "exponential")
    initial, most = read_delay(fields, "initialDelay"), read_delay(fields, "maxDelay")
    factor = fields.number("factor", 1, 100)
    jitter = fields.values.get("jitter")
    share = float(jitter) if type(jitter) is bool else fields.number("jitter", 0, 1)
    return Retry(
        max_retries=retries,
        initial_delay=NO_RETRY.initial_delay if initial is None else initial,
        max_delay=NO_RETRY.max_delay if most is None else most,
        factor=1.0 if backoff != "exponential" else 2.0 if factor is None else float(factor),
        jitter=1.0 if share is None else share,
    )


def read_delay(fields: Fields, name: str) -> timedelta | None:
    value = fields.number(name, 0, LONGEST)
    return None if value is None else timedelta(milliseconds=value)
