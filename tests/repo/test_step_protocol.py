"""The published protocol of workers is that of the code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import msgspec
import pytest

from pipeline import wire

DECODERS = {
    "Dispatches": wire.decode_dispatches,
    "Inbox": wire.decode_inbox,
    "Stopped": wire.decode_stopped,
    "Held": wire.decode_held,
}


@pytest.fixture(scope="module")
def reference(root: Path) -> Path:
    return root / "docs" / "reference"


@pytest.fixture(scope="module")
def asyncapi(reference: Path) -> dict[str, Any]:
    return dict(json.loads((reference / "step-protocol.asyncapi.json").read_text("utf-8")))


@pytest.fixture(scope="module")
def schema(reference: Path) -> dict[str, Any]:
    return dict(json.loads((reference / "step-protocol.schema.json").read_text("utf-8")))


def references(value: Any) -> Iterator[str]:
    match value:
        case dict():
            for name, part in value.items():
                if name == "$ref":
                    yield part
                else:
                    yield from references(part)
        case list():
            for part in value:
                yield from references(part)


def test_every_reference_within_the_documents_leads_somewhere(
    asyncapi: dict[str, Any], schema: dict[str, Any]
) -> None:
    for document in (asyncapi, schema):
        found = set(references(document))
        assert found
        for reference in found:
            here: Any = document
            for part in reference.removeprefix("#/").split("/"):
                here = here[part]


def test_the_asyncapi_document_has_what_version_3_asks_for(asyncapi: dict[str, Any]) -> None:
    assert asyncapi["asyncapi"] == "3.0.0"
    assert asyncapi["info"]["version"] == f"{wire.VERSION}.0.0"
    assert {o["action"] for o in asyncapi["operations"].values()} == {"send", "receive"}
    for channel in asyncapi["channels"].values():
        named = set(re.findall(r"\{(\w+)\}", channel["address"]))
        assert set(channel.get("parameters", {})) == named


def test_the_examples_are_messages_that_the_code_reads_and_the_schemas_allow(
    asyncapi: dict[str, Any], schema: dict[str, Any], reference: Path
) -> None:
    page = (reference / "step-protocol.md").read_text("utf-8")
    examples = re.findall(
        r"^(\w+), on `(\S+)`:\n\n```text\n(.+)\n([0-9a-f]+)\n```", page, re.MULTILINE
    )
    assert [name for name, *_ in examples] == list(DECODERS)
    for name, _, shown, encoded in examples:
        plain = json.loads(shown)
        message = DECODERS[name](bytes.fromhex(encoded))
        assert json.loads(msgspec.json.encode(message)) == plain
        only = {"$defs": schema["$defs"], "$ref": f"#/$defs/{name}"}
        jsonschema_rs.validator_for(only).validate(plain)
        assert asyncapi["components"]["messages"][name]["examples"][0]["payload"] == plain


def test_the_schemas_refuse_other_messages(schema: dict[str, Any]) -> None:
    jsonschema_rs.meta.validate(schema)
    validator = jsonschema_rs.validator_for(schema)
    for wrong in (["d"], ["q", "org", []], ["i", [["W", "x"]]], {}, ["x", [["no uuid"]]]):
        assert not validator.is_valid(wrong), wrong


def test_what_a_worker_leaves_out_takes_its_default() -> None:
    run_id = "01890a5d-ac96-774b-bcce-b302099a8057"
    raw = msgspec.msgpack.encode(["i", [["D", run_id, "", "n", 1], ["P", run_id, "", "n", 1, 2]]])
    done, parked = wire.decode_inbox(raw).events
    assert isinstance(done, wire.StepDone)
    assert isinstance(parked, wire.StepParked)
    assert (done.output, parked.after, parked.reason) == (None, 2.0, "")
    known = [None] * (len(wire.StepDone.__struct_fields__) - 5)
    newer = ["D", run_id, "", "n", 1, 5, *known, "new"]
    more = msgspec.msgpack.encode(["i", [newer], 1, "new"])
    (later,) = wire.decode_inbox(more).events
    assert isinstance(later, wire.StepDone)
    assert later.output == 5
