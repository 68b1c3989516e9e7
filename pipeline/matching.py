"""Which triggers a change fires: an index over all active record triggers.

A trigger fires if all its conditions hold, so it is enough to look at it when one chosen condition
may hold. That one is kept where a change finds it without being compared with the others: `eq` and
`in` in a dictionary of values, `gt`, `gte`, `lt` and `lte` in a sorted list of thresholds. Whatever
the index finds is then tested in full, so the index may find too much and never too little.

A condition is unknown if the source left the field's value out. Then `on_unknown` of the trigger
decides: `skip` (the default), `fire`, or `error`.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from permaflow.changes import EVENTS, UNAVAILABLE, ChangeRecord
from permaflow.plan import MISSING, Condition, Json, TriggerSpec
from specs.conditions import Test, compile_tests
from specs.paths import walk

_NUMBERS = frozenset({int, float})
_PLAIN = frozenset({int, float, bool, str, type(None)})
_ABOVE = frozenset({"gt", "gte"})
_BELOW = frozenset({"lt", "lte"})
_LIKE_A_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_SNAPSHOT = (True, "trigger")


@dataclass(frozen=True, slots=True)
class ActiveTrigger:
    """A trigger of an active workflow. Changes from before `since` (milliseconds) are not its."""

    org: str
    workflow_id: str
    version_id: str
    trigger: TriggerSpec
    since: int = 0


class TriggerIndex:
    """All active record triggers; triggers of other kinds are passed over."""

    def __init__(self, triggers: Iterable[ActiveTrigger] = ()) -> None:
        self._groups: dict[tuple[str, str], _Group] = {}
        self._undo: dict[str, list[Callable[[], None]]] = {}
        self._active: dict[str, list[ActiveTrigger]] = {}
        self._order = 0
        for trigger in triggers:
            self.add(trigger)

    def __len__(self) -> int:
        """How many workflows have a record trigger here."""
        return len(self._undo)

    def objects(self) -> frozenset[str]:
        """The objects that triggers name, as written."""
        return frozenset(a.trigger.object for here in self._active.values() for a in here)

    def add(self, active: ActiveTrigger) -> None:
        """A workflow may have several; to replace them, `remove` the workflow first."""
        spec = active.trigger
        if spec.kind != "record":
            return
        self._order += 1
        entry = _Entry(active, self._order)
        undo = self._undo.setdefault(active.workflow_id, [])
        self._active.setdefault(active.workflow_id, []).append(active)
        # A change that belongs to no organisation is there for all of them.
        for org in {active.org, ""}:
            key = (org, spec.object)
            group = self._groups.get(key)
            if group is None:
                group = self._groups[key] = _Group()
            undo.extend(group.add(entry))
            undo.append(partial(self._drop_if_empty, key))

    def remove(self, workflow_id: str) -> None:
        """Take out all triggers of a workflow; one that has none is fine."""
        self._active.pop(workflow_id, None)
        for undo in self._undo.pop(workflow_id, ()):
            undo()

    def replace(self, triggers: Iterable[ActiveTrigger]) -> None:
        """Make these the triggers; costs little where they are those that are here already."""
        wanted: dict[str, list[ActiveTrigger]] = {}
        for active in triggers:
            if active.trigger.kind == "record":
                wanted.setdefault(active.workflow_id, []).append(active)
        for workflow_id in self._active.keys() - wanted.keys():
            self.remove(workflow_id)
        for workflow_id, actives in wanted.items():
            here = self._active.get(workflow_id)
            if here is None or not _same(here, actives):
                self.remove(workflow_id)
                for active in actives:
                    self.add(active)

    def match(
        self, change: ChangeRecord, undecided: list[ActiveTrigger] | None = None
    ) -> list[ActiveTrigger]:
        """The triggers that this change fires, in the order in which they were added.

        Those with `on_unknown: error` whose conditions cannot be told go to `undecided`.
        """
        org, name = change.org, change.object
        fired: list[_Entry] = []
        for spelled in (name, f"{change.namespace}.{name}") if change.namespace else (name,):
            group = self._groups.get((org, spelled))
            if group is None:
                continue
            for entry in group.candidates(change):
                if entry.refuses(change):
                    continue
                passed = entry.test(change)
                if passed or (passed is None and entry.on_unknown == "fire"):
                    fired.append(entry)
                elif passed is None and entry.on_unknown == "error" and undecided is not None:
                    undecided.append(entry.active)
        if len(fired) > 1:
            fired.sort(key=_order)
        return [entry.active for entry in fired]

    def _drop_if_empty(self, key: tuple[str, str]) -> None:
        group = self._groups.get(key)
        if group is not None and group.size == 0:
            del self._groups[key]


def _same(here: list[ActiveTrigger], wanted: list[ActiveTrigger]) -> bool:
    """A version never changes, so its triggers need not be compared."""
    return [(a.org, a.version_id, a.trigger.node, a.since) for a in here] == [
        (a.org, a.version_id, a.trigger.node, a.since) for a in wanted
    ]


class _Entry:
    __slots__ = (
        "active",
        "events",
        "namespace",
        "on_unknown",
        "order",
        "since",
        "snapshot",
        "source",
        "test",
    )

    def __init__(self, active: ActiveTrigger, order: int) -> None:
        settings = active.trigger.settings
        self.active = active
        self.order = order
        self.events = active.trigger.events or EVENTS
        self.since = active.since
        self.test: Test = compile_tests(active.trigger.conditions)
        self.on_unknown = settings.get("on_unknown", "skip")
        self.snapshot = settings.get("snapshot") in _SNAPSHOT
        self.source = settings.get("source")
        self.namespace = settings.get("namespace")

    def refuses(self, change: ChangeRecord) -> bool:
        """Whether something other than the conditions keeps this trigger from firing."""
        return (
            change.event not in self.events
            or (change.snapshot and not self.snapshot)
            or (0 < change.at < self.since)
            or (self.source is not None and self.source != change.source)
            or (self.namespace is not None and self.namespace != change.namespace)
        )


def _order(entry: _Entry) -> int:
    return entry.order


@dataclass(slots=True)
class _Thresholds:
    """Entries by threshold, ascending."""

    keys: list[Json] = field(default_factory=list)
    entries: list[_Entry] = field(default_factory=list)

    def add(self, key: Json, entry: _Entry) -> Callable[[], None]:
        place = bisect_right(self.keys, key)
        self.keys.insert(place, key)
        self.entries.insert(place, entry)
        return partial(self._remove, key, entry)

    def _remove(self, key: Json, entry: _Entry) -> None:
        place = self.entries.index(entry, bisect_left(self.keys, key))
        del self.keys[place], self.entries[place]


class _Field:
    """What triggers want of one field."""

    __slots__ = ("above", "below", "equal", "path", "text_above", "text_below", "unknown")

    def __init__(self, path: tuple[str, ...]) -> None:
        self.path = path
        self.equal: dict[Json, list[_Entry]] = {}
        self.above, self.below = _Thresholds(), _Thresholds()
        self.text_above, self.text_below = _Thresholds(), _Thresholds()
        self.unknown: list[_Entry] = []

    def find(self, change: ChangeRecord, found: list[_Entry]) -> None:
        path = self.path
        value = change.record.get(path[0], MISSING) if len(path) == 1 else walk(change.record, path)
        kind = type(value)
        if self.unknown and (path[0] in change.unavailable or value == UNAVAILABLE):
            found += self.unknown
            return
        if value is MISSING:
            value, kind = None, type(None)
        if kind not in _PLAIN:
            return
        if self.equal and (entries := self.equal.get(value)) is not None:
            found += entries
        if kind in _NUMBERS:
            above, below = self.above, self.below
        elif kind is str:
            above, below = self.text_above, self.text_below
        else:
            return
        if above.keys:
            found += above.entries[: bisect_right(above.keys, value)]
        if below.keys:
            found += below.entries[bisect_left(below.keys, value) :]


class _Group:
    """The triggers of one object, for one organisation or for all."""

    __slots__ = ("fields", "rest", "size")

    def __init__(self) -> None:
        self.fields: dict[tuple[str, ...], _Field] = {}
        self.rest: list[_Entry] = []
        self.size = 0

    def candidates(self, change: ChangeRecord) -> list[_Entry]:
        found = list(self.rest)
        for each in self.fields.values():
            each.find(change, found)
        return found

    def add(self, entry: _Entry) -> Sequence[Callable[[], None]]:
        """Gives what undoes it."""
        self.size += 1
        return (*self._place(entry), self._shrink)

    def _shrink(self) -> None:
        self.size -= 1

    def _place(self, entry: _Entry) -> Sequence[Callable[[], None]]:
        chosen = self._choose(entry)
        if chosen is None:
            self.rest.append(entry)
            return (partial(self.rest.remove, entry),)
        at = self.fields.get(chosen.field)
        if at is None:
            at = self.fields[chosen.field] = _Field(chosen.field)
        undo: list[Callable[[], None]] = []
        for value in _values(chosen) or ():
            bucket = at.equal.setdefault(value, [])
            if entry not in bucket[-1:]:
                bucket.append(entry)
                undo.append(partial(_take, at.equal, value, entry))
        if chosen.op in _ABOVE:
            text = type(chosen.value) is str
            undo.append((at.text_above if text else at.above).add(chosen.value, entry))
        elif chosen.op in _BELOW:
            text = type(chosen.value) is str
            undo.append((at.text_below if text else at.below).add(chosen.value, entry))
        if entry.on_unknown != "skip":
            at.unknown.append(entry)
            undo.append(partial(at.unknown.remove, entry))
        return undo

    def _choose(self, entry: _Entry) -> Condition | None:
        """The condition that the fewest changes are likely to pass, of those with an index."""
        best: tuple[int, int] | None = None
        chosen: Condition | None = None
        for condition in entry.active.trigger.conditions:
            if condition.field[0] == "before" and len(condition.field) > 1:
                continue
            if condition.op == "changed_to" and entry.on_unknown != "skip":
                continue  # Unknown also where only the state before is missing.
            values = _values(condition)
            if values is not None:
                at = self.fields.get(condition.field)
                busy = sum(len(at.equal.get(v, ())) for v in values) if at is not None else 0
                cost = (0, busy)
            elif condition.op in _ABOVE | _BELOW and _comparable(condition.value):
                cost = (1, 0)
            else:
                continue
            if best is None or cost < best:
                best, chosen = cost, condition
        return chosen


def _values(condition: Condition) -> list[Json] | None:
    """The only values that can pass, if they can be looked up."""
    match condition.op:
        case "eq" | "changed_to":
            values = [condition.value]
        case "in" if type(condition.value) is list:
            values = condition.value
        case _:
            return None
    return values if all(_hashed(value) for value in values) else None


def _hashed(value: Json) -> bool:
    return type(value) in _PLAIN and not _is_time(value)


def _comparable(value: Json) -> bool:
    return type(value) in _NUMBERS or (type(value) is str and not _is_time(value))


def _is_time(value: Json) -> bool:
    """Times compare as instants, however they are written: no dictionary finds them."""
    return type(value) is str and _LIKE_A_DATE.match(value) is not None


def _take(buckets: dict[Json, list[_Entry]], value: Json, entry: _Entry) -> None:
    bucket = buckets[value]
    bucket.remove(entry)
    if not bucket:
        del buckets[value]
