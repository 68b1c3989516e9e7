"""What travels over the bus, versioned: msgspec structs as MessagePack arrays.

A message is one struct of the union it is read as; fields are only ever added at the end, with a
default, so that a process of the version before reads the messages of this one.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import msgspec

VERSION = 1


class Dispatch(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Do this attempt of this step. `config` is rendered; `config_ref` names it when it is large.

    `timeout` is in seconds. `nudge` is above 0 when it was published again on purpose. `visit`
    counts how often a goto has opened the node again. `once`: the attempt is claimed before it
    begins, and what another runner has claimed is not begun.
    """

    run_id: UUID
    scope: str
    node: str
    attempt: int
    type: str
    config: Any
    timeout: float
    config_ref: UUID | None = None
    nudge: int = 0
    visit: int = 0
    once: bool = False


class Dispatches(msgspec.Struct, array_like=True, frozen=True, tag="d"):
    """Steps of one stage and one organisation that became ready together.

    `lost` counts the workers that had these steps and did not come back, `passed` those that passed
    them on because they do not serve them: what is published anew keeps them, and the deliveries of
    its own message add to the first.
    """

    org: str
    steps: list[Dispatch]
    v: int = VERSION
    lost: int = 0
    passed: int = 0


class StepDone(msgspec.Struct, array_like=True, frozen=True, tag="D", gc=False):
    """An attempt succeeded. `output_ref` names the output when it is large; `log` is what the task
    wrote, if anything.
    """

    run_id: UUID
    scope: str
    node: str
    attempt: int
    output: Any = None
    port: str | None = None
    output_ref: UUID | None = None
    log: list[str] | None = None


class StepFailed(msgspec.Struct, array_like=True, frozen=True, tag="F", gc=False):
    """An attempt failed. `after` is the least wait in seconds that the other side asked for."""

    run_id: UUID
    scope: str
    node: str
    attempt: int
    code: str
    message: str
    retryable: bool
    timed_out: bool = False
    after: float | None = None
    details: Any = None
    log: list[str] | None = None


class StepParked(msgspec.Struct, array_like=True, frozen=True, tag="P", gc=False):
    """Not now: the same attempt again after so many seconds."""

    run_id: UUID
    scope: str
    node: str
    attempt: int
    after: float
    reason: str = ""


class Wake(msgspec.Struct, array_like=True, frozen=True, tag="W", gc=False):
    """Look at this run: it was started, or it has been silent for too long.

    `nudge` is above 0 when outstanding dispatches are to be published again; it makes their keys
    new, so that de-duplication does not swallow them. `seq` is the last row of the journal that the
    sender saw or wrote, -1 if it knows of none: a run that has gone on since needs no nudge, and a
    state with fewer rows is forgotten.
    """

    run_id: UUID
    nudge: int = 0
    seq: int = -1


class TimerDue(msgspec.Struct, array_like=True, frozen=True, tag="T", gc=False):
    """A timer of the run is due; `key` names it."""

    run_id: UUID
    key: str


class Cancel(msgspec.Struct, array_like=True, frozen=True, tag="C", gc=False):
    """Somebody wants this run to end, which had been reopened so often when they asked."""

    run_id: UUID
    by: str = ""
    reason: str = ""
    reopened: int = 0


Event = StepDone | StepFailed | StepParked | Wake | TimerDue | Cancel


class Inbox(msgspec.Struct, array_like=True, frozen=True, tag="i"):
    """Events of runs of one partition, which became ready together."""

    events: list[Event]
    v: int = VERSION


class Finished(msgspec.Struct, array_like=True, frozen=True, tag="f"):
    """These runs ended."""

    org: str
    run_ids: list[UUID]
    v: int = VERSION


class Live(msgspec.Struct, array_like=True, frozen=True, tag="l"):
    """These runs advanced to these sequence numbers."""

    runs: list[tuple[UUID, int]]


class Noticed(msgspec.Struct, array_like=True, frozen=True, tag="n"):
    """These users of an organisation have a new notification."""

    users: list[str]


class Stopped(msgspec.Struct, array_like=True, frozen=True, tag="x"):
    """The results of these attempts are no longer wanted: (run, scope, node, attempt)."""

    steps: list[tuple[UUID, str, str, int]]


def plain(value: object) -> str | int:
    """A text or a whole number of a class of its own, as many libraries make them, as what it is.

    For encoders, which know only the classes that JSON has. Raises `TypeError` for anything else.
    """
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int.__int__(value)
    raise TypeError(f"A {type(value).__name__} cannot be carried.")


class Held(msgspec.Struct, array_like=True, frozen=True, tag="h"):
    """A worker that cannot reach the store is at these attempts, and through with those.

    `held` is (run, scope, node, attempt, seconds until its timeout), said anew every five seconds
    for what takes longer than three; `released` is (run, scope, node, attempt).
    """

    holder: str
    org: UUID
    held: list[tuple[UUID, str, str, int, float]]
    released: list[tuple[UUID, str, str, int]] = []


encode = msgspec.msgpack.Encoder(enc_hook=plain).encode
decode_dispatches = msgspec.msgpack.Decoder(Dispatches).decode
decode_inbox = msgspec.msgpack.Decoder(Inbox).decode
decode_finished = msgspec.msgpack.Decoder(Finished).decode
decode_noticed = msgspec.msgpack.Decoder(Noticed).decode
decode_live = msgspec.msgpack.Decoder(Live).decode
decode_stopped = msgspec.msgpack.Decoder(Stopped).decode
decode_held = msgspec.msgpack.Decoder(Held).decode


def count_events(data: bytes) -> int:
    """How many events an inbox message holds, by its head alone: MessagePack's array of them comes
    after the array of the struct and its tag. Says some number of any bytes.
    """
    head = data[3] if len(data) > 3 else 0
    if head == 0xDC:
        return int.from_bytes(data[4:6], "big")
    return int.from_bytes(data[4:8], "big") if head == 0xDD else head & 0x0F
