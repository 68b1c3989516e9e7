"""The schemas of the three dialects.

`configs` are the schemas of configs by type of node, as a catalogue has them; those of triggers and
inline nodes in `specs.schemas.configs` are more exact and come first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from permaflow.plan import Json
from specs.blocks import aliases_of
from specs.json_limits import MAX_EDGES, MAX_NODES, MAX_TRIGGERS
from specs.options import MAX_PORTS, MAX_VISITS
from specs.react_flow import EDGE_FIELDS, NODE_FIELDS
from specs.schemas.configs import CONFIGS, JOIN
from specs.schemas.parts import (
    ANYTHING,
    COMPARISON,
    DEFINITIONS,
    NAME,
    SECONDS,
    TEMPLATE,
    TEST,
    TEXT,
    Schema,
    choice,
    listed,
    moved,
    nullable,
    relaxed,
    said,
    shape,
)
from specs.steps.actions import NOT_IN_A_ROW, VERBS
from specs.steps.dialect import ENTITY_FIELDS
from specs.steps.options import BACKOFFS, LONGEST, MAX_ATTEMPTS
from specs.steps.sequence import HANDLING
from specs.triggers import KINDS, MAX_CONDITIONS
from specs.undoing import MAX_HANDLERS
from specs.work import INLINE

Configs = Mapping[str, Json]

DRAFT = "https://json-schema.org/draft/2020-12/schema"
OTHER_TYPE: Schema = {"type": "string", "pattern": r"^[A-Za-z][A-Za-z0-9_.\-]*/[A-Za-z0-9_.\-]+$"}
_PEOPLE: dict[str, Schema] = {"name": TEXT, "description": TEXT}
_ERROR: Schema = {"$ref": "#/$defs/on_error"}
_RETRY: Schema = {"$ref": "#/$defs/retry"}
_UNKNOWN: Schema = {"$ref": "#/$defs/on_unknown"}
_VISITS: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_VISITS, "default": 100}
_PORTS = listed({"type": "string", "minLength": 1}, maxItems=MAX_PORTS, uniqueItems=True)


def schema_of(dialect: str, configs: Configs, *, others: bool = False) -> Schema:
    """The JSON Schema of documents in `dialect`, which is one of `DIALECT_SCHEMAS`.

    With `others`, types of plug-ins that are not known here (`sms/send`) fit as well.
    """
    title, body, definitions = DIALECT_SCHEMAS[dialect](configs)
    type_of = {"graph": ("node", "type"), "dag": ("block", "type"), "steps": ("step", "action")}
    if others:
        holder, member = type_of[dialect]
        members = definitions[holder]["properties"]
        members[member] = {"anyOf": [members[member], OTHER_TYPE]}
    return {
        "$schema": DRAFT,
        "$id": schema_id(dialect),
        "title": title,
        **body,
        "$defs": {**DEFINITIONS, **definitions},
    }


def schema_id(dialect: str) -> str:
    return f"urn:permaflow:schemas:{dialect}"


def _graph(configs: Configs) -> tuple[str, Schema, dict[str, Schema]]:
    types = [*KINDS, *(name for name in configs if name not in KINDS)]
    node = shape(
        {
            "id": said(NAME, "What others call it by."),
            "type": choice(*types, description="What the node does."),
            "config": {"type": "object", "description": "What the type needs."},
            "on_error": _ERROR,
            "retry": _RETRY,
            "timeout_seconds": SECONDS,
            "on_unknown": _UNKNOWN,
            "compensate": {"$ref": "#/$defs/undo"},
            "join": JOIN,
            "parentId": said(TEXT, "The loop in whose body it stands."),
            "max_visits": _VISITS,
            "ports": _PORTS,
            **_PEOPLE,
        },
        ("id", "type"),
        ignored=NODE_FIELDS,
    )
    node["allOf"] = [_config_of(name, configs, "type", "config") for name in types]
    edge = shape(
        {
            "id": TEXT,
            "source": said(NAME, "The id of a node."),
            "target": said(NAME, "The id of a node."),
            "sourceHandle": said(TEXT, "The way out: true, false, a case, a port, or error."),
            "targetHandle": ANYTHING,
        },
        ("source", "target"),
        ignored=EDGE_FIELDS,
    )
    body = shape(
        {
            "version": {"const": 1},
            "nodes": listed({"$ref": "#/$defs/node"}, minItems=1, maxItems=MAX_NODES),
            "edges": listed({"$ref": "#/$defs/edge"}, maxItems=MAX_EDGES),
            "timeout_seconds": SECONDS,
            "on_failure": _handlers(),
            **_PEOPLE,
        },
        ("nodes",),
        ignored=("viewport", "id", "metadata", "$schema"),
        description="A workflow as nodes and edges.",
    )
    config: Schema = {"type": "object", "description": "What the type needs."}
    tasks = [name for name in types if name not in KINDS and name not in INLINE]
    found = {
        "node": node,
        "edge": edge,
        **_tasks(
            {name: [name] for name in tasks},
            ("id", "config", "timeout_seconds", config),
            lambda name: _config_of(name, configs, "type", "config"),
        ),
        **_definitions(configs, types, TEMPLATE),
    }
    return "Permaflow workflow: graph", body, found


def _dag(configs: Configs) -> tuple[str, Schema, dict[str, Schema]]:
    types = [name for name in configs if name not in KINDS]
    names = {name: [name, *aliases_of(name, configs)] for name in types}
    block = shape(
        {
            "name": said(NAME, "What others call it by."),
            "type": choice(
                *(each for every in names.values() for each in every),
                description="What the block does.",
            ),
            "arguments": {
                "description": "The config, as objects that together are one.",
                "anyOf": [{"type": "object"}, listed({"type": "object"})],
            },
            "depends": said(TEXT, "What it waits for: check.SUCCESS || other.FAILED."),
            "status": ANYTHING,
            "updated_at": ANYTHING,
            "on_error": _ERROR,
            "retry": _RETRY,
            "timeout": SECONDS,
            "on_unknown": _UNKNOWN,
            "compensate": {"$ref": "#/$defs/undo"},
            "parent": said(TEXT, "The loop in whose body it stands."),
            "max_visits": _VISITS,
            "ports": _PORTS,
        },
        ("name", "type"),
        ignored=("description", "label"),
    )

    def arguments_of(name: str) -> Schema:
        return {
            "if": {"properties": {"type": {"enum": names[name]}}, "required": ["type"]},
            "then": {"properties": {"arguments": _arguments(name, configs)}},
        }

    block["allOf"] = [arguments_of(name) for name in types]
    trigger = shape(
        {
            "type": choice(*KINDS),
            "id": NAME,
            "config": {"type": "object"},
        },
        ("type",),
        ignored=("name", "description", "label"),
    )
    trigger["allOf"] = [_config_of(name, configs, "type", "config") for name in KINDS]
    dag = shape(
        {
            "entrypoint": said(NAME, "The block that starts."),
            "exitpoints": listed(
                NAME,
                minItems=1,
                uniqueItems=True,
                description="The blocks of which one must succeed.",
            ),
            "tasks": listed({"$ref": "#/$defs/block"}, minItems=1, maxItems=MAX_NODES),
        },
        ("entrypoint", "exitpoints", "tasks"),
    )
    body = shape(
        {
            "dag": dag,
            "triggers": listed({"$ref": "#/$defs/trigger"}, maxItems=MAX_TRIGGERS),
            "version": {"const": 1},
            "timeout_seconds": SECONDS,
            "on_failure": _handlers(),
            **_PEOPLE,
        },
        ("dag",),
        ignored=("id", "metadata", "$schema"),
        description="A workflow as blocks that depend on each other.",
    )
    found = {
        "block": block,
        "trigger": trigger,
        **_tasks(
            {name: every for name, every in names.items() if name not in INLINE},
            ("name", "arguments", "timeout", {"type": ["object", "array"]}),
            arguments_of,
        ),
        **_definitions(configs, [*KINDS, *types], TEMPLATE),
    }
    return "Permaflow workflow: dag", body, found


def _steps(configs: Configs) -> tuple[str, Schema, dict[str, Schema]]:
    types = [name for name in configs if name not in KINDS and name not in NOT_IN_A_ROW]
    options: dict[str, Schema] = {
        "retryPolicy": {"$ref": "#/$defs/retry_policy"},
        "errorHandling": choice(*HANDLING),
        "timeout": {"type": "number", "minimum": 1, "maximum": LONGEST},
        "assignees": {
            "description": "Who takes turns: an array, or the name of an object.",
            "anyOf": [{"type": "array", "minItems": 1}, {"type": "string", "minLength": 1}],
        },
        **_PEOPLE,
    }
    alone: dict[str, Schema] = {
        "action": TEXT,
        "mapping": {"type": "object"},
        "retryPolicy": options["retryPolicy"],
        "timeout": options["timeout"],
        **_PEOPLE,
    }
    handler = shape({**alone, "id": nullable(NAME)}, ("action",))
    step = shape(
        {
            "action": {
                "description": "A noun and a verb (Customer.create), or a type of task.",
                "anyOf": [
                    {"enum": types},
                    {"type": "string", "pattern": r"^[A-Z]\w*\.[a-z]\w*$"},
                    {"enum": [f"Record.{verb}" for verb in sorted(set(VERBS.values()))]},
                ],
            },
            "mapping": {"type": "object", "description": "The data, or the config of the task."},
            "id": NAME,
            "when": said(TEST, "The step is skipped if this is not true."),
            "flag": {"type": "string", "minLength": 1},
            "onUnknown": _UNKNOWN,
            "compensate": shape(
                {**alone, "whenUnknown": {"type": "boolean"}},
                ("action",),
                description="What undoes the step if the run does not complete.",
            ),
            **options,
        },
        ("action",),
        ignored=("label", "metadata", "$id"),
    )
    step["allOf"] = [_config_of(name, configs, "action", "mapping") for name in types]
    several = listed({"$ref": "#/$defs/step"}, maxItems=MAX_NODES)
    as_text = said({"type": "string", "minLength": 1}, "The array as JSON in text.")
    policy = shape(
        {name: part for plain, part in _policy().items() for name in (plain, _underscored(plain))},
        description="Attempts, and the milliseconds between them.",
    )
    body = shape(
        {
            "triggerEvent": {
                "type": "string",
                "pattern": r"^[\w.-]+\.\w+$",
                "description": "A noun and what happened to it: Deal.won, Contact.created.",
            },
            "steps": {"anyOf": [{**several, "minItems": 1}, as_text]},
            "fallback": {"anyOf": [several, as_text]},
            "onFailure": {
                "description": "Actions that run when a run has failed.",
                "anyOf": [handler, listed(handler, maxItems=MAX_HANDLERS), as_text],
            },
            "triggerField": {"type": "string", "minLength": 1},
            "conditions": listed(COMPARISON, maxItems=MAX_CONDITIONS),
            **options,
        },
        ("triggerEvent", "steps"),
        ignored=ENTITY_FIELDS,
        description="A workflow as steps one after the other.",
    )
    found = {
        "step": step,
        "retry_policy": {
            "anyOf": [policy, {"type": ["string", "integer"]}],
        },
        **_definitions(configs, types, TEXT),
    }
    return "Permaflow workflow: steps", body, found


def _handlers() -> Schema:
    task: Schema = {"$ref": "#/$defs/task"}
    return {
        "description": "Tasks that run when a run has failed.",
        "anyOf": [task, listed(task, maxItems=MAX_HANDLERS)],
    }


def _tasks(
    names: Mapping[str, list[str]],
    member: tuple[str, str, str, Schema],
    config_of: Callable[[str], Schema],
) -> dict[str, Schema]:
    """What undoes a step (`undo`), and what runs when a run has failed (`task`).

    `member` is what the dialect calls the id, the config and the timeout, and the config's shape.
    """
    name, config, timeout, held = member
    common: dict[str, Schema] = {
        "type": choice(*(each for every in names.values() for each in every)),
        config: held,
        "retry": _RETRY,
        timeout: SECONDS,
    }
    undo = shape(
        {**common, "when_unknown": {"type": "boolean"}}, ("type",), ignored=("description",)
    )
    task = shape({**common, name: NAME}, ("type",), ignored=("name", "description"))
    task["properties"] = {**task["properties"], name: nullable(NAME)}
    rules: Schema = {"allOf": [config_of(each) for each in names]} if names else {}
    return {"undo": {**undo, **rules}, "task": {**task, **rules}}


def _policy() -> dict[str, Schema]:
    delay: Schema = {"type": "number", "minimum": 0, "maximum": LONGEST}
    return {
        "maxAttempts": {"type": "integer", "minimum": 1, "maximum": MAX_ATTEMPTS},
        "maxRetries": {"type": "integer", "minimum": 0, "maximum": MAX_ATTEMPTS - 1},
        "backoff": choice(*BACKOFFS),
        "initialDelay": delay,
        "maxDelay": delay,
        "factor": {"type": "number", "minimum": 1, "maximum": 100},
        "jitter": {"anyOf": [{"type": "boolean"}, {"type": "number", "minimum": 0, "maximum": 1}]},
    }


def _underscored(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


DIALECT_SCHEMAS: Mapping[str, Callable[[Configs], tuple[str, Schema, dict[str, Schema]]]] = {
    "graph": _graph,
    "dag": _dag,
    "steps": _steps,
}


# --- configs --------------------------------------------------------------------------------------


def _key(name: str) -> str:
    return f"config.{name.replace('/', '.')}"


def _schema(name: str, configs: Configs) -> Json:
    return CONFIGS.get(name) or configs.get(name) or {"type": "object"}


def _config_of(name: str, configs: Configs, type_member: str, config_member: str) -> Schema:
    """What a type of node says of its config. A config that may be left out may be null."""
    wanted: Schema = {"$ref": f"#/$defs/{_key(name)}"}
    needed = _needs(_schema(name, configs))
    then: Schema = {"properties": {config_member: wanted if needed else nullable(wanted)}}
    if needed:
        then["required"] = [config_member]
    return {
        "if": {"properties": {type_member: {"const": name}}, "required": [type_member]},
        "then": then,
    }


def _needs(schema: Json) -> bool:
    """Whether no config at all is too little."""
    if type(schema) is not dict:
        return False
    if schema.get("required") or schema.get("minProperties"):
        return True
    choices: list[Json] = schema.get("anyOf") or schema.get("oneOf") or []
    return bool(choices) and all(
        type(each) is dict and ("$ref" in each or _needs(each)) for each in choices
    )


def _definitions(configs: Configs, names: list[str], instead: Schema) -> dict[str, Schema]:
    """The configs of these types, each with the definitions that it brings along."""
    found: dict[str, Schema] = {}
    for name in names:
        key, schema = _key(name), _schema(name, configs)
        if name in CONFIGS or type(schema) is not dict:
            found[key] = schema
            continue
        for part, inner in dict(schema.get("$defs") or {}).items():
            found[f"{key}.{part}"] = relaxed(moved(inner, key), instead)
        found[key] = relaxed(moved(schema, key), instead)
    return found


def _arguments(name: str, configs: Configs) -> Schema:
    """A config in one object, or spread over several, of which each has members of it."""
    spread: dict[str, Any] = {}
    closed = _spread(_schema(name, configs), {}, spread)
    each: Schema = {"type": "object", "properties": dict.fromkeys(sorted(spread), ANYTHING)}
    if closed and spread:
        each["patternProperties"] = {"^x-": ANYTHING}
        each["additionalProperties"] = False
    return nullable({"anyOf": [{"$ref": f"#/$defs/{_key(name)}"}, listed(each)]})


def _spread(schema: Json, definitions: Mapping[str, Json], found: dict[str, Any]) -> bool:
    """Collects the members that a config may have; gives whether there are no others."""
    if type(schema) is not dict:
        return False
    definitions = {**definitions, **(schema.get("$defs") or {})}
    reference = schema.get("$ref")
    if type(reference) is str:
        return _spread(definitions.get(reference.rpartition("/")[2]), definitions, found)
    found.update(schema.get("properties") or {})
    parts = [*(schema.get("anyOf") or ()), *(schema.get("oneOf") or ())]
    if "properties" not in schema and parts:
        closed = [_spread(part, definitions, found) for part in parts]
        return all(closed)
    return schema.get("additionalProperties") is False
