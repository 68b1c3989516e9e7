"""POST /webhooks/workflow/{url_token}: the public door, and the hottest.

::

    address, size, encoding ─► body as it came ─► signature ─► JSON ─► commit ─► 202

* The body is verified over its exact bytes, before anything reads it.
* An unknown address and an inactive workflow are both a 404, a wrong signature is a 401; all three
  take the same way and do the same work.
* The trigger's data is `{"body": …, "headers": {…}, "query": {…}}`: `{{trigger.body.order.id}}`. A
  body that is JSON is its value, a form is an object, anything else is `{"raw": text}` or
  `{"raw_base64": …}`. Of the headers there are those of `FORWARDED`, and those that the trigger
  names in `headers`; never one with a signature or a credential, unless it is named.
* An address takes `PERMAFLOW_WEBHOOK_RATE` deliveries a second; more are a 429. Only what is signed
  well counts, so nobody else can use up what the sender may send.
* The same delivery again gives the same run. What makes it the same: see
  `connectors.webhook_signatures.event_ids`.
"""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Mapping
from urllib.parse import parse_qsl

import orjson
from starlette.requests import Request
from starlette.responses import Response

from connectors.webhook_signatures import Verification, event_ids, verify
from permaflow.errors import NotFoundError
from permaflow.plan import Json
from pipeline.gateway.answers import JSON, members
from pipeline.gateway.bodies import invalid, parse_json, read_bytes
from pipeline.gateway.entrances import Address
from pipeline.gateway.input_schemas import misfits
from pipeline.gateway.ports import Ports
from pipeline.gateway.problems import Refusal
from pipeline.gateway.run_starts import ROOT as RUNS
from pipeline.ids import new_id
from pipeline.store.starts import Duplicate, Started, StartRequest, run_key

PATH = "/webhooks/workflow/{url_token}"
SOURCE = "webhook"
FORWARDED = frozenset(
    {
        "content-type",
        "user-agent",
        "webhook-id",
        "webhook-timestamp",
        "x-event-key",
        "x-github-delivery",
        "x-github-event",
        "x-gitlab-event",
        "x-request-id",
        "x-shopify-shop-domain",
        "x-shopify-topic",
        "x-shopify-webhook-id",
    }
)
MOST_FIELDS = 1_000
MOST_OF_NOBODY = 100_000
"""Bytes that are read for an address that is none."""
_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")
_FORM = "application/x-www-form-urlencoded"
_NOBODY = Verification("github")
_UNKNOWN = "There is no webhook at this address, or its workflow is not active."


class Webhooks:
    """The handler."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    async def receive_webhook(self, request: Request) -> Response:
        """Start a run with what was sent. The answer comes once the run is stored."""
        token = str(request.path_params["url_token"])
        address = await self._ports.entrances.address(token) if _TOKEN.fullmatch(token) else None
        limit = self._ports.settings.max_input_bytes if address else MOST_OF_NOBODY
        raw = await read_bytes(request, limit)
        headers = _headers(request)
        now = time.time()
        if address is None:
            verify(_NOBODY, (), headers, raw, now)
            raise NotFoundError(_UNKNOWN)
        proof = verify(address.verification, address.secrets, headers, raw, now)
        if proof is None:
            raise Refusal(
                401, "bad_signature", "The signature is missing, wrong, or of another time."
            )
        self._ports.rates.take(token)
        value = read_value(raw, headers.get("content-type", ""), limit)
        if (challenge := _challenge(address, value)) is not None:
            return challenge
        if address.schema is not None and (found := misfits(address.schema, value, "")):
            raise invalid(found, "The body is not what the trigger's `input_schema` describes.")
        event, earlier = event_ids(address.verification, proof, headers, raw, value, now)
        result = await self._ports.starts.start(
            StartRequest(
                new_id(),
                address.org,
                address.workflow_id,
                SOURCE,
                key=_key(address, event),
                input=_input(address, value, headers, request),
                trigger_node=address.node,
                requested_by=f"webhook:{address.node}",
            ),
            _key(address, earlier),
        )
        match result:
            case Started(run_id=run_id) | Duplicate(run_id=run_id):
                body = {"id": run_id, "run_id": run_id, "status": "accepted"}
                where = {"location": f"{RUNS}/{run_id}"}
                return Response(orjson.dumps(body), 202, headers=where, media_type=JSON)
            case _:
                raise NotFoundError(_UNKNOWN)


def read_value(raw: bytes, content_type: str, limit: int) -> Json:
    """What a body says. 400 for what says that it is JSON, and is none."""
    kind = content_type.partition(";")[0].strip().lower()
    if not raw:
        return {}
    if kind == _FORM:
        form = _form(raw)
        if form is not None:
            return form
    elif kind == "application/json" or kind.endswith("+json"):
        return parse_json(raw, limit)
    elif raw.lstrip()[:1] in (b"{", b"["):
        try:
            return parse_json(raw, limit)
        except Refusal:
            pass  # nobody said that it is JSON
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = "\0"
    return {"raw_base64": base64.b64encode(raw).decode()} if "\0" in text else {"raw": text}


def _form(raw: bytes) -> dict[str, Json] | None:
    """A form as an object; a field that comes several times is a list."""
    try:
        pairs = parse_qsl(
            raw.decode(), keep_blank_values=True, max_num_fields=MOST_FIELDS, errors="strict"
        )
    except ValueError:
        return None
    form: dict[str, Json] = {}
    for name, text in pairs:
        if "\0" in name or "\0" in text:
            return None
        if name not in form:
            form[name] = text
        elif isinstance(form[name], list):
            form[name].append(text)
        else:
            form[name] = [form[name], text]
    return form


def _input(address: Address, value: Json, headers: Mapping[str, str], request: Request) -> bytes:
    wanted = FORWARDED | address.headers
    kept = {name: _clean(text) for name, text in headers.items() if name in wanted}
    query = {_clean(name): _clean(text) for name, text in request.query_params.items()}
    return orjson.dumps({"body": value, "headers": kept, "query": query})


def _clean(text: str) -> str:
    """Text that every part of the system can carry."""
    return text.replace("\0", "").encode(errors="replace").decode()


def _headers(request: Request) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in request.scope["headers"]:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        found[key] = f"{found[key]}, {text}" if key in found else text
    return found


def _key(address: Address, event: str) -> bytes | None:
    if not event:
        return None
    return run_key(address.org, address.workflow_id, address.node, SOURCE, event)


def _challenge(address: Address, value: Json) -> Response | None:
    """Slack asks once whether the address is ours; its question is signed like everything else."""
    asked = members(value)
    if address.verification.scheme != "slack" or asked.get("type") != "url_verification":
        return None
    return Response(orjson.dumps({"challenge": asked.get("challenge")}), media_type=JSON)
