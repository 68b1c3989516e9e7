"""What changes start: a request for each run, and a letter for each change that can start none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple
from uuid import UUID

import orjson

from permaflow.changes import ChangeRecord, Rejected
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
) -> Wanted:
    """The runs that the records of a source start; what cannot be carried is rejected.

    `max_bytes` is the size of an input. `faults` says of events why the store refused them before.
    """
    requests: list[StartRequest] = []
    rejected: list[Rejected] = []
    for record in records:
        if isinstance(record, Rejected):
            rejected.append(record)
            continue
        matched = index.match(record)
        if not matched:
            continue
        try:
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


def _described(change: ChangeRecord) -> dict[str, object]:
    return {
        "event": change.event,
        "object": change.object,
        "namespace": change.namespace,
        "record": change.record,
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
    )
