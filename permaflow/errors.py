"""Every error that Permaflow raises on purpose.

::

    PermaflowError                 code and retryable are class data; the docstring is the message
      SettingsError                at start-up: exit with a sentence, no traceback
      ServerError                  an embedded server could not be started or stopped
      DocumentError                the document is at fault; carries problems with JSON pointers
      EvaluationError              a template or expression has no value for this run
      InputError                   what came in at a door is at fault
        LimitError                 it is larger than a limit allows
      NotFoundError                no such thing, or not yours
      ForbiddenError               this person may not do that
        SecretHostError            a secret may not be sent to this host
      StateError                   the thing is not in a state that allows this
      StoreError                   PostgreSQL (retryable)
        StoreUnavailableError
        ConflictError              somebody else appended first; load again and decide again
      BusError                     NATS (retryable)
        BusUnavailableError
        MessageTooLargeError       not retryable
      ConnectorError               an outside system; wraps the library's exception as __cause__
        UnreachableError           no connection, or it broke
        ConnectorTimeoutError
        BusyError                  it asks to come again later, and may say when
        BlockedAddressError        not retryable, like all that follow
        UntrustedPeerError         TLS: the other side did not prove who it is
        RedirectError
        AnswerTooLargeError
        RefusedError               its own rules forbid this: a constraint, a privilege
      SnippetError                 code of a user failed where it ran; says where in it
        SnippetTimeoutError        it took too long (retryable)
        SnippetLimitError          it needs more than it may have
        JailBreachError            it reached for what it must not have
      JailError                    the jail or a process of it failed (retryable)
      ContractError                a plug-in broke its promise; names the plug-in
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from permaflow.plan import Problem


class PermaflowError(Exception):
    """Something went wrong."""

    code: ClassVar[str] = "error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip().splitlines()[0])


class SettingsError(PermaflowError):
    """A setting is missing or wrong."""

    code = "settings"


class ServerError(PermaflowError):
    """A server could not be started or stopped."""

    code = "server"


class DocumentError(PermaflowError):
    """The document is not a workflow."""

    code = "invalid_document"

    def __init__(self, problems: Sequence[Problem], message: str | None = None) -> None:
        self.problems = tuple(problems)
        count = len(self.problems)
        super().__init__(message or f"The document has {count} problem{'s' * (count != 1)}.")


class EvaluationError(PermaflowError):
    """A template or expression has no value for this run."""

    code = "evaluation"


class InputError(PermaflowError):
    """What came in is at fault."""

    code = "invalid_input"

    def __init__(self, message: str | None = None, *, pointer: str = "") -> None:
        super().__init__(message)
        self.pointer = pointer


class LimitError(InputError):
    """It is larger than a limit allows."""

    code = "limit_exceeded"


class NotFoundError(PermaflowError):
    """There is no such thing."""

    code = "not_found"


class ForbiddenError(PermaflowError):
    """This person may not do that."""

    code = "forbidden"


class SecretHostError(ForbiddenError):
    """A secret may not be sent to this host."""

    code = "secret_host"


class StateError(PermaflowError):
    """This is not possible in the present state."""

    code = "wrong_state"


class StoreError(PermaflowError):
    """The database refused or failed."""

    code = "store"
    retryable = True


class StoreUnavailableError(StoreError):
    """The database cannot be reached."""

    code = "store_unavailable"


class ConflictError(StoreError):
    """Somebody else appended to this run first."""

    code = "conflict"


class BusError(PermaflowError):
    """The message bus refused or failed."""

    code = "bus"
    retryable = True


class BusUnavailableError(BusError):
    """The message bus cannot be reached."""

    code = "bus_unavailable"


class MessageTooLargeError(BusError):
    """A message is larger than the bus carries."""

    code = "message_too_large"
    retryable = False


class ConnectorError(PermaflowError):
    """An outside system refused or failed."""

    code = "connector"
    retryable = True


class UnreachableError(ConnectorError):
    """The outside system cannot be reached."""

    code = "connect"


class ConnectorTimeoutError(ConnectorError):
    """The outside system did not answer in time."""

    code = "timeout"


class BusyError(ConnectorError):
    """The outside system asks to come again later."""

    code = "busy"

    def __init__(self, message: str | None = None, *, after: timedelta | None = None) -> None:
        super().__init__(message)
        self.after = after


class BlockedAddressError(ConnectorError):
    """This address may not be reached from here."""

    code = "blocked_address"
    retryable = False


class UntrustedPeerError(ConnectorError):
    """The other side did not prove who it is."""

    code = "tls"
    retryable = False


class RedirectError(ConnectorError):
    """The redirects lead nowhere."""

    code = "redirects"
    retryable = False


class AnswerTooLargeError(ConnectorError):
    """The answer is larger than allowed."""

    code = "too_large"
    retryable = False


class RefusedError(ConnectorError):
    """The outside system's own rules forbid this."""

    code = "refused"
    retryable = False


class SnippetError(PermaflowError):
    """The code failed."""

    code = "snippet_failed"

    def __init__(
        self,
        message: str | None = None,
        *,
        name: str = "",
        line: int | None = None,
        column: int | None = None,
    ) -> None:
        super().__init__(message)
        self.name = name
        self.line = line
        self.column = column


class SnippetTimeoutError(SnippetError):
    """The code took too long."""

    code = "snippet_timeout"
    retryable = True


class SnippetLimitError(SnippetError):
    """The code needs more than it may have."""

    code = "snippet_limit"


class JailBreachError(SnippetError):
    """The code reached for what it must not have."""

    code = "jail_breach"


class JailError(PermaflowError):
    """The jail that code runs in failed."""

    code = "jail"
    retryable = True


class ContractError(PermaflowError):
    """A plug-in broke its promise."""

    code = "contract"
