"""Inbox messages as events of runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from uuid import UUID

import msgspec

from pipeline import wire
from pipeline.bus.port import Message
from pipeline.core.events import (
    AttemptDone,
    AttemptFailed,
    AttemptParked,
    CancelAsked,
    Event,
    TimerFired,
    Woken,
)

MOST_EVENTS = 512
"""Events that are decided about in one transaction, if more have come. With many more the runners
have nothing to do meanwhile, and then the orchestrators while the runners have it all.
"""

_subject = attrgetter("subject")


class Mail:
    """What came for one run: its events, and whether what is outstanding must be sent again.

    `again` is set by a redelivered message: what followed from it may never have been published.
    `nudge` is above 0 when the reconciler asks for it, who saw `seq` rows; see `wire.Wake`. `known`
    is how many rows there are at least.
    `woken` is set when the run is to begin, if it has not. `weight` is the size of the large values
    that `refs` name, once they are loaded.
    """

    __slots__ = ("again", "events", "known", "messages", "nudge", "refs", "seq", "weight", "woken")

    def __init__(self) -> None:
        self.events: list[wire.Event] = []
        self.messages: list[Message] = []
        self.again = False
        self.woken = False
        self.nudge = 0
        self.seq = self.known = -1
        self.refs: list[UUID] = []
        self.weight = 0

    @property
    def is_new(self) -> bool:
        """Whether it tells of nothing but a run that was started just now, which has no journal."""
        return self.woken and len(self.events) == 1 and self.known < 0 and not self.again


def divide(messages: Sequence[Message], most: int = MOST_EVENTS) -> Iterator[Sequence[Message]]:
    """Portions of about `most` events, those of one partition together: what leaves together for
    a runner then comes back together.
    """
    if len(messages) == 1:
        yield messages
        return
    portion: list[Message] = []
    events = 0
    for message in sorted(messages, key=_subject):
        count = wire.count_events(message.data)
        if portion and events + count > most:
            yield portion
            portion, events = [], 0
        portion.append(message)
        events += count
    yield portion


def read(messages: Iterable[Message]) -> tuple[dict[UUID, Mail], list[Message]]:
    """Run → its mail, and the messages that cannot be read."""
    mails: dict[UUID, Mail] = {}
    unreadable: list[Message] = []
    for message in messages:
        try:
            events = wire.decode_inbox(message.data).events
        except msgspec.MsgspecError:
            unreadable.append(message)
            continue
        again = message.again
        for event in events:
            mail = mails.get(event.run_id)
            if mail is None:
                mail = mails[event.run_id] = Mail()
            mail.events.append(event)
            mail.messages.append(message)
            if again:
                mail.again = True
            match event:
                case wire.Wake(nudge=nudge, seq=seq):
                    mail.woken = True
                    mail.known = max(mail.known, seq)
                    if nudge > mail.nudge:
                        mail.nudge, mail.seq = nudge, seq
                case wire.StepDone(output_ref=UUID() as ref):
                    mail.refs.append(ref)
    return mails, unreadable


def to_core(events: Iterable[wire.Event], values: dict[UUID, object]) -> list[Event]:
    """The events as the core knows them, with the values that references stand for.

    A result whose value is gone, after a failover that lost it, is none: the step is still out.
    """
    return [
        _event(event, values)
        for event in events
        if not isinstance(event, wire.StepDone)
        or event.output_ref is None
        or event.output_ref in values
    ]


def _event(event: wire.Event, values: dict[UUID, object]) -> Event:
    match event:
        case wire.StepDone(output_ref=None):
            key = event.scope, event.node, event.attempt
            return AttemptDone(*key, event.output, event.port, None, event.log or ())
        case wire.StepDone(output_ref=UUID() as ref):
            value = values[ref]
            key = event.scope, event.node, event.attempt
            return AttemptDone(*key, value, event.port, str(ref), event.log or ())
        case wire.StepFailed():
            return AttemptFailed(
                event.scope,
                event.node,
                event.attempt,
                event.code,
                event.message,
                event.retryable,
                event.timed_out,
                event.after,
                event.details,
                event.log or (),
            )
        case wire.StepParked():
            return AttemptParked(event.scope, event.node, event.attempt, event.after, event.reason)
        case wire.TimerDue():
            return TimerFired(event.key)
        case wire.Cancel():
            return CancelAsked(event.by, event.reason, event.reopened)
        case wire.Wake():
            return Woken()
    raise AssertionError(event)
