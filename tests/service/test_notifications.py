"""Notifications: told once, numbered as they are committed, and seen by those who watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any
from uuid import UUID

import httpx
import orjson
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from permaflow.errors import InputError
from permaflow.ports import Notice
from pipeline.bus.subjects import notice as subject
from pipeline.gateway import event_stream
from pipeline.store import keys, notifications
from pipeline.store.database import Database
from pipeline.store.notifications import NotificationStore
from pipeline.wire import Noticed, encode
from tests.fix_engine import graph
from tests.fix_site import RunningSite, Sites

pytestmark = pytest.mark.service

ROOT = "/notifications/v1"
WITHIN = 20.0
ADA = "ada@example.com"


async def tell(store: Database, org: UUID, user: str = ADA, *, title: str = "Hello") -> list[str]:
    return await store.run(notifications.add, org, [user], Notice(title), key=title)


# --- the store ---


async def test_the_same_key_tells_each_user_once(store: Database, org: UUID) -> None:
    first = await store.run(notifications.add, org, ["ada", "bob"], Notice("A"), key="k")
    again = await store.run(notifications.add, org, ["bob", "eve"], Notice("B"), key="k")
    other = await store.run(notifications.add, org, ["ada"], Notice("C"), key="other")

    assert (sorted(first), again, other) == (["ada", "bob"], ["eve"], ["ada"])
    told = await store.run(notifications.after, org, "ada", 0, 10)
    assert [(each.title, each.seq) for each in told] == [("A", 1), ("C", 2)]


async def test_whoever_follows_the_numbers_misses_nothing_while_many_write(
    store: Database, org: UUID
) -> None:
    count, seen = 60, []
    writing = asyncio.gather(*(tell(store, org, title=f"t{n}") for n in range(count)))
    last = 0
    async with asyncio.timeout(WITHIN):
        while len(seen) < count:
            for each in await store.run(notifications.after, org, ADA, last, 7):
                last = each.seq
                seen.append(each.title)
    await writing
    assert sorted(seen) == sorted(f"t{n}" for n in range(count))


async def test_many_attempts_at_once_tell_once(store: Database, org: UUID) -> None:
    told = await asyncio.gather(*(tell(store, org) for _ in range(20)))
    assert sum(map(len, told)) == 1
    assert len(await store.run(notifications.find, org, ADA)) == 1


async def test_a_name_that_is_none_is_refused(store: Database, org: UUID) -> None:
    for user in ("", "a\nb", "x" * 321):
        with pytest.raises(InputError):
            await tell(store, org, user)


# --- watching ---


@pytest.fixture
async def ada(site: RunningSite) -> httpx.AsyncClient:
    """The client of the site, with a key of Ada's."""
    scopes = ["notifications:read", "notifications:write"]
    _, key = await site.engine.database.run(
        keys.create, site.engine.org, "ada", scopes, user_name=ADA
    )
    site.door.headers["authorization"] = f"Bearer {key}"
    return site.door


def told_by(site: RunningSite) -> NotificationStore:
    """What a runner has."""
    engine = site.engine

    def ring(users: list[str]) -> None:
        engine.bus.ring(subject(engine.org.hex), encode(Noticed(users)))

    return NotificationStore(engine.database, engine.org, UUID(int=0), ring)


async def events(client: httpx.AsyncClient, **headers: str) -> AsyncIterator[dict[str, Any]]:
    async with client.stream("GET", f"{ROOT}/stream", headers=headers) as answer:
        assert answer.status_code == 200
        async for line in answer.aiter_lines():
            if line.startswith("data: "):
                yield orjson.loads(line.removeprefix("data: "))


def socket_of(client: httpx.AsyncClient, query: str = "", **more: Any) -> connect:
    url = str(client.base_url).replace("http", "ws", 1).rstrip("/")
    more.setdefault("additional_headers", {"authorization": client.headers["authorization"]})
    return connect(f"{url}{ROOT}/ws{query}", proxy=None, **more)


async def message(socket: ClientConnection) -> dict[str, Any]:
    async with asyncio.timeout(WITHIN):
        heard: dict[str, Any] = orjson.loads(await socket.recv())
        return heard


async def test_a_stream_begins_with_the_unread_and_goes_on_with_the_new(
    site: RunningSite, ada: httpx.AsyncClient
) -> None:
    store = told_by(site)
    await store.add([ADA], Notice("Read"), key="1")
    await store.add([ADA], Notice("Unread", data={"n": 1}), key="2")
    first = (await ada.get(ROOT)).json()["data"]
    assert [each["title"] for each in first] == ["Unread", "Read"]
    assert (await ada.post(f"{ROOT}/{first[1]['id']}/read")).status_code == 204

    async with asyncio.timeout(WITHIN):
        stream = events(ada)
        unread = await anext(stream)
        await store.add([ADA, "bob"], Notice("New"), key="3")
        new = await anext(stream)
        await stream.aclose()  # type: ignore[attr-defined]
        again = events(ada, **{"last-event-id": str(unread["seq"])})
        assert (await anext(again))["title"] == "New"
        await again.aclose()  # type: ignore[attr-defined]
    assert (unread["title"], unread["data"], unread["read_at"]) == ("Unread", {"n": 1}, None)
    assert (new["title"], new["seq"]) == ("New", 3)


async def test_a_lost_ring_delays_and_loses_nothing(
    site: RunningSite, ada: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "LOOK_AGAIN", 0.1)
    async with asyncio.timeout(WITHIN):
        stream = events(ada)
        reading = asyncio.ensure_future(anext(stream))
        await tell(site.engine.database, site.engine.org)
        assert (await reading)["title"] == "Hello"
        await stream.aclose()  # type: ignore[attr-defined]


async def test_a_socket_tells_the_same_and_hears_what_was_read(
    site: RunningSite, ada: httpx.AsyncClient
) -> None:
    store = told_by(site)
    await store.add([ADA], Notice("Before"), key="1")
    async with socket_of(ada) as socket:
        before = await message(socket)
        await store.add([ADA], Notice("After", link="/runs/1"), key="2")
        after = await message(socket)
        await socket.send("nonsense")
        await socket.send(orjson.dumps({"read": before["id"]}).decode())
        async with asyncio.timeout(WITHIN):
            while len((await ada.get(ROOT, params={"unread": True})).json()["data"]) > 1:
                pass
    assert [before["title"], after["title"], after["link"]] == ["Before", "After", "/runs/1"]
    async with socket_of(ada, f"?last_event_id={before['seq']}") as socket:
        assert (await message(socket))["title"] == "After"


async def test_a_key_that_may_only_read_marks_nothing_over_a_socket(
    site: RunningSite, ada: httpx.AsyncClient
) -> None:
    await told_by(site).add([ADA], Notice("One"), key="1")
    await told_by(site).add([ADA], Notice("Two"), key="2")
    scopes = ["notifications:read"]
    _, key = await site.engine.database.run(
        keys.create, site.engine.org, "reads", scopes, user_name=ADA
    )
    reader = {"authorization": f"Bearer {key}"}
    async with socket_of(ada, additional_headers=reader) as only_reads, socket_of(ada) as socket:
        one, two = await message(only_reads), await message(only_reads)
        refused = await ada.post(f"{ROOT}/{one['id']}/read", headers=reader)
        assert (refused.status_code, refused.json()["code"]) == (403, "missing_scope")
        for each in (one, two):
            await only_reads.send(orjson.dumps({"read": each["id"]}).decode())
        await (await only_reads.ping())  # it has come
        await socket.send(orjson.dumps({"read": one["id"]}).decode())
        async with asyncio.timeout(WITHIN):
            while len(left := (await ada.get(ROOT, params={"unread": True})).json()["data"]) > 1:
                pass
    assert [each["title"] for each in left] == ["Two"]


async def test_a_browser_gives_its_key_as_a_subprotocol(
    site: RunningSite, ada: httpx.AsyncClient
) -> None:
    await told_by(site).add([ADA], Notice("Hello"), key="1")
    key = ada.headers["authorization"].removeprefix("Bearer ")
    offered = [Subprotocol("permaflow.notifications.v1"), Subprotocol(f"permaflow.key.{key}")]
    async with socket_of(ada, subprotocols=offered, additional_headers={}) as socket:
        assert socket.subprotocol == "permaflow.notifications.v1"
        assert (await message(socket))["title"] == "Hello"


@pytest.mark.parametrize(
    ("key", "query", "status"),
    [("pf_wrong", "", 401), (None, "?user=bob", 403), (None, "?last_event_id=x", 400)],
)
async def test_a_socket_is_refused_before_it_is_opened(
    ada: httpx.AsyncClient, key: str | None, query: str, status: int
) -> None:
    headers = {"authorization": f"Bearer {key}" if key else ada.headers["authorization"]}
    with pytest.raises(InvalidStatus) as refused:
        await socket_of(ada, query, additional_headers=headers)
    assert refused.value.response.status_code == status


async def test_a_socket_ends_when_the_key_is_revoked(
    site: RunningSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "CHECK_KEY", 0.0)
    monkeypatch.setattr(event_stream, "LOOK_AGAIN", 0.1)
    made, text = await site.engine.database.run(
        keys.create, site.engine.org, "bob", ["notifications:read"], user_name="bob"
    )
    headers = {"authorization": f"Bearer {text}"}
    async with socket_of(site.door, additional_headers=headers) as socket:
        await site.engine.database.run(keys.revoke, site.engine.org, made.id)
        with pytest.raises(ConnectionClosed) as closed:
            await message(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4401


async def test_sockets_end_with_the_process_and_say_so(sites: Sites) -> None:
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(sites())
        socket = await stack.enter_async_context(socket_of(site.door, "?user=ada"))
        site.gateway.application.close()
        with pytest.raises(ConnectionClosed) as closed:
            await message(socket)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1001


async def test_only_an_admin_reads_for_somebody_else(
    site: RunningSite, ada: httpx.AsyncClient
) -> None:
    await told_by(site).add(["bob"], Notice("For Bob"), key="1")
    assert (await ada.get(ROOT, params={"user": "bob"})).status_code == 403
    assert (await ada.get(ROOT, params={"user": ADA})).json()["data"] == []
    _, key = await site.engine.database.run(keys.create, site.engine.org, "root", ["admin"])
    ada.headers["authorization"] = f"Bearer {key}"
    assert (await ada.get(ROOT)).json()["code"] == "bad_parameter"
    [found] = (await ada.get(ROOT, params={"user": "bob"})).json()["data"]
    assert found["title"] == "For Bob"
    others = f"{ROOT}/{found['id']}/read"
    assert (await ada.post(others, params={"user": "eve"})).status_code == 404
    assert (await ada.post(others, params={"user": "bob"})).status_code == 204


async def test_all_up_to_one_are_read_at_once_and_pages_follow_each_other(
    site: RunningSite, ada: httpx.AsyncClient
) -> None:
    for number in range(5):
        await told_by(site).add([ADA], Notice(f"n{number}"), key=str(number))
    page = (await ada.get(ROOT, params={"limit": 3})).json()
    rest = (await ada.get(ROOT, params={"limit": 3, "cursor": page["next_cursor"]})).json()
    titles = [each["title"] for each in page["data"] + rest["data"]]
    assert titles == ["n4", "n3", "n2", "n1", "n0"]
    body = {"upto": page["data"][1]["seq"]}
    assert (await ada.post(f"{ROOT}/read", json=body)).json() == {"count": 4}
    assert (await ada.post(f"{ROOT}/read", json=body)).json() == {"count": 0}
    unread = (await ada.get(ROOT, params={"unread": True})).json()["data"]
    assert [each["title"] for each in unread] == ["n4"]


async def test_a_run_tells_a_user_who_watches(site: RunningSite, ada: httpx.AsyncClient) -> None:
    config = {
        "recipient": "{{trigger.who}}",
        "payload": {"title": "Approved!", "description": "See {{trigger.link}}."},
    }
    node = {"id": "tell", "type": "action_notification", "config": config}
    workflow_id = await site.engine.workflow(graph(node, edges=["t>tell"]))
    async with socket_of(ada) as socket:
        [run_id] = await site.engine.start(workflow_id, {"who": ADA, "link": "/r/1"})
        heard = await message(socket)
    assert (heard["title"], heard["description"]) == ("Approved!", "See /r/1.")
    assert heard["run_id"] == str(run_id)
    assert (await site.engine.until(run_id)).status == "completed"


async def test_a_notification_block_of_a_dag_tells_its_recipient(
    site: RunningSite, ada: httpx.AsyncClient
) -> None:
    block = {
        "name": "Tell the requester",
        "type": "NOTIFICATION",
        "arguments": [
            {"recipient": ADA},
            {"payload": {"title": "Your request was approved!", "description": "Check it."}},
        ],
        "status": "PENDING",
    }
    dag = {"dag": {"entrypoint": block["name"], "exitpoints": [block["name"]], "tasks": [block]}}
    workflow_id = await site.engine.workflow(dag)
    [run_id] = await site.engine.start(workflow_id)
    assert (await site.engine.until(run_id)).status == "completed"
    [found] = (await ada.get(ROOT)).json()["data"]
    assert found["title"] == "Your request was approved!"
