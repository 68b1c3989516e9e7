"""What a driver's exception means to those who do not know the driver.

::

    40001 40P01 55P03        StoreError after five attempts (Database.run)   worth another attempt
    08… 53300 57P… 25006     StoreUnavailableError                           no server, or not yet
    23505                    ConflictError                                   somebody else was first
    23503                    NotFoundError                                   refers to nothing
    22… 23502 23514          InputError                                      the value is at fault
    54…                      LimitError                                      too deep or too large
    everything else          StoreError
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg_pool import PoolClosed, PoolTimeout, TooManyRequests

from permaflow.errors import (
    ConflictError,
    InputError,
    LimitError,
    NotFoundError,
    PermaflowError,
    StoreError,
    StoreUnavailableError,
)

PASSING = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available: the same again may succeed."""

_AWAY = frozenset({"53300", "57P01", "57P02", "57P03", "57P05", "25006"})


def passes(error: BaseException) -> bool:
    """Whether a second attempt at the same transaction may succeed."""
    state = error.sqlstate if isinstance(error, psycopg.Error) else None
    return state in PASSING


def translate(error: psycopg.Error | UnicodeEncodeError) -> PermaflowError:
    """The error of ours that says the same; the driver's becomes its `__cause__`."""
    if isinstance(error, UnicodeEncodeError):
        return InputError("A text holds half of a surrogate pair, which is no character.")
    state = error.sqlstate
    said = error.diag.message_primary or "; ".join(map(str.strip, str(error).splitlines()))
    said = said.rstrip(".?")
    if isinstance(error, PoolTimeout | PoolClosed | TooManyRequests):
        return StoreUnavailableError(f"No connection to the database is free: {said}.")
    if state is None:
        if isinstance(error, psycopg.DataError):
            return InputError(f"A value cannot be stored: {said}.")
        if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
            return StoreUnavailableError(f"The database cannot be reached: {said}.")
        return StoreError(f"The database driver failed: {said}.")
    return _of_state(state, said, error.diag.constraint_name or "")


def _of_state(state: str, said: str, constraint: str) -> PermaflowError:
    match state[:2]:
        case "08":
            return StoreUnavailableError(f"The database cannot be reached: {said}.")
        case _ if state in _AWAY:
            return StoreUnavailableError(f"The database does not serve at present: {said}.")
        case "22":
            return InputError(f"A value cannot be stored: {said} ({state}).")
        case "54":
            return LimitError(f"A value is too deep or too large to store: {said} ({state}).")
        case "23" if state == "23505":
            return ConflictError(f"Somebody else was first: {said} ({constraint}).")
        case "23" if state == "23503":
            return NotFoundError(f"It refers to something that is not there: {said}.")
        case "23" if state in ("23502", "23514"):
            return InputError(f"A value breaks a rule of the store: {said} ({constraint}).")
        case _ if state in ("3F000", "42P01", "42703"):
            return StoreError(
                f"The database has not the schema of this version: {said}. Run `permaflow db "
                "migrate`."
            )
        case _:
            return StoreError(f"The database refused: {said} ({state}).")


@contextmanager
def store_errors() -> Iterator[None]:
    """Within, every exception of the driver becomes one of ours."""
    try:
        yield
    except (psycopg.Error, UnicodeEncodeError) as error:
        raise translate(error) from error
