"""The pages of the HTTP API and of the command line, from the running code's own descriptions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import typer
from markdown import anchor, opening, row, sentence, table
from schemas import kind, members

from pipeline.cli.app import app
from pipeline.gateway.app import Application
from pipeline.gateway.openapi import describe
from pipeline.gateway.ports import Ports
from pipeline.ops import Ops

GROUPS = {
    "definitions": "Workflows",
    "runs": "Runs",
    "records": "Records",
    "webhooks": "Webhooks",
    "health": "Health and description",
}


class _Nothing:
    """Stands for the ports of a gateway that only describes itself."""

    def __getattr__(self, name: str) -> _Nothing:
        return self


def http_api_page() -> Iterator[str]:
    """Every door of the gateway, by what it is about; then the shapes that go in and out."""
    described = describe(Application(cast(Ports, _Nothing()), Ops({})).doors)
    yield from opening("HTTP API", "pipeline/gateway/app.py")
    yield "The gateway serves the same as OpenAPI 3.1 at `/openapi.json`. Send an API key as"
    yield "`Authorization: Bearer pf_…`; the scope `admin` includes every other. What is refused is"
    yield "answered with a [ProblemView](#problemview) (RFC 9457, `application/problem+json`), 503"
    yield "says to try again. Lists are pages: pass `next_cursor` as `cursor`."
    for tag, title in GROUPS.items():
        yield ""
        yield f"## {title}"
        for path, operations in described["paths"].items():
            for method, operation in operations.items():
                if tag in operation["tags"]:
                    yield from _operation(method, path, operation)
    yield ""
    yield "## Shapes"
    for name, schema in sorted(described["components"]["schemas"].items()):
        yield ""
        yield f"### {name}"
        yield ""
        yield from (schema.get("description") or "").splitlines()
        yield ""
        yield from members(schema, linked=True)


def _operation(method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
    yield ""
    yield f"### {method.upper()} {path}"
    yield ""
    yield from (operation.get("description") or "").splitlines()
    yield ""
    scope = operation.get("x-scope")
    yield f"- Needs: {f'the scope `{scope}`' if scope else 'no key'}"
    body = operation.get("requestBody")
    if body is not None:
        shape = body["content"]["application/json"]["schema"]
        yield f"- Body: {kind(shape, linked=True)}"
    yield f"- Answers: {'; '.join(_answers(operation['responses']))}"
    parameters = [p for p in operation.get("parameters", ()) if p["in"] != "header"]
    if parameters:
        yield ""
        yield from table("Parameter", "In", "Type", "What it is")
        for each in parameters:
            says = each.get("description", "")
            yield row(f"`{each['name']}`", each["in"], kind(each["schema"]), says)


def _answers(responses: dict[str, Any]) -> Iterator[str]:
    for status, answer in responses.items():
        if not status.startswith("2"):
            continue
        said = answer["description"].removeprefix("Successful Response").strip(" .")
        found = [kind(each["schema"], linked=True) for each in _shapes(answer)]
        yield " ".join([status, *found, *([f"({said})"] if said else [])])


def _shapes(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return [each for each in answer.get("content", {}).values() if "$ref" in each.get("schema", {})]


# --- the command line -----------------------------------------------------------------------------


def cli_page() -> Iterator[str]:
    """Every command with its arguments and options."""
    yield from opening("Command line", "pipeline/cli/*.py")
    root = typer.main.get_command(app)
    yield from _help(root.help or "")
    commands = list(_commands("permaflow", root))
    yield ""
    yield from table("Command", "What it does")
    for name, command in commands:
        yield row(f"[`{name}`]({anchor(name)})", sentence(command.help))
    for name, command in commands:
        yield ""
        yield f"## {name}"
        yield ""
        yield from _help(command.help or "")
        yield ""
        yield from table("Argument or option", "Default", "What it is")
        for each in command.params:
            given = each.param_type_name == "argument"
            word = f"`<{each.name}>`" if given else ", ".join(f"`{opt}`" for opt in each.opts)
            yield row(word, _default(each), getattr(each, "help", None) or "")


def _commands(prefix: str, group: Any) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(f"{prefix} {name}", command)
        elif not command.hidden:
            yield f"{prefix} {name}", command


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    return "empty" if parameter.default in (None, False, "") else f"`{parameter.default}`"


def _help(text: str) -> Iterator[str]:
    """Prose as it is; what follows a backspace are examples."""
    for number, part in enumerate(text.strip().split("\n\n")):
        if number:
            yield ""
        if part.startswith("\b"):
            yield "```sh"
            yield from part.removeprefix("\b").strip().splitlines()
            yield "```"
        else:
            yield from part.splitlines()
