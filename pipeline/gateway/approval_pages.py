"""What a link of an approval shows in a browser: plain HTML, without script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from http import HTTPStatus
from itertools import chain

from starlette.requests import Request
from starlette.responses import Response

from permaflow.plan import Json, Problem
from pipeline.gateway.approval_forms import Field, Form
from pipeline.gateway.problems import Refusal

HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-robots-tag": "noindex",
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
        "frame-ancestors 'none'; base-uri 'none'"
    ),
}
PREFIX = "data."
"""How the inputs of a form's properties are called, beside `comment`."""

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>body {{ font: 1rem/1.5 sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }}
p {{ white-space: pre-wrap }} label, small, strong {{ display: block }}
input, select, textarea {{ font: inherit; box-sizing: border-box; max-width: 100% }}
strong {{ color: #b00020 }} form > div {{ margin: 1rem 0 }}</style>
<h1>{title}</h1>
<p>{description}</p>
{rest}
</html>
"""
_ASK = """{problems}<form method="post">
{fields}
{comment}
<button>{button}</button>
</form>"""
_COMMENT = Field("comment", "string", "Comment", "", "", False, {})
_TYPES = {
    "string": 'type="text"',
    "integer": 'type="number" step="1"',
    "number": 'type="number" step="any"',
}
_BEYOND = (
    "This asks for what cannot be filled in here: {names}. Answer it elsewhere, with an API key."
)


def wants_page(request: Request) -> bool:
    """Whether it is a browser that asks."""
    return "text/html" in request.headers.get("accept", "")


def page(title: str, description: str, rest: str = "", status: int = 200) -> Response:
    """A page. `rest` is HTML."""
    text = _PAGE.format(title=escape(title), description=escape(description), rest=rest)
    return Response(text, status, headers=HEADERS, media_type="text/html")


def refused_page(refused: Refusal) -> Response:
    """A refused request."""
    answer = page(HTTPStatus(refused.status).phrase, refused.detail, status=refused.status)
    answer.headers.update(refused.headers)
    return answer


def asking(form: Form, comment: str, button: str, problems: Sequence[Problem] = ()) -> str:
    """The HTML that asks for a decision, or says that it cannot be given here."""
    if form.beyond:
        return f"<p>{escape(_BEYOND.format(names=', '.join(form.beyond)))}</p>"
    told: dict[str, list[str]] = {}
    for problem in problems:
        told.setdefault(problem.pointer, []).append(problem.message)
    inputs = []
    for number, each in enumerate(form.fields):
        said = told.pop(each.pointer, [])
        inputs.append(_input(f"field{number}", PREFIX + each.name, each, form.text(each), said))
    last = _input("comment", "comment", _COMMENT, comment, told.pop("/comment", []))
    others = "".join(f"<strong>{escape(said)}</strong>\n" for said in chain(*told.values()))
    return _ASK.format(
        problems=others, fields="\n".join(inputs), comment=last, button=escape(button)
    )


def _input(key: str, name: str, asked: Field, text: str, problems: Sequence[str]) -> str:
    mark = " (required)" if asked.is_required else ""
    parts = [f'<label for="{key}">{escape(asked.title)}{mark}</label>']
    attributes = f'id="{key}" name="{escape(name)}"'
    if asked.is_required and "" not in asked.choices:
        attributes += " required"
    about = []
    if asked.hint:
        about.append(f"{key}-hint")
        parts.append(f'<small id="{key}-hint">{escape(asked.hint)}</small>')
    if problems:
        about.append(f"{key}-problem")
        attributes += ' aria-invalid="true"'
    if about:
        attributes += f' aria-describedby="{" ".join(about)}"'
    parts.append(_control(attributes, asked, text))
    if problems:
        parts.append(f'<strong id="{key}-problem">{escape(" ".join(problems))}</strong>')
    return f"<div>{''.join(parts)}</div>"


def _control(attributes: str, asked: Field, text: str) -> str:
    if asked.choices:
        texts = list(asked.choices) if "" in asked.choices else ["", *asked.choices]
        options = "".join(_option(each, asked.choices.get(each), text) for each in texts)
        return f"<select {attributes}>{options}</select>"
    if asked.kind == "string" and "\n" in text:
        # The first line break of a text area is not part of its text.
        return f'<textarea {attributes} rows="5" cols="50">\n{escape(text)}</textarea>'
    return f'<input {attributes} {_TYPES[asked.kind]} size="50" value="{escape(text)}">'


def _option(text: str, value: Json, chosen: str) -> str:
    label = {True: "yes", False: "no"}[value] if type(value) is bool else text
    mark = " selected" if text == chosen else ""
    return f'<option value="{escape(text)}"{mark}>{escape(label)}</option>'
