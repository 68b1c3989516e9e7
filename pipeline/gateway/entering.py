"""Which trigger of a version an event comes in through, or why through none.

A change of a record is matched as ingest matches it; a webhook needs its trigger and a body that
fits; a start by hand needs an input that fits. What is not recorded cannot be looked at: the
signature of a webhook, whether a row was read by a snapshot, and the fields that a source did not
send of a deleted row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import orjson

from permaflow.changes import DELETED, EVENTS, UNAVAILABLE, ChangeRecord
from permaflow.plan import Condition, Json, TriggerSpec
from pipeline.gateway.input_schemas import compile_schema, misfits
from pipeline.gateway.run_starts import SOURCE as BY_HAND
from pipeline.matching import ActiveTrigger, TriggerIndex
from specs.conditions import compile_test

WEBHOOK = "webhook"
MOST_TOLD = 3
"""Triggers and reasons that a sentence names."""

LONGEST_VALUE = 60


@dataclass(frozen=True, slots=True)
class Entry:
    """Whether an event starts a run: through this trigger, or why not. Of a change that fires
    several triggers, `fired` names all."""

    trigger: str = ""
    why_not: str = ""
    fired: frozenset[str] = frozenset()


class Triggers:
    """The triggers of one version."""

    def __init__(self, specs: Sequence[TriggerSpec]) -> None:
        self._specs = specs
        self._index = TriggerIndex(ActiveTrigger("", "", "", spec) for spec in specs)

    def enter(
        self, source: str, node: str, data: Json, taken: Collection[str] = frozenset()
    ) -> Entry:
        """How an event gets in that came from `source` through the trigger `node`.

        It may come in through another trigger than that, but not through those in `taken`: what
        came in there is an event of its own.
        """
        if source == BY_HAND:
            return self._by_hand(data)
        if source == WEBHOOK:
            return self._by_request(node, data)
        change = _change_of(data)
        if change is not None:
            return self._by_change(node, change, taken)
        if any(spec.node == node for spec in self._specs):
            return Entry(node)
        return Entry(why_not=f"There is no trigger `{node}`.")

    def _by_hand(self, data: Json) -> Entry:
        """See `entrances.Entrance`: any workflow can be started by hand."""
        chosen = next((spec for spec in self._specs if spec.kind == "manual"), None)
        if chosen is None:
            return Entry(self._specs[0].node if self._specs else "")
        return _fitting(chosen, data, "input")

    def _by_request(self, node: str, data: Json) -> Entry:
        for spec in self._specs:
            if spec.kind == WEBHOOK and spec.node == node:
                return _fitting(spec, data.get("body") if isinstance(data, dict) else data, "body")
        return Entry(why_not=f"There is no webhook trigger `{node}`, so its address leads nowhere.")

    def _by_change(self, node: str, change: ChangeRecord, taken: Collection[str]) -> Entry:
        change = self._as_known(change)
        fired = [active.trigger.node for active in self._index.match(change)]
        if node in fired:
            return Entry(node, fired=frozenset(fired))
        for other in fired:
            if other not in taken:
                return Entry(other, fired=frozenset(fired))
        if fired:
            why = f"`{node}` does not fire; `{fired[0]}` does, which starts a run of its own."
            return Entry(why_not=why, fired=frozenset(fired))
        return Entry(why_not=self._why_not(change))

    def _as_known(self, change: ChangeRecord) -> ChangeRecord:
        """Of a deleted row a source may send only the key: what is not there is not known."""
        if change.event != DELETED:
            return change
        looked_at = {
            condition.field[0]
            for spec in self._specs
            for condition in spec.conditions
            if condition.field[0] != "before"
        }
        return ChangeRecord(
            change.source,
            change.event_id,
            change.object,
            change.event,
            change.record,
            change.before,
            change.namespace,
            at=change.at,
            unavailable=change.unavailable | (looked_at - change.record.keys()),
        )

    def _why_not(self, change: ChangeRecord) -> str:
        told = [
            f"`{spec.node}` {_obstacle(spec, change)}"
            for spec in self._specs
            if spec.kind == "record"
        ]
        if not told:
            return "There is no trigger for changes of records."
        more = f"; and {len(told) - MOST_TOLD} more do not fire" if len(told) > MOST_TOLD else ""
        return f"No trigger fires: {'; '.join(told[:MOST_TOLD])}{more}."


def _fitting(spec: TriggerSpec, value: Json, called: str) -> Entry:
    schema = compile_schema(spec.settings.get("input_schema"))
    found = misfits(schema, value, "") if schema is not None else ()
    if not found:
        return Entry(spec.node)
    told = "; ".join(
        f"{each.pointer + ': ' if each.pointer else ''}{each.message.removesuffix('.')}"
        for each in found[:MOST_TOLD]
    )
    return Entry(why_not=f"The {called} does not fit the `input_schema` of `{spec.node}`: {told}.")


def _change_of(data: Json) -> ChangeRecord | None:
    """The change that a run was started with; see `change_starts.change_input`."""
    match data:
        case {"event": str(event), "object": str(name), "record": dict(record)} if event in EVENTS:
            before, at = data.get("before"), data.get("at")
            return ChangeRecord(
                source=_text(data.get("source")),
                event_id="",
                object=name,
                event=event,
                record=record,
                before=before if isinstance(before, dict) else None,
                namespace=_text(data.get("namespace")),
                at=at if isinstance(at, int) else 0,
                unavailable=frozenset(key for key, value in record.items() if value == UNAVAILABLE),
            )
    return None


def _text(value: Json) -> str:
    return value if isinstance(value, str) else ""


def _obstacle(spec: TriggerSpec, change: ChangeRecord) -> str:
    """What keeps a record trigger from firing; follows its name in a sentence."""
    if spec.object not in (change.object, f"{change.namespace}.{change.object}"):
        return f"is for `{spec.object}`, not for `{change.object}`"
    if spec.events and change.event not in spec.events:
        return f"is for {', '.join(sorted(spec.events))}, not for {change.event}"
    for name, value in (("source", change.source), ("namespace", change.namespace)):
        wanted = spec.settings.get(name)
        if wanted is not None and wanted != value:
            return f"is for the {name} `{wanted}`, not for `{value}`"
    unknown = ""
    for condition in spec.conditions:
        passed = compile_test(condition)(change)
        if passed is False:
            return f"wants {_said(condition)}"
        if passed is None:
            unknown = unknown or _said(condition)
    return f"wants {unknown}, which cannot be told: the source did not send it"


def _said(condition: Condition) -> str:
    name = f"{'.'.join(condition.field)} {condition.op}"
    if condition.value is None:
        return f"`{name}`"
    value = orjson.dumps(condition.value).decode()
    short = value if len(value) <= LONGEST_VALUE else f"{value[: LONGEST_VALUE - 1]}…"
    return f"`{name} {short}`"
