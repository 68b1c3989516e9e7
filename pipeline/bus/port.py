"""The bus as the vertices see it: it carries, and decides nothing.

Rules of this port:

* A published message is delivered at least once, in no promised order, or (after a disaster) not
  at all. Whoever needs more asks the store.
* `send` does not wait; whoever sent must await the receipt before acking what caused the message.
* An ack says: every consequence of this message is committed and published.
* Errors are `BusError`s; the driver's own exceptions do not cross this port.
"""

from __future__ import annotations

from asyncio import Future
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Channel:
    """A work queue for one kind of reader: messages of `stream` on `subject`, read as `name`.

    All readers of the same name share the messages. `ack_wait` is how long a message may stay
    neither acked nor held before somebody else gets it. Who has what of a `volatile` channel the
    server forgets when it ends: what was not acked is then delivered at once.
    """

    stream: str
    name: str
    subject: str
    ack_wait: timedelta = timedelta(seconds=5)
    max_ack_pending: int = 20_000
    volatile: bool = False


class Message(Protocol):
    """One delivery of one message."""

    @property
    def subject(self) -> str: ...
    @property
    def data(self) -> bytes: ...
    @property
    def deliveries(self) -> int:
        """1 for the first delivery that the server knows of."""
        ...

    @property
    def again(self) -> bool:
        """Whether somebody may have had it before, even if the server has forgotten that."""
        ...

    def ack(self) -> None:
        """Done for good. Does not wait for the server."""
        ...

    def nak(self, delay: timedelta) -> None:
        """Deliver again, not before `delay`."""
        ...

    def term(self) -> None:
        """Never deliver again: it cannot be read."""
        ...

    def hold(self) -> None:
        """Still at work: start `ack_wait` anew. Safe to call from another thread."""
        ...

    def keep(self) -> None:
        """Hold from now on until acked, nak'd or termed, even while the event loop is blocked."""
        ...


DeadLetter = Callable[[str, Message], object]
"""Puts a message aside that cannot be read, `(source, message)`: stores it, and then terms it. Does
not wait.
"""


class Subscription(Protocol):
    """A reader of one or more channels. At most `credit` messages are out at a time."""

    async def batch(self) -> list[Message]:
        """Wait for messages and return all that have arrived. Empty once the reader is closed."""
        ...

    def release(self, count: int = 1) -> None:
        """Give back the credits of messages that are finished, so that more are pulled."""
        ...

    async def add(self, *channels: Channel) -> None:
        """Read these channels too, making those that do not exist."""
        ...

    async def remove(self, channel: Channel) -> None:
        """Read this channel no more. Its messages already handed out may still be acked."""
        ...

    async def close(self) -> None:
        """Stop pulling. Messages already handed out may still be acked."""
        ...


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits in a channel: not yet delivered, and delivered but not acked."""

    pending: int
    in_flight: int
    paused: bool = False


class Bus(Protocol):
    """Queues that survive the death of their readers, and doorbells that do not."""

    def send(self, subject: str, data: bytes, key: str | None = None) -> Future[None]:
        """Put a message into the stream that owns `subject`; the future is the stream's receipt.

        `key` de-duplicates within two minutes. The future fails with `BusError` when no receipt
        came in time. `MessageTooLargeError` is raised at once.
        """
        ...

    async def subscribe(self, channel: Channel, credit: int) -> Subscription:
        """Read a channel, making it if it does not exist.

        Credits given back by `release` are what is pulled next: a reader never holds more than
        `credit` unfinished messages.
        """
        ...

    async def subscribe_many(self, channels: Iterable[Channel], credit: int) -> Subscription:
        """Read several channels into one batch; they share the credit equally.

        The set may be empty, and changes with `add` and `remove`.
        """
        ...

    def ring(self, subject: str, data: bytes = b"") -> None:
        """A doorbell: reaches who listens now, is kept for nobody, fails silently when cut off."""
        ...

    async def listen(
        self, subject: str, answer: Callable[[str, bytes], Awaitable[None] | None]
    ) -> Callable[[], Awaitable[None]]:
        """Call `answer(subject, data)` for every ring; returns the coroutine that stops it."""
        ...

    async def backlog(self, channel: Channel) -> Backlog:
        """How much waits in a channel."""
        ...

    async def channels(self, stream: str) -> list[str]:
        """The names of the channels that a stream has by now."""
        ...

    async def pause(self, channel: Channel, until: timedelta | None) -> None:
        """Deliver nothing from this channel for so long; None resumes it."""
        ...

    @property
    def connected(self) -> bool: ...

    async def close(self) -> None:
        """Drain: publish what was sent, then disconnect."""
        ...
