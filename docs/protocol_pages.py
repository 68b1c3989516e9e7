"""The protocol of workers in other languages, from pipeline/wire.py and step-protocol.template: a
page, an AsyncAPI document and the JSON Schemas of its messages.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
from markdown import opening, row, table

from pipeline import wire
from pipeline.bus import streams, subjects

Example = Mapping[str, Any]

RUN = UUID("01890a5d-ac96-774b-bcce-b302099a8057")
ORG = UUID("01890a5d-0000-7000-8000-000000000001")
STEP = (RUN, "", "amount", 1)
CONFIG = {"kind": "money", "value": 1234.5, "currency": "EUR"}

EXAMPLES: dict[str, tuple[str, msgspec.Struct]] = {
    "Dispatches": (
        subjects.step("node", ORG.hex),
        wire.Dispatches(ORG.hex, [wire.Dispatch(*STEP, "intl/format", CONFIG, 60.0)]),
    ),
    "Inbox": (
        subjects.inbox(subjects.partition_of(RUN), ORG.hex),
        wire.Inbox([wire.StepDone(*STEP, {"text": "1.234,50 €"})]),
    ),
    "Stopped": (subjects.CANCEL, wire.Stopped([STEP])),
    "Held": (subjects.HELD, wire.Held("worker-1", ORG, [(*STEP, 41.5)], [])),
}
"""A message of each kind with its subject; the results of a worker travel in an `Inbox`."""

RESULTS = (wire.StepDone, wire.StepFailed, wire.StepParked)
STRUCTS = (
    wire.Dispatches,
    wire.Dispatch,
    wire.Inbox,
    *RESULTS,
    wire.Stopped,
    wire.Held,
)
WORDS = {
    "UUID": "UUID as text",
    "str": "text",
    "int": "whole number",
    "float": "number",
    "bool": "true or false",
    "typing.Any": "any JSON",
    "list[str]": "array of texts",
}
VERSION = f"{wire.VERSION}.0.0"
CONTENT = "application/vnd.msgpack"
PREFIX = "#/components/schemas/"


def schemas(prefix: str = PREFIX) -> dict[str, Any]:
    """The JSON Schema of every message, with the names of its parts."""
    _, found = msgspec.json.schema_components(STRUCTS, ref_template=prefix + "{name}")
    for struct in STRUCTS:
        schema = found[struct.__name__]
        schema["description"] = inspect.getdoc(struct)
        first = struct.__struct_config__.tag is not None
        if first:
            schema["prefixItems"][0] = {"const": struct.__struct_config__.tag, "title": "tag"}
        for part, name in zip(schema["prefixItems"][first:], struct.__struct_fields__, strict=True):
            part["title"] = name
    results = [{"$ref": prefix + each.__name__} for each in RESULTS]
    found["Inbox"]["prefixItems"][1] |= {"items": {"anyOf": results}}
    return {struct.__name__: found[struct.__name__] for struct in STRUCTS}


def schema_document() -> dict[str, Any]:
    """One document whose definitions are the messages."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:permaflow:step-protocol:{VERSION}",
        "$comment": "Generated from pipeline/wire.py by `make docs`; edit that file instead.",
        "title": "Messages between Permaflow and its workers",
        "anyOf": [{"$ref": f"#/$defs/{name}"} for name in EXAMPLES],
        "$defs": schemas("#/$defs/"),
    }


def asyncapi_document() -> dict[str, Any]:
    """The protocol from a worker's side."""
    org = {"org": {"description": "The organisation's id, 32 hexadecimal digits."}}
    stage = {"stage": {"description": "The stage that the worker serves."}}
    said = f"The last byte of the run's id modulo {subjects.PARTITIONS}."
    channels = {
        "steps": ("pf.step.{stage}.{org}", "Dispatches", stage | org),
        "inbox": (
            "pf.inbox.{partition}.{org}",
            "Inbox",
            {"partition": {"description": said}} | org,
        ),
        "cancel": (subjects.CANCEL, "Stopped", {}),
        "held": (subjects.HELD, "Held", {}),
    }
    operations = {
        "takeSteps": (
            "receive",
            "steps",
            f"Through the pull consumer `stage-…` of {subjects.STEPS}.",
        ),
        "tellResults": ("send", "inbox", f"Into the stream {subjects.INBOX}, with its receipt."),
        "hearOfCancelled": ("receive", "cancel", "Plain NATS; nothing is kept."),
        "tellOfLongSteps": ("send", "held", "Plain NATS, every five seconds."),
    }
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "Permaflow step protocol",
            "version": VERSION,
            "description": "How workers in any language serve task types. Messages are MessagePack "
            "arrays. Generated from pipeline/wire.py by `make docs`.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": CONTENT,
        "servers": {"nats": {"host": "127.0.0.1:4222", "protocol": "nats"}},
        "channels": {
            name: {
                "address": address,
                "messages": {message: {"$ref": f"#/components/messages/{message}"}},
                **({"parameters": parameters} if parameters else {}),
            }
            for name, (address, message, parameters) in channels.items()
        },
        "operations": {
            name: {"action": action, "channel": {"$ref": f"#/channels/{channel}"}, "summary": text}
            for name, (action, channel, text) in operations.items()
        },
        "components": {
            "messages": {
                name: {
                    "name": name,
                    "contentType": CONTENT,
                    "summary": schemas()[name]["description"].partition("\n")[0],
                    "payload": {"$ref": PREFIX + name},
                    "examples": [{"payload": msgspec.to_builtins(example)}],
                }
                for name, (_, example) in EXAMPLES.items()
            },
            "schemas": schemas(),
        },
    }


def asyncapi_page() -> Iterator[str]:
    yield from _json(asyncapi_document())


def schema_page() -> Iterator[str]:
    yield from _json(schema_document())


def _json(document: Mapping[str, Any]) -> Iterator[str]:
    yield from json.dumps(document, indent=2, ensure_ascii=False).splitlines()


def protocol_page() -> Iterator[str]:
    """What a worker does, message by message."""
    yield from opening("The step protocol", "pipeline/wire.py")
    text = Path(__file__).with_name("step-protocol.template").read_text(encoding="utf-8")
    yield from text.format(
        version=wire.VERSION,
        partitions=subjects.PARTITIONS,
        steps=subjects.STEPS,
        inbox=subjects.INBOX,
        cancel=subjects.CANCEL,
        held=subjects.HELD,
        ack_wait=int(subjects.ACK_WAIT.total_seconds()),
        window=int(streams.DUPLICATE_WINDOW.total_seconds()),
    ).splitlines()
    for struct in STRUCTS:
        yield ""
        yield f"### {struct.__name__}"
        yield ""
        yield from (inspect.getdoc(struct) or "").splitlines()
        yield ""
        yield from _parts(struct)
    yield ""
    yield "## Examples"
    yield ""
    yield "The bytes of one message of each kind, to test an encoder with."
    for name, (subject, example) in EXAMPLES.items():
        yield ""
        yield f"{name}, on `{subject}`:"
        yield ""
        yield "```text"
        yield json.dumps(msgspec.to_builtins(example), ensure_ascii=False)
        yield wire.encode(example).hex()
        yield "```"


def _parts(struct: type[msgspec.Struct]) -> Iterator[str]:
    yield from table("Position", "Name", "Type", "Default")
    tag = struct.__struct_config__.tag
    first = 0
    if tag is not None:
        first = 1
        yield row("0", "tag", f'`"{tag}"`', "required")
    fields = msgspec.structs.fields(struct)
    for position, each in enumerate(fields, first):
        if each.default is not msgspec.NODEFAULT:
            default = f"`{json.dumps(each.default)}`"
        elif each.default_factory is not msgspec.NODEFAULT:
            default = "`[]`"
        else:
            default = "required"
        yield row(str(position), f"`{each.name}`", _kind(each.type), default)


def _kind(annotation: Any) -> str:
    text = str(annotation).replace("<class '", "").replace("'>", "").replace("uuid.UUID", "UUID")
    if "wire.StepDone" in text:
        return f"array of {', '.join(f'[{e.__name__}](#{e.__name__.lower()})' for e in RESULTS)}"
    if "wire.Dispatch" in text:
        return "array of [Dispatch](#dispatch)"
    if text.startswith("list[tuple["):
        inner = text.removeprefix("list[tuple[").removesuffix("]]").split(", ")
        return f"array of arrays of {', '.join(WORDS[each] for each in inner)}"
    name, bar, _ = text.partition(" | None")
    return f"{WORDS[name]} or null" if bar else WORDS[name]
