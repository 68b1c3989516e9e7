"""What changes start: a request for each run, and a letter for each change that can start none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

import orjson

from permaflow.changes import DELETED, UNAVAILABLE, ChangeRecord, Rejected
from permaflow.errors import InputError, LimitError
from pipeline.ids import new_id
from pipeline.matching import ActiveTrigger, TriggerIndex
from pipeline.store.starts import StartRequest, run_key


class Wanted(NamedTuple):
    """What to store of a batch."""

    requests: Sequence[StartRequest]
    rejected: Sequence[Rejected]


def wanted(
    kind: str,
    records: Iterable[ChangeRecord | Rejected],
    index: TriggerIndex,
    max_bytes: int,
    faults: Mapping[str, str],
    endless: frozenset[str] = frozenset(),
) -> Wanted:
    """The runs that the records of a source start; what cannot be carried is rejected.

    `max_bytes` is the size of an input. `faults` says of events why the store refused them before.
    What the runs `endless` changed starts no further ones.
    """
    requests: list[StartRequest] = []
    rejected: list[Rejected] = []
    for record in records:
        if isinstance(record, Rejected):
            rejected.append(record)
            continue
        undecided: list[ActiveTrigger] = []
        matched = index.match(record, undecided)
        if undecided:
            rejected.append(Rejected(_as_bytes(record), _unknown(undecided), record.event_id))
        if not matched:
            continue
        try:
            if record.cause in endless:
                raise LimitError(_endless(record.cause))
            if (reason := faults.get(record.event_id)) is not None:
                raise InputError(reason)
            body = change_input(record, max_bytes)
        except InputError as error:
            rejected.append(Rejected(_as_bytes(record), str(error), record.event_id))
        else:
            requests.extend(_request(kind, record, body, active) for active in matched)
    return Wanted(requests, rejected)


def change_input(change: ChangeRecord, max_bytes: int) -> bytes:
    """What `{{trigger.…}}` is in a run that a change started, as JSON.

    Raises `LimitError` for more than `max_bytes`, `InputError` for what JSON cannot carry.
    """
    try:
        body = orjson.dumps(_described(change))
    except (TypeError, ValueError) as error:
        raise InputError(f"The record cannot be written as JSON: {error}.") from None
    if len(body) > max_bytes:
        raise LimitError(
            f"The change takes {len(body):,} bytes as the input of a run; at most {max_bytes:,} "
            "are allowed (PERMAFLOW_MAX_INPUT_BYTES)."
        )
    return body


def _unknown(undecided: Sequence[ActiveTrigger]) -> str:
    names = ", ".join(
        f"{active.trigger.node!r} of the workflow {active.workflow_id}" for active in undecided
    )
    return (
        f"Whether this fires {names} cannot be told: the source did not send what its conditions "
        'look at, and the trigger has `"on_unknown": "error"`. Let the source send whole rows (in '
        "PostgreSQL: REPLICA IDENTITY FULL)."
    )


def _endless(cause: str) -> str:
    return (
        f"The run {cause} made this change. It stands at the end of a chain of runs each of which "
        "was started by a change that the one before had made, and no chain is longer than "
        "PERMAFLOW_MAX_CHANGE_DEPTH. Give the trigger a condition that such a change does not pass."
    )


def _described(change: ChangeRecord) -> dict[str, object]:
    record = change.record
    if change.unavailable and change.event != DELETED:
        # A template that reads one of these is told so. Of a deleted row there is but its key.
        record = {**record, **dict.fromkeys(change.unavailable, UNAVAILABLE)}
    return {
        "event": change.event,
        "object": change.object,
        "namespace": change.namespace,
        "record": record,
        "before": change.before,
        "source": change.source,
        "at": change.at,
    }


def _as_bytes(change: ChangeRecord) -> bytes:
    """A change for whoever looks at it later: as JSON, or as Python shows it."""
    described = _described(change)
    try:
        return orjson.dumps(described)
    except (TypeError, ValueError):
        return repr(described).encode(errors="backslashreplace")


def _request(kind: str, change: ChangeRecord, body: bytes, active: ActiveTrigger) -> StartRequest:
    org, workflow_id = UUID(active.org), UUID(active.workflow_id)
    node = active.trigger.node
    return StartRequest(
        new_id(),
        org,
        workflow_id,
        kind,
        key=run_key(org, workflow_id, node, kind, change.event_id),
        input=body,
        trigger_node=node,
        resource_type=change.object,
        resource_id=change.key,
        requested_by=f"run:{change.cause}" if change.cause else "",
    )
