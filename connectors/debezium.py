"""Debezium's messages as change records.

Understood: the JSON envelope with and without its schema, the flattened form
(`ExtractNewRecordState`) and structured CloudEvents. Not understood, and said so: Avro. Formats:
https://debezium.io/documentation/reference/stable/connectors/postgresql.html#postgresql-events

Event ids are those of connectors/identity.py.

An UPDATE of a primary key comes as a deletion and a creation, as Debezium tells it. The flattened
form tells creation from update only with `add.fields=op`; without, a change counts as an update.
Without a schema, values are taken as they come: set `decimal.handling.mode` to `string` or `double`
and `time.precision.mode` to `isostring`, or conditions meet base64 and days since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import orjson

from connectors import connect_schema, identity, lossless
from connectors.placeholder import Placeholder
from permaflow.changes import CREATED, DELETED, UPDATED, ChangeRecord, Rejected
from permaflow.plan import Json

_EVENTS = {"c": CREATED, "u": UPDATED, "d": DELETED, "r": CREATED}
_NO_CHANGES = {"t": "truncate", "m": "message"}
_NOTHING: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Ignored:
    """A message that tells of no change of a record; `reason` is a label for a metric."""

    reason: str


@dataclass(slots=True)
class Message:
    """Where a message stood, and what it held."""

    key: bytes | None
    value: bytes
    topic: str
    partition: int
    offset: int

    @property
    def position(self) -> str:
        return f"{self.topic}:{self.partition}:{self.offset}"


@dataclass(slots=True)
class Debezium:
    """Decodes messages. Keeps what it learnt of schemas, so use one for all messages of a source.

    `source` names the source in the change records; `org` is the only organisation whose triggers
    hear of them, if given. `placeholder` stands for values that the connector did not send.
    """

    source: str = "debezium"
    org: str = ""
    placeholder: Placeholder = field(default_factory=Placeholder)
    _schemas: dict[str, _Known] = field(init=False, default_factory=dict)

    def decode(
        self,
        key: bytes | None,
        value: bytes | None,
        topic: str = "",
        partition: int = 0,
        offset: int = 0,
    ) -> ChangeRecord | Rejected | Ignored:
        """One message. Never raises for what the message holds."""
        if not value:
            return Ignored("tombstone")
        message = Message(key, value, topic, partition, offset)
        try:
            return self._decode(message)
        except (ValueError, TypeError, AttributeError) as error:
            return Rejected(value, f"This is no Debezium message: {error}", message.position)

    def _decode(self, message: Message) -> ChangeRecord | Ignored:
        value = message.value
        if value[0] == 0:
            raise ValueError("it is Avro or Protobuf; let the connector use the JSON converter")
        payload, schema = self._open(message)
        if payload is None:
            return Ignored("tombstone")
        if not isinstance(payload, dict):
            raise ValueError(f"its payload is {type(payload).__name__}, not an object")
        source = payload.get("source")
        if isinstance(source, dict) and "op" in payload:
            return self._envelope(message, payload, source, schema)
        if "specversion" in payload and "data" in payload:
            return self._cloud_event(message, payload, schema)
        if (reason := _no_change(message, payload)) is not None:
            return Ignored(reason)
        if "op" in payload and ("after" in payload or "before" in payload):
            return self._envelope(message, payload, {}, schema)
        return self._flattened(message, payload, schema)

    def _open(self, message: Message) -> tuple[Json, _Schema | None]:
        """The payload, and what its schema says."""
        value = message.value
        known = self._schemas.get(message.topic)
        if known is not None and value.startswith(known.prefix) and value.endswith(b"}"):
            try:
                return lossless.parse(value[len(known.prefix) : -1], exact=False), known.schema
            except orjson.JSONDecodeError:
                pass  # More members follow the payload: read it whole.
        document = lossless.parse(value, exact=False)
        if not (isinstance(document, dict) and "schema" in document and "payload" in document):
            return document, None
        schema = _compile(document["schema"])
        prefix = _prefix(value, document["schema"])
        if prefix is not None:
            self._schemas[message.topic] = _Known(prefix, schema)
        return document["payload"], schema

    def _envelope(
        self,
        message: Message,
        payload: Mapping[str, Json],
        source: Mapping[str, Json],
        schema: _Schema | None,
    ) -> ChangeRecord | Ignored:
        op = payload["op"]
        event = _EVENTS.get(op)
        if event is None:
            if op in _NO_CHANGES:
                return Ignored(_NO_CHANGES[op])
            raise ValueError(f"its operation is {op!r}, none of c, u, d, r, t and m")
        row = schema.row if schema is not None else ()
        before = self._row(payload.get("before"))
        after = self._row(payload.get("after"))
        missing = _NOTHING
        if op == "u" and after is not None and self.placeholder.may_be_in(message.value):
            missing = self.placeholder.take(after)
        if row:
            for image in (before, after):
                if image is not None:
                    connect_schema.apply(row, image)
        order = payload.get("transaction")
        at = source.get("ts_ms") or payload.get("ts_ms") or 0
        return self._change(message, op, before, after, missing, source, order, at)

    def _cloud_event(
        self, message: Message, payload: Mapping[str, Json], schema: _Schema | None
    ) -> ChangeRecord | Ignored:
        source = {k[10:]: v for k, v in payload.items() if k.startswith("iodebezium")}
        for short, name in (("tsms", "ts_ms"), ("txid", "txId")):
            if short in source:
                source.setdefault(name, source[short])
        data = payload["data"]
        if isinstance(data, dict) and "schema" in data and "payload" in data:
            schema, data = _compile(data["schema"]), data["payload"]
        if not isinstance(data, dict):
            raise ValueError("the data of the CloudEvent is not an object")
        op = source.get("op")
        if op is None:
            raise ValueError("the CloudEvent has no attribute iodebeziumop")
        source["ts_ms"] = int(source.get("ts_ms") or 0)
        return self._envelope(message, {**data, "op": op}, source, schema)

    def _flattened(
        self, message: Message, payload: dict[str, Json], schema: _Schema | None
    ) -> ChangeRecord:
        source: dict[str, Json] = {}
        record: dict[str, Json] = {}
        if any(item.__class__ is float and abs(item) >= 1e18 for item in payload.values()):
            payload = identity.unwrapped(lossless.parse(message.value))
        for name, value in payload.items():
            if name.startswith("__"):
                source[name[2:].removeprefix("source_")] = value
            else:
                record[name] = value
        op = source.get("op") or "u"
        if str(source.get("deleted", "")).lower() == "true":
            op = "d"
        if op not in _EVENTS:
            raise ValueError(f"its __op is {op!r}, none of c, u, d and r")
        missing = _NOTHING
        if self.placeholder.may_be_in(message.value):
            missing = self.placeholder.take(record)
        if schema is not None:
            connect_schema.apply(schema.flat, record)
        before, after = (record, None) if op == "d" else (None, record)
        at = int(source.get("ts_ms") or 0)
        return self._change(message, op, before, after, missing, source, None, at)

    def _change(
        self,
        message: Message,
        op: str,
        before: dict[str, Json] | None,
        after: dict[str, Json] | None,
        missing: frozenset[str],
        source: Mapping[str, Json],
        order: Mapping[str, Json] | None,
        at: int,
    ) -> ChangeRecord:
        key = identity.key_text(message.key)
        record = before if op == "d" else after
        if record is None:
            if op != "d":
                raise ValueError(f"operation {op!r} comes without the row after it")
            record = identity.key_row(message.key)
        table = source.get("table") or source.get("collection")
        if not table:
            table = message.topic.rpartition(".")[2]
        namespace = source.get("schema") or source.get("db") or ""
        if at.__class__ is not int or table.__class__ is not str or namespace.__class__ is not str:
            raise ValueError("its source block does not name a table and a time in milliseconds")
        return ChangeRecord(
            self.source,
            identity.event_id(source, op, f"{namespace}.{table}", key, order) or message.position,
            table,
            _EVENTS[op],
            record,
            before,
            namespace,
            key,
            self.org,
            at,
            op == "r",
            missing,
        )

    def _row(self, row: Json) -> dict[str, Json] | None:
        if isinstance(row, str):  # MongoDB sends documents as text.
            row = lossless.parse(row.encode())
        if row is None or isinstance(row, dict):
            return row
        raise ValueError(f"a row is {type(row).__name__}, not an object")


@dataclass(frozen=True, slots=True)
class _Schema:
    row: connect_schema.Readers
    flat: connect_schema.Readers


@dataclass(frozen=True, slots=True)
class _Known:
    """The text `{"schema":…,"payload":` of a topic's last message, so it is parsed only once."""

    prefix: bytes
    schema: _Schema


def _compile(schema: Json) -> _Schema:
    row = connect_schema.member(schema, "after", "before")
    return _Schema(connect_schema.readers(row), connect_schema.readers(schema))


def _prefix(value: bytes, schema: Json) -> bytes | None:
    """The bytes before the payload, if they are sure to be the schema and nothing else."""
    mark = b',"payload":'
    start = 0
    while (found := value.find(mark, start)) >= 0:
        try:
            if orjson.loads(value[:found] + b"}") == {"schema": schema}:
                return value[: found + len(mark)]
        except orjson.JSONDecodeError:
            pass
        start = found + 1
    return None


def _no_change(message: Message, payload: Mapping[str, Json]) -> str | None:
    """Why this message of the connector itself is no change of a record, or None."""
    if message.topic.startswith("__debezium-heartbeat"):
        return "heartbeat"
    if "ddl" in payload and "databaseName" in payload:
        return "schema_change"
    if payload.get("status") in ("BEGIN", "END") and "data_collections" in payload:
        return "transaction"
    return None
