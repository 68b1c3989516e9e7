"""Every stream, subject and channel of Permaflow, spelled once.

::

    PF_INBOX   pf.inbox.<partition>.<org>   starts, results, timers: read by orchestrators
    PF_STEPS   pf.step.<stage>.<org>        dispatches: read by runners
    PF_DONE    pf.done.<org>                finished runs: read by completion
    (core)     pf.live.<org>                doorbell: these runs advanced
    (core)     pf.notice.<org>             doorbell: these users have something to read
    (core)     pf.cancel                    doorbell: these steps need not go on
    (core)     pf.held                      doorbell: a worker elsewhere is at these steps
    (core)     pf.timer                     doorbell: a timer is due soon
    (core)     pf.workflows                 doorbell: the active triggers changed
    (core)     pf.watching                  doorbell: ingest watches what triggers name
    (core)     pf.waits                     doorbell: a run began to wait for a change
    (core)     pf.member.<vertex>           heartbeat of a process of that vertex
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from pipeline.bus.port import Channel

INBOX = "PF_INBOX"
STEPS = "PF_STEPS"
DONE = "PF_DONE"

STREAMS = {INBOX: "pf.inbox.>", STEPS: "pf.step.>", DONE: "pf.done.>"}
"""Stream → the subjects it owns. All are work queues on disk."""

PARTITIONS = 16
ACK_WAIT = timedelta(seconds=5)

CANCEL = "pf.cancel"
HELD = "pf.held"
TIMER = "pf.timer"
WORKFLOWS = "pf.workflows"
WATCHING = "pf.watching"
WAITS = "pf.waits"


_STAGE = "stage-"


def partition_of(run_id: UUID) -> int:
    """The inbox partition of a run: its last random bits, spread evenly."""
    return run_id.bytes[15] % PARTITIONS


def inbox(partition: int, org: str) -> str:
    return f"pf.inbox.{partition}.{org}"


def step(stage: str, org: str) -> str:
    return f"pf.step.{stage}.{org}"


def done(org: str) -> str:
    return f"pf.done.{org}"


def live(org: str) -> str:
    return f"pf.live.{org}"


def notice(org: str) -> str:
    return f"pf.notice.{org}"


def member(vertex: str) -> str:
    return f"pf.member.{vertex}"


def inbox_channel(partition: int) -> Channel:
    subject = f"pf.inbox.{partition}.*"
    return Channel(INBOX, f"inbox-{partition}", subject, ACK_WAIT, volatile=True)


def stage_of(channel: str) -> str | None:
    """The stage whose channel has this name."""
    return channel.removeprefix(_STAGE) if channel.startswith(_STAGE) else None


def step_channel(stage: str) -> Channel:
    return Channel(STEPS, _STAGE + stage, f"pf.step.{stage}.*", ACK_WAIT)


def done_channel() -> Channel:
    return Channel(DONE, "completion", "pf.done.*", ACK_WAIT, volatile=True)
