"""A task type: a name, two schemas and a coroutine that returns a verdict.

A task type never raises for what it expects; it returns `Done`, `Retry` or `Reject`. An exception
that escapes is a bug and counts as a retryable failure.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Protocol
from uuid import UUID

from permaflow.errors import (
    BusUnavailableError,
    BusyError,
    PermaflowError,
    StoreUnavailableError,
)
from permaflow.plan import Json
from permaflow.ports import Documents as Documents
from permaflow.ports import Filter as Filter
from permaflow.ports import Integrations as Integrations
from permaflow.ports import Mail as Mail
from permaflow.ports import Notifications as Notifications
from permaflow.ports import Order as Order
from permaflow.ports import Secrets as Secrets


@dataclass(frozen=True, slots=True)
class Done:
    """The work is done; `output` is what later steps may refer to. `port` picks outgoing edges."""

    output: Json = None
    port: str | None = None


@dataclass(frozen=True, slots=True)
class Retry:
    """It failed in a way that may pass. `after` is the least wait that the other side asked for."""

    message: str
    code: str = "failed"
    after: timedelta | None = None
    details: Json = None


@dataclass(frozen=True, slots=True)
class Reject:
    """It failed for good; further attempts would fail alike."""

    message: str
    code: str = "rejected"
    details: Json = None


@dataclass(frozen=True, slots=True)
class Park:
    """Not now: try the same attempt again after `after`. Does not use up a retry."""

    reason: str
    after: timedelta


Verdict = Done | Retry | Reject | Park


_OURS_IS_AWAY = timedelta(seconds=1)


def failure(error: PermaflowError) -> Retry | Reject | Park:
    """The verdict on an error of a port: its class says whether another attempt has a chance.

    That the engine's own store or bus cannot be reached is no failure of the step: it is put off.
    """
    if isinstance(error, StoreUnavailableError | BusUnavailableError):
        return Park(str(error), _OURS_IS_AWAY)
    if isinstance(error, BusyError):
        return Retry(str(error), code=error.code, after=error.after)
    if error.retryable:
        return Retry(str(error), code=error.code)
    return Reject(str(error), code=error.code)


class HttpResponse(Protocol):
    """An answer, read whole and within the limits of the call."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


class Http(Protocol):
    """HTTP that reaches no private address.

    Raises `ConnectorError` (its `code` and `retryable` say what happened), and `InputError` for a
    URL, method or header that may not be.
    """

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        timeout: timedelta | None = None,
        max_bytes: int | None = None,
        follow_redirects: bool = True,
    ) -> HttpResponse: ...


class Records(Protocol):
    """The built-in document store of the run's organisation.

    A record is `{"id", "object", "data", "version", "created_at", "updated_at"}`. Raises
    `InputError` for what cannot be stored and `StoreError` when the store fails.
    """

    async def create(
        self, object_name: str, data: Mapping[str, Json], *, record_id: str | None
    ) -> Json:
        """With a `record_id` that exists already, gives that record back and changes nothing."""
        ...

    async def get(self, object_name: str, record_id: str) -> Json | None: ...
    async def update(
        self, object_name: str, record_id: str, data: Mapping[str, Json]
    ) -> Json | None: ...
    async def upsert(self, object_name: str, record_id: str, data: Mapping[str, Json]) -> Json:
        """Set these fields of the record, which is made if it is not there."""
        ...

    async def delete(self, object_name: str, record_id: str) -> bool: ...
    async def query(
        self,
        object_name: str,
        filters: Sequence[Filter] = (),
        order: Sequence[Order] = (),
        limit: int = 100,
    ) -> list[Json]:
        """Records that pass all filters. A field is a path in the data, `address.city`, or `$id`,
        `$version`, `$created_at`, `$updated_at`.
        """
        ...

    async def find(self, object_name: str, *, after: str = "", limit: int = 100) -> list[Json]:
        """Records of an object by id; for the next page, `after` is the last id of this one."""
        ...

    async def turn(self, object_name: str, record_id: str, key: str) -> int:
        """The next number, from 0, of a rotation; the same number again for the same key.

        The rotation is a record, which is made with its first turn.
        """
        ...


class Tables(Protocol):
    """Rows of a configured PostgreSQL, as objects: column → value.

    `table` is `name` or `schema.name`; `match` finds rows by equality, null matches null. Raises
    `ConnectorError`, and `InputError` for a name or value that cannot be. `key` makes a write
    happen once: it is kept in the target in the same transaction, and a write with a key that is
    there already changes nothing and gives back what the first one gave.
    """

    async def create(
        self, source: str, table: str, values: Mapping[str, Json], *, key: str
    ) -> Json: ...
    async def get(self, source: str, table: str, match: Mapping[str, Json]) -> Json | None: ...
    async def update(
        self,
        source: str,
        table: str,
        match: Mapping[str, Json],
        values: Mapping[str, Json],
        *,
        key: str,
    ) -> list[Json]: ...
    async def upsert(
        self,
        source: str,
        table: str,
        match: Mapping[str, Json],
        values: Mapping[str, Json],
        *,
        key: str,
    ) -> Json:
        """Set columns of the row that matches, which is made if it is not there. The columns of
        `match` must be unique together.
        """
        ...

    async def query(
        self,
        source: str,
        table: str,
        filters: Sequence[Filter] = (),
        order: Sequence[Order] = (),
        limit: int = 100,
    ) -> list[Json]:
        """Rows that pass all filters."""
        ...

    async def delete(
        self, source: str, table: str, match: Mapping[str, Json], *, key: str
    ) -> list[Json]: ...


class Functions(Protocol):
    """Registered Python functions, by slug."""

    def get(self, slug: str) -> Callable[..., Any] | None: ...


class Snippets(Protocol):
    """Code of the run's organisation, run in a jail that reaches nothing.

    `given` is what the code sees as `input`; what it returns is given back. Every line that it
    writes to the console goes to `log`. Raises `SnippetError`s for what the code did, `JailError`
    when the jail failed, `NotFoundError` for an engine that is not installed.
    """

    async def run(
        self,
        engine: str,
        code: str,
        given: Json,
        *,
        timeout: timedelta,
        memory: int,
        log: Callable[[str], None],
    ) -> Json:
        """`memory` is in bytes."""
        ...


@dataclass(slots=True, eq=False)
class TaskContext:
    """All that a task may need from the world. `visit` counts how often a goto opened the step.

    Take it as frozen. It is not, because one is made for every step, and frozen ones take longer.
    """

    org: str
    run_id: UUID
    node: str
    scope: str
    attempt: int
    visit: int
    timeout: timedelta
    http: Http
    records: Records
    tables: Tables
    functions: Functions
    secrets: Secrets
    documents: Documents
    notifications: Notifications
    mail: Mail | None
    integrations: Integrations | None
    snippets: Snippets | None
    log: Callable[[str], None]

    @property
    def step_key(self) -> str:
        """The same for all attempts of the step, until a goto opens it again."""
        visit = f"@{self.visit}" if self.visit else ""
        return f"{self.run_id}:{self.scope}:{self.node}{visit}"

    @property
    def idempotency_key(self) -> str:
        """The same for every delivery of the same attempt."""
        return f"{self.step_key}:{self.attempt}"


Run = Callable[[Any, TaskContext], Awaitable[Verdict]]


@dataclass(frozen=True, slots=True)
class OutputField:
    """A part of a result that later steps may refer to, as catalogues show it."""

    field: str
    description: str = ""


@dataclass(frozen=True, slots=True)
class TaskType:
    """What a stage can do.

    `config` and `result` are pydantic models (or anything with the same two methods); `stage` is
    the stage that serves it; `batch` is how many dispatches may travel in one message: more than 1
    only where running one again after a crash costs nothing but time. What follows `doc` is for
    catalogues: `outputs` are the members of the result unless they are given. A `remote` type is
    served by workers that are no Python process of this installation; its `run` is never called.
    `verbatim` names fields of a config that are taken as they stand: templates in them are none.
    """

    name: str
    stage: str
    config: Any
    result: Any
    run: Run = field(repr=False)
    timeout: timedelta = timedelta(seconds=60)
    batch: int = 1
    doc: str = ""
    label: str = ""
    category: str = ""
    icon: str = ""
    outputs: tuple[OutputField, ...] = ()
    remote: bool = False
    verbatim: tuple[str, ...] = ()
