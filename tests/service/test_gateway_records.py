"""The built-in records over HTTP."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

ORDERS = "/records/v1/orders"


async def make(door: httpx.AsyncClient, record_id: str = "o1", **data: Any) -> None:
    answer = await door.post(ORDERS, json={"id": record_id, "data": data})
    assert answer.status_code == 201, answer.text


async def test_a_record_lives(door: httpx.AsyncClient) -> None:
    made = await door.post(ORDERS, json={"data": {"amount": 1}})
    assert made.status_code == 201
    path = made.headers["location"]
    assert path == f"{ORDERS}/{made.json()['id']}"
    assert (await door.get(path)).json() == made.json()
    merged = await door.patch(path, json={"data": {"state": "paid"}})
    assert merged.json()["data"] == {"amount": 1, "state": "paid"}
    replaced = await door.put(path, json={"data": {"state": "sent"}})
    assert (replaced.status_code, replaced.json()["data"]) == (200, {"state": "sent"})
    assert replaced.json()["version"] == 3
    assert (await door.delete(path)).status_code == 204
    assert (await door.get(path)).status_code == 404
    assert (await door.delete(path)).status_code == 404
    assert (await door.patch(path, json={"data": {}})).status_code == 404


async def test_an_id_is_taken_once(door: httpx.AsyncClient) -> None:
    await make(door, amount=1)
    again = await door.post(ORDERS, json={"id": "o1", "data": {"amount": 2}})
    assert again.status_code == 409
    assert (await door.get(f"{ORDERS}/o1")).json()["data"] == {"amount": 1}


@pytest.mark.parametrize("record_id", ["a/b", "/", "a/", "/records/v1/orders", "a%2Fb", "ü ?#"])
async def test_any_id_is_reached_at_its_location(door: httpx.AsyncClient, record_id: str) -> None:
    made = await door.post(ORDERS, json={"id": record_id, "data": {"n": 1}})
    path = made.headers["location"]
    assert (await door.get(path)).json() == made.json()
    assert (await door.patch(path, json={"data": {"n": 2}})).json()["version"] == 2
    assert (await door.put(path, json={"data": {"n": 3}})).json()["id"] == record_id
    assert (await door.delete(path)).status_code == 204
    assert (await door.put(path, json={"data": {}})).headers["location"] == path
    assert [each["id"] for each in (await door.get(ORDERS)).json()["data"]] == [record_id]


@pytest.mark.parametrize("record_id", [".", ".."])
async def test_an_id_that_clients_take_out_of_addresses_is_refused(
    door: httpx.AsyncClient, record_id: str
) -> None:
    made = await door.post(ORDERS, json={"id": record_id, "data": {}})
    put = await door.put(f"{ORDERS}/{record_id.replace('.', '%2E')}", json={"data": {}})
    assert [made.status_code, put.status_code] == [422, 422]
    assert made.json()["errors"][0]["pointer"] == "/id"
    assert put.json()["errors"][0]["pointer"] == "/path/record_id"


async def test_replacing_makes_what_is_not_there(door: httpx.AsyncClient) -> None:
    first = await door.put(f"{ORDERS}/new", json={"data": {}})
    second = await door.put(f"{ORDERS}/new", json={"data": {}})
    assert (first.status_code, second.status_code) == (201, 200)
    old = {"if-match": '"1"'}
    assert (await door.put(f"{ORDERS}/no", json={"data": {}}, headers=old)).status_code == 404


async def test_of_several_that_make_a_record_at_once_each_is_stored(
    door: httpx.AsyncClient,
) -> None:
    for number in range(5):
        path = f"{ORDERS}/new{number}"
        bodies = [{"data": {"n": n}} for n in range(8)]
        told = await asyncio.gather(*(door.put(path, json=body) for body in bodies))
        assert [each.json()["data"] for each in told] == [body["data"] for body in bodies]
        assert sorted(each.status_code for each in told) == [200] * 7 + [201]
        assert (await door.get(path)).json()["version"] == 8


@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE"])
async def test_an_old_version_changes_nothing(door: httpx.AsyncClient, method: str) -> None:
    await make(door, n=1)
    path = f"{ORDERS}/o1"
    tag = (await door.get(path)).headers["etag"]
    await door.patch(path, json={"data": {"n": 2}})
    body = None if method == "DELETE" else {"data": {"n": 3}}
    stale = await door.request(method, path, json=body, headers={"if-match": tag})
    assert stale.status_code == 412
    now = await door.get(path)
    assert now.json()["data"] == {"n": 2}
    fresh = await door.request(method, path, json=body, headers={"if-match": now.headers["etag"]})
    assert fresh.status_code in (200, 204)


async def test_a_list_goes_on_by_id(door: httpx.AsyncClient) -> None:
    for number in range(5):
        await make(door, f"o{number}")
    await door.post("/records/v1/others", json={"id": "x", "data": {}})
    found: list[str] = []
    url: str | None = f"{ORDERS}?limit=2"
    while url:
        answer = await door.get(url)
        found += [each["id"] for each in answer.json()["data"]]
        url = answer.links["next"]["url"] if "next" in answer.links else None
    assert found == [f"o{number}" for number in range(5)]


@pytest.mark.parametrize("name", ["1orders", "or ders", "x" * 101, "%01"])
async def test_an_object_has_a_plain_name(door: httpx.AsyncClient, name: str) -> None:
    assert (await door.get(f"/records/v1/{name}")).status_code == 404


async def test_data_is_an_object(door: httpx.AsyncClient) -> None:
    for body in ({"data": [1]}, {"amount": 1}, {"data": {}, "more": 1}):
        assert (await door.post(ORDERS, json=body)).status_code == 422
