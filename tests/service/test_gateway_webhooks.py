"""The public door: who may knock, what a run gets to see, and that nothing starts twice."""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from types import SimpleNamespace
from typing import Any

import httpx
import orjson
import pytest

from pipeline.gateway import webhooks
from tests.fix_gateway import DEFINITIONS, RUNS, Doors, Gate, graph, save, save_active, webhook

SECRET = "It's a Secret to Everybody"


@pytest.fixture
async def public(doors: Doors) -> httpx.AsyncClient:
    """Somebody without a key."""
    return await doors(key="")


async def open_hook(door: httpx.AsyncClient, **config: Any) -> str:
    """The path of an active webhook."""
    config.setdefault("verification", "none")
    path: str = (await save_active(door, graph(webhook(**config))))["webhooks"][0]["path"]
    return path


async def signed_hook(door: httpx.AsyncClient, verification: Any, secret: str = SECRET) -> str:
    saved = await save(door, graph(webhook(verification=verification)))
    place = f"{DEFINITIONS}/{saved['id']}"
    answer = await door.put(f"{place}/webhooks/hook/secret", json={"secret": secret})
    assert answer.status_code == 204, answer.text
    active = await door.patch(f"{place}/status", json={"status": "active"})
    path: str = active.json()["webhooks"][0]["path"]
    return path


async def data_of(door: httpx.AsyncClient, answer: httpx.Response) -> Any:
    assert answer.status_code == 202, answer.text
    return (await door.get(f"{RUNS}/{answer.json()['run_id']}")).json()["trigger_data"]


def github(body: bytes) -> dict[str, str]:
    return {
        "x-hub-signature-256": "sha256=" + hmac.new(SECRET.encode(), body, "sha256").hexdigest()
    }


async def count(door: httpx.AsyncClient) -> int:
    return len((await door.get(RUNS)).json()["data"])


async def test_a_webhook_starts_a_run_with_what_was_sent(
    door: httpx.AsyncClient, public: httpx.AsyncClient
) -> None:
    path = await open_hook(door)
    answer = await public.post(
        f"{path}?source=shop",
        json={"order": {"id": 7}},
        headers={"x-github-event": "push", "authorization": "Bearer x", "cookie": "c=1"},
    )
    data = await data_of(door, answer)
    assert data["body"] == {"order": {"id": 7}}
    assert data["query"] == {"source": "shop"}
    assert data["headers"]["x-github-event"] == "push"
    assert not {"authorization", "cookie"} & set(data["headers"])
    run = (await door.get(f"{RUNS}/{answer.json()['id']}")).json()
    assert (run["source"], run["trigger_node"]) == ("webhook", "hook")


async def test_a_trigger_may_name_further_headers(
    door: httpx.AsyncClient, public: httpx.AsyncClient
) -> None:
    path = await open_hook(door, headers=["X-Tenant"])
    answer = await public.post(path, json={}, headers={"x-tenant": "t1", "x-other": "o"})
    headers = (await data_of(door, answer))["headers"]
    assert headers["x-tenant"] == "t1"
    assert "x-other" not in headers


@pytest.mark.parametrize(
    ("content", "kind", "body"),
    [
        (b'{"a": [1, 2.5, null]}', "application/json", {"a": [1, 2.5, None]}),
        (b'{"a": 1}', "application/cloudevents+json", {"a": 1}),
        (b'{"a": 1}', "text/plain", {"a": 1}),
        (b"[1]", None, [1]),
        (b"", "application/json", {}),
        (
            b"a=1&b=2&b=3&c=",
            "application/x-www-form-urlencoded",
            {"a": "1", "b": ["2", "3"], "c": ""},
        ),
        (b"plain words", "text/plain", {"raw": "plain words"}),
        (b"{not json", "text/plain", {"raw": "{not json"}),
        (b"\xff\x00", "application/octet-stream", {"raw_base64": "/wA="}),
        (
            b'{"files": {"x": {"filepath": "/etc/passwd"}}}',
            "multipart/form-data; boundary=x",
            {"files": {"x": {"filepath": "/etc/passwd"}}},
        ),
    ],
)
async def test_a_body_is_read_for_what_it_is(
    door: httpx.AsyncClient,
    public: httpx.AsyncClient,
    content: bytes,
    kind: str | None,
    body: Any,
) -> None:
    path = await open_hook(door)
    headers = {"content-type": kind} if kind else {}
    answer = await public.post(path, content=content, headers=headers)
    assert (await data_of(door, answer))["body"] == body


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b'{"a": ' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"a": 123456789012345678901234567890}',
        b'{"a": 1e999}',
        b'{"a": "\\u0000"}',
        b'{"a": "\\ud800"}',
        b'{"a": NaN}',
    ],
)
async def test_hostile_json_is_refused_and_starts_nothing(
    door: httpx.AsyncClient, public: httpx.AsyncClient, content: bytes
) -> None:
    path = await open_hook(door)
    answer = await public.post(path, content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_json"
    assert await count(door) == 0


async def test_an_unknown_address_is_a_404(public: httpx.AsyncClient) -> None:
    for token in ("x", "x" * 40, "x" * 4_000, "%01", "..%2f..%2fetc"):
        answer = await public.post(f"/webhooks/workflow/{token}", json={})
        assert answer.status_code == 404


async def test_an_address_of_a_paused_workflow_is_a_404_until_it_goes_on(
    door: httpx.AsyncClient, public: httpx.AsyncClient
) -> None:
    active = await save_active(door, graph(webhook(verification="none")))
    path, place = active["webhooks"][0]["path"], f"{DEFINITIONS}/{active['id']}/status"
    assert (await public.post(path, json={})).status_code == 202
    await door.patch(place, json={"status": "paused"})
    refused = await public.post(path, json={})
    unknown = await public.post("/webhooks/workflow/nobody", json={})
    assert refused.status_code == unknown.status_code == 404
    assert refused.json()["detail"] == unknown.json()["detail"]
    await door.patch(place, json={"status": "active"})
    assert (await public.post(path, json={})).status_code == 202
    assert await count(door) == 2


async def test_a_good_signature_starts_a_run_and_a_wrong_one_none(
    door: httpx.AsyncClient, public: httpx.AsyncClient
) -> None:
    path, body = await signed_hook(door, "github"), b'{"action": "opened"}'
    assert (await public.post(path, content=body, headers=github(body))).status_code == 202
    for headers in ({}, github(b"other"), {"x-hub-signature-256": "sha256=é".encode()}, {"x": "y"}):
        answer = await public.post(path, content=body, headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == 401
    assert await count(door) == 1


async def test_the_bytes_are_signed_and_not_what_they_mean(
    door: httpx.AsyncClient, public: httpx.AsyncClient
) -> None:
    path, body = await signed_hook(door, "github"), b'{"a":1}'
    answer = await public.post(path, content=b'{"a": 1}', headers=github(body))
    assert answer.status_code == 401


async def test_a_secret_that_was_replaced_counts_no_more(
    door: httpx.AsyncClient, public: httpx.AsyncClient
) -> None:
    saved = await save(door, graph(webhook(verification="github")))
    place = f"{DEFINITIONS}/{saved['id']}"
    await door.put(f"{place}/webhooks/hook/secret", json={"secrets": ["new", SECRET]})
    active = await door.patch(f"{place}/status", json={"status": "active"})
    path = active.json()["webhooks"][0]["path"]
    assert (await public.post(path, content=b"1", headers=github(b"1"))).status_code == 202
    await door.put(f"{place}/webhooks/hook/secret", json={"secret": "new"})
    assert (await public.post(path, content=b"2", headers=github(b"2"))).status_code == 401


async def test_a_delivery_that_comes_again_is_the_same_run(
    door: httpx.AsyncClient, public: httpx.AsyncClient
) -> None:
    key = base64.b64encode(b"k" * 24).decode()
    path = await signed_hook(door, "standard", f"whsec_{key}")

    async def deliver(name: str) -> str:
        stamp = str(int(time.time()))
        signed = hmac.digest(b"k" * 24, f"{name}.{stamp}.".encode() + b"{}", hashlib.sha256)
        answer = await public.post(
            path,
            content=b"{}",
            headers={
                "webhook-id": name,
                "webhook-timestamp": stamp,
                "webhook-signature": f"v1,{base64.b64encode(signed).decode()}",
            },
        )
        assert answer.status_code == 202, answer.text
        return str(answer.json()["run_id"])

    first = await deliver("msg_1")
    assert await deliver("msg_1") == first
    assert await deliver("msg_2") != first
    assert await count(door) == 2


async def test_a_captured_request_starts_nothing_under_a_new_id(
    door: httpx.AsyncClient, public: httpx.AsyncClient
) -> None:
    path, body = await signed_hook(door, "github"), b'{"n": 1}'
    answers = [
        await public.post(path, content=body, headers=github(body) | {"x-github-delivery": name})
        for name in ("one", "two")
    ]
    assert answers[0].json()["run_id"] == answers[1].json()["run_id"]
    assert await count(door) == 1


async def test_two_spans_of_the_window_are_one(
    door: httpx.AsyncClient, public: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, body = await signed_hook(door, "github"), b'{"n": 1}'
    runs = []
    for now in (5_999.0, 6_001.0, 9_000.0):
        monkeypatch.setattr(webhooks, "time", SimpleNamespace(time=lambda now=now: now))
        answer = await public.post(path, content=body, headers=github(body))
        runs.append(answer.json()["run_id"])
    assert runs[0] == runs[1] != runs[2]


async def test_an_open_address_counts_every_request(
    door: httpx.AsyncClient, public: httpx.AsyncClient
) -> None:
    path = await open_hook(door)
    runs = {(await public.post(path, json={"same": 1})).json()["run_id"] for _ in range(2)}
    assert len(runs) == 2
    named = {"idempotency-key": "k"}
    runs = {(await public.post(path, json={}, headers=named)).json()["run_id"] for _ in range(2)}
    assert len(runs) == 1


async def test_a_compressed_body_is_refused(
    door: httpx.AsyncClient, public: httpx.AsyncClient
) -> None:
    path = await open_hook(door)
    answer = await public.post(path, content=b"x", headers={"content-encoding": "gzip"})
    assert answer.status_code == 415


async def test_a_body_is_limited_while_it_is_read(
    door: httpx.AsyncClient, public: httpx.AsyncClient, gate: Gate
) -> None:
    path = await open_hook(door)
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        for _ in range(60):
            sent += 1_000_000
            yield b"x" * 1_000_000

    answer = await public.post(path, content=endless())
    assert answer.status_code == 413
    assert sent <= gate.ports.settings.max_input_bytes + 2_000_000


async def test_a_schema_of_the_trigger_is_kept(
    door: httpx.AsyncClient, public: httpx.AsyncClient
) -> None:
    path = await open_hook(door, input_schema={"type": "object", "required": ["id"]})
    assert (await public.post(path, json={"id": 1})).status_code == 202
    refused = await public.post(path, json={"name": 1})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["message"] == '"id" is a required property.'


async def test_a_saved_change_of_the_trigger_holds_at_once(
    door: httpx.AsyncClient, public: httpx.AsyncClient
) -> None:
    active = await save_active(door, graph(webhook(verification="none")))
    path = active["webhooks"][0]["path"]
    assert (await public.post(path, json={})).status_code == 202
    stricter = webhook(verification="none", input_schema={"required": ["id"]})
    saved = await door.put(f"{DEFINITIONS}/{active['id']}", json={"definition": graph(stricter)})
    assert saved.status_code == 200
    assert (await public.post(path, json={})).status_code == 422


async def test_slack_is_answered_when_it_asks_for_the_address(
    door: httpx.AsyncClient, public: httpx.AsyncClient
) -> None:
    path = await signed_hook(door, "slack")
    body = orjson.dumps({"type": "url_verification", "challenge": "3eZbrw1a"})
    stamp = str(int(time.time()))
    digest = hmac.new(SECRET.encode(), f"v0:{stamp}:".encode() + body, "sha256").hexdigest()
    headers = {"x-slack-request-timestamp": stamp, "x-slack-signature": f"v0={digest}"}
    answer = await public.post(path, content=body, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"challenge": "3eZbrw1a"})
    assert (await public.post(path, content=body)).status_code == 401
    assert await count(door) == 0


async def test_an_address_takes_so_many_deliveries_a_second(
    gate: Gate, door: httpx.AsyncClient, public: httpx.AsyncClient
) -> None:
    rates = gate.ports.rates
    rates.rate = 2.0
    one, other = await open_hook(door), await open_hook(door)
    answers = [await public.post(one, json={}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    assert answers[-1].headers["retry-after"] == "1"
    assert answers[-1].json()["code"] == "too_many_requests"
    assert (await public.post(other, json={})).status_code == 202
    token = one.rpartition("/")[2]
    held, since = rates._buckets[token]
    rates._buckets[token] = (held, since - 0.5)  # half a second later there is one more
    assert (await public.post(one, json={})).status_code == 202


async def test_what_is_not_signed_takes_nothing_of_the_rate(
    gate: Gate, door: httpx.AsyncClient, public: httpx.AsyncClient
) -> None:
    gate.ports.rates.rate = 1.0
    path = await signed_hook(door, {"scheme": "github"})
    for _ in range(3):
        assert (await public.post(path, content=b"{}")).status_code == 401
    answer = await public.post(path, content=b"{}", headers=github(b"{}"))
    assert answer.status_code == 202
