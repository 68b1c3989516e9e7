"""What follows from a batch of decisions: what is written at once, and what is sent after it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from uuid import UUID

import msgspec

from permaflow.plan import Json
from permaflow.task import TaskType
from pipeline import wire
from pipeline.core.effects import (
    Ask,
    ClearTimer,
    Decision,
    Dispatch,
    Effect,
    SetTimer,
    StopStep,
    Withdraw,
)
from pipeline.core.entries import Asked, Entry, LoopOpened, Succeeded, to_row
from pipeline.ids import new_id, question_id
from pipeline.live_runs import LiveRun, dehydrate
from pipeline.outbox import Item, Outbox
from pipeline.store.journal import Append
from pipeline.store.questions import CHILD
from pipeline.wire import encode as encode_wire

_HEAVY = frozenset({LoopOpened, Succeeded})
"""The entries that may hold a large value."""

_encode_row = msgspec.json.Encoder().encode


class Batch:
    """Collects decisions. `append` is written first; only then is the rest sent.

    `inline` and `max_dispatch` are sizes in bytes above which a value goes by reference.
    """

    def __init__(
        self,
        type_of: Callable[[str], TaskType],
        *,
        inline: int,
        max_dispatch: int,
    ) -> None:
        self._type_of = type_of
        self._inline = inline
        self._max_dispatch = max_dispatch
        self.append = Append()
        self.outbox = Outbox()
        self.runs: list[LiveRun] = []
        self.finished: dict[str, list[UUID]] = defaultdict(list)
        self.advanced: dict[str, list[tuple[UUID, int]]] = defaultdict(list)
        self.stopped: list[tuple[UUID, str, str, int]] = []
        self.soonest: float | None = None
        self.dispatched = 0
        self.entries = 0

    def add(self, live: LiveRun, decision: Decision) -> None:
        """Take in what was decided for a run, whose state is already that far.

        If it raises, nothing of the run is in the batch but values that nobody refers to.
        """
        run = live.run
        append = self.append
        dispatches = [
            self._dispatch(live, effect, 0)
            for effect in decision.effects
            if type(effect) is Dispatch
        ]
        asked = {
            effect[:3]: _name(run.id, effect) for effect in decision.effects if type(effect) is Ask
        }
        if decision.entries:
            row = [
                self._written(live, entry) if type(entry) in _HEAVY else entry
                for entry in decision.entries
            ]
            if asked:
                row = [_with_run(entry, asked) for entry in row]
            encoded = _encode_row(to_row(row)).decode()
            error = _encode_row(run.error).decode() if run.error is not None else None
            live.weight += len(encoded)
            run.seq += 1
            self.runs.append(live)
            append.runs.append(run.id)
            append.seqs.append(run.seq)
            append.orgs.append(live.org)
            append.entries.append(encoded)
            self.entries += len(row)
            self.advanced[live.org_hex].append((run.id, run.seq))
            if run.status != live.status:
                self._status(live, error)
        self._send(live, decision.effects, dispatches, asked)
        if run.paused and any(type(effect) is SetTimer for effect in decision.effects):
            append.held.append(run.id)

    def send_again(self, live: LiveRun, effects: list[Dispatch], nudge: int) -> None:
        """Take in dispatches that are out already; `nudge` as in `wire.Dispatch`."""
        self._send(live, [], [self._dispatch(live, effect, nudge) for effect in effects], {})

    def _send(
        self,
        live: LiveRun,
        effects: list[Effect],
        dispatches: list[Item],
        asked: Mapping[tuple[str, str, int], UUID],
    ) -> None:
        run_id = live.run.id
        append = self.append
        for dispatch in dispatches:
            self.outbox.add(dispatch)
        self.dispatched += len(dispatches)
        for effect in effects:
            if type(effect) is Dispatch:
                continue
            match effect:
                case SetTimer(key=key, delay=delay, until=until):
                    append.timers.append((run_id, key, live.org, delay, until))
                    # Of a moment only the database knows how far away it is: look at once.
                    delay = delay or 0.0
                    if self.soonest is None or delay < self.soonest:
                        self.soonest = delay
                case ClearTimer(key=key):
                    append.cleared.append((run_id, key))
                case Ask():
                    config = _encode_row(effect.config).decode()
                    append.asked.append(
                        (asked[effect[:3]], run_id, *effect[:3], live.org, config, effect.kind)
                    )
                    self._due(effect.config)
                case Withdraw():
                    append.withdrawn.append((run_id, *effect[:3], effect.answered, effect.kind))
                case StopStep(scope=scope, node=node, attempt=attempt):
                    self.stopped.append((run_id, scope, node, attempt))

    def _due(self, config: Json) -> None:
        """The config of a question may say in how many seconds there is something to be done."""
        due = config.get("due") if type(config) is dict else None
        if due is not None and (self.soonest is None or due < self.soonest):
            self.soonest = due

    def _status(self, live: LiveRun, error: str | None) -> None:
        run = live.run
        if run.finished:
            self.append.finished.append((run.id, run.status, error))
            self.finished[live.org_hex].append(run.id)
        else:
            self.append.statuses.append((run.id, run.status))

    def _written(self, live: LiveRun, entry: Entry) -> Entry:
        if isinstance(entry, LoopOpened) and entry.ref is None:
            body = _encode_row(entry.items)
            if len(body) > self._inline:
                ref = new_id()
                self.append.payloads.append((ref, live.org, live.run.id, body))
                live.weight += len(body)
                entry = entry._replace(ref=str(ref), size=len(entry.items))
        return dehydrate(entry)

    def _dispatch(self, live: LiveRun, effect: Dispatch, nudge: int) -> Item:
        task_type = self._type_of(effect.type)
        timeout = effect.timeout
        if timeout is None:
            timeout = task_type.timeout.total_seconds()
        config = encode_wire(effect.config)
        ref: UUID | None = None
        if len(config) > self._max_dispatch:
            ref = new_id()
            self.append.payloads.append((ref, live.org, live.run.id, _encode_row(effect.config)))
            config = b"\xc0"
        step = wire.Dispatch(
            live.run.id,
            effect.scope,
            effect.node,
            effect.attempt,
            effect.type,
            msgspec.Raw(config),
            timeout,
            ref,
            nudge,
            effect.visit,
            effect.once,
        )
        return Item(effect.stage, live.org_hex, task_type.batch, step, len(config))


def _name(run_id: UUID, effect: Ask) -> UUID:
    """The id of a question. That of a child is new: it is the id of a run that begins now."""
    return new_id() if effect.kind == CHILD else question_id(run_id, *effect[:3])


def _with_run(entry: Entry, asked: Mapping[tuple[str, str, int], UUID]) -> Entry:
    """A child has the id of the question that it was started for; the journal names it."""
    if type(entry) is Asked and entry.kind == CHILD and (run_id := asked.get(entry[:3])):
        return entry._replace(run=str(run_id))
    return entry
