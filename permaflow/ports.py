"""What a task may need of the world beyond HTTP, records, tables and functions.

`TaskContext` hands these out. A port that an installation may do without is None there while
nothing is configured for it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from email.message import EmailMessage
from typing import TYPE_CHECKING, Protocol

from permaflow.plan import Json

if TYPE_CHECKING:
    from permaflow.task import Http


FILTERS = frozenset(
    {"eq", "ne", "gt", "gte", "lt", "lte", "in", "not_in", "contains", "starts_with"}
    | {"exists", "not_exists"}
)
"""How a `Filter` may compare."""


@dataclass(frozen=True, slots=True)
class Filter:
    """What a record or a row must be like: a field, how it is compared, and with what."""

    field: str
    op: str
    value: Json = None


@dataclass(frozen=True, slots=True)
class Order:
    """By which field results are sorted; what has none comes last."""

    field: str
    descending: bool = False


class Mail(Protocol):
    """The mail server of the installation."""

    @property
    def sender(self) -> str:
        """The address that mail comes from: `name@domain`, or `Somebody <name@domain>`."""
        ...

    async def send(
        self,
        message: EmailMessage,
        recipients: Sequence[str],
        *,
        partial: bool = False,
        timeout: timedelta | None = None,
    ) -> Mapping[str, str]:
        """Hand a message over for these mailboxes, whatever its headers say.

        Unless `partial`, one recipient that is refused means that nothing is sent. Gives those
        that were refused, with the server's words; `RefusedError` when all were, or the message
        was. Other `ConnectorError`s are retryable.
        """
        ...


class Integrations(Protocol):
    """Actions of connected services, of the run's organisation."""

    async def execute(
        self,
        connection_id: str,
        action_key: str,
        params: Mapping[str, Json],
        *,
        key: str,
        timeout: timedelta,
    ) -> Json:
        """What the action gave back, as JSON.

        `key` is the same for all attempts of the step. Raises `NotFoundError` for an unknown
        connection or action, `InputError` for params that are none, `RefusedError` when the
        service says no, `BusyError` when it asks to wait, and other `ConnectorError`s.
        """
        ...


class IntegrationProvider(Protocol):
    """Gives the integrations of an organisation, which reach the outside through `http`.

    The setting `PERMAFLOW_INTEGRATIONS` names one as `module:name`.
    """

    def __call__(self, org: str, http: Http) -> Integrations: ...


@dataclass(frozen=True, slots=True)
class Notice:
    """What somebody is told. `link` is where it leads; `data` is for whoever shows it."""

    title: str
    description: str = ""
    link: str = ""
    data: Json = None


class Notifications(Protocol):
    """Tells people of the run's organisation, wherever they watch, and keeps it for them."""

    async def add(self, users: Sequence[str], notice: Notice, *, key: str) -> int:
        """Tell these users; gives to how many of them it is new.

        What has the same `key` is told once. Raises `InputError` for a name that is none, and
        `StoreError`s.
        """
        ...


@dataclass(frozen=True, slots=True)
class Document:
    """A file: what it is called, what it is (a media type), and its bytes."""

    name: str
    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """Where a file is kept: `link` is its address at the gateway."""

    id: str
    link: str


class Documents(Protocol):
    """Files of the run's organisation. They are kept as long as finished runs are."""

    async def put(self, document: Document, *, key: str) -> StoredDocument:
        """Keep a file. One that was put with the same `key` stays as it is."""
        ...

    async def get(self, document_id: str) -> Document:
        """A file, whole. Raises `NotFoundError`."""
        ...


class Secrets(Protocol):
    """The secrets of the run's organisation, by name.

    What a task gives back is searched for the secrets that it asked for, and rid of them. A secret
    may be bound to hosts: a task that has asked for it sends nothing to any other host by
    `ctx.http`, redirects included; that raises `SecretHostError`.
    """

    async def get(self, name: str) -> str:
        """Raises `NotFoundError`, and `SettingsError` if it cannot be decrypted."""
        ...
