"""The blocks of the dag dialect: one task each."""

from __future__ import annotations

from collections.abc import Collection

from permaflow.plan import CONTINUE, Json
from specs.documents import Place, Reader, Step, read_id
from specs.options import read_options
from specs.reading import Fields, kind_of, shown, step_into
from specs.triggers import KINDS

_BLOCK = frozenset(
    {
        "name",
        "type",
        "arguments",
        "depends",
        "status",
        "updated_at",
        "on_error",
        "on_unknown",
        "compensate",
        "retry",
        "ports",
        "timeout",
        "max_visits",
        "parent",
    }
)
_ALIASES = {"WAIT": "logic_delay"}
_FAMILIES = ("action_", "logic_", "code_", "meta_")


def task_type(block_type: str, known: Collection[str]) -> str:
    """The task type that a block type stands for: `HTTP` is `action_http`, `LOOP` `logic_loop`.

    Names of task types stand for themselves; unknown block types, too.
    """
    if block_type in known or not block_type.isupper():
        return block_type
    if block_type in _ALIASES:
        return _ALIASES[block_type]
    names = (family + block_type.lower() for family in _FAMILIES)
    return next((name for name in names if name in known), block_type)


def aliases_of(name: str, known: Collection[str]) -> list[str]:
    """The block types that stand for a task type."""
    families = [name.removeprefix(each).upper() for each in _FAMILIES if name.startswith(each)]
    return [each for each in (*_ALIASES, *families) if task_type(each, known) == name]


def read_block(fields: Fields, index: int, reader: Reader) -> Step:
    """A block whose name is unusable is still read, so that all its problems are told at once."""
    fields.only(_BLOCK, {"description", "label"})
    name, block_type = read_id(fields, "name"), fields.text("type", required=True)
    step = Step(name or "", task_type(block_type or "", reader.known), index, fields)
    step.parent = fields.text("parent")
    if step.type in KINDS:
        fields.problem(
            "type", "bad_type", "A trigger is no block; put it into `triggers`, beside `dag`."
        )
    elif block_type is not None:
        config, place = read_arguments(fields)
        reader.fill(step, config, place, fields.at("type"))
    read_options(step, "timeout", CONTINUE)
    return step


def read_arguments(fields: Fields) -> tuple[dict[str, Json], Place]:
    """The config that the arguments of a block make, and where its parts stand."""
    at = fields.at("arguments")
    config: dict[str, Json] = {}
    places: dict[str, str] = {}
    arguments = fields.values.get("arguments")
    if type(arguments) is dict:
        return arguments, lambda pointer: at + pointer
    for index, argument in enumerate(fields.array("arguments")):
        place = f"{at}/{index}"
        if type(argument) is not dict:
            message = f"An argument is an object with one member, not {kind_of(argument)}."
            fields.report.add(place, "wrong_type", message)
            continue
        for name, value in argument.items():
            if name in config:
                message = f"The argument {shown(name)} is given twice; remove one."
                fields.report.add(step_into(place, name), "duplicate", message)
            config[name] = value
            # A pointer into the config starts with the member; the member says which argument.
            places[step_into("", name)] = place

    def place_of(pointer: str) -> str:
        end = pointer.find("/", 1)
        argument = places.get(pointer if end < 0 else pointer[:end])
        return (at if argument is None else argument) + pointer

    return config, place_of
