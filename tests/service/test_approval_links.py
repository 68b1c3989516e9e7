"""Links that decide: bound to one person, one approval and one decision, and only by POST."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from pipeline.store import approval_links
from pipeline.store.database import Connection
from tests.fix_approvals import APPROVALS, Gate, Town

pytestmark = pytest.mark.service

HTML = {"accept": "text/html"}


async def links(asked: Gate, user: str, **body: Any) -> dict[str, dict[str, Any]]:
    """The links of a user, by decision."""
    admin = await asked.town.admin()
    answer = await admin.post(f"{APPROVALS}/{asked.id}/links", json={"user": user, **body})
    assert answer.status_code == 201, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return {each["decision"]: each for each in answer.json()["data"]}


@pytest.fixture
async def anybody(town: Town) -> httpx.AsyncClient:
    """A client without a key."""
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(app=town.application.asgi), base_url="http://gateway"
    )
    return await town.stack.enter_async_context(client)


async def test_a_link_decides_for_the_person_it_was_made_for(
    town: Town, anybody: httpx.AsyncClient
) -> None:
    asked = await town.asked(assignees=["ana"])
    made = await links(asked, "ana")
    answer = await anybody.post(made["approve"]["path"], json={"comment": "by mail"})
    assert (answer.status_code, answer.json()["status"]) == (200, "approved")
    _, output = await asked.output()
    assert (output["by"], output["comment"]) == ("ana", "by mail")
    (event,) = (await asked.view())["events"]
    assert event["via"] == f"link:{made['approve']['token'].split('_')[1]}"


async def test_looking_at_a_link_decides_nothing(town: Town, anybody: httpx.AsyncClient) -> None:
    asked = await town.asked(title="Order <7>", assignees=["ana"])
    made = await links(asked, "ana")
    for path in (made["approve"]["path"], made["reject"]["path"]):
        shown = await anybody.get(path)
        assert (shown.status_code, shown.json()["title"]) == (200, "Order <7>")
        page = await anybody.get(path, headers=HTML)
        assert "Order &lt;7&gt;" in page.text
        assert "<7>" not in page.text
        assert 'method="post"' in page.text
        for method in ("HEAD", "OPTIONS", "PUT", "DELETE"):
            assert (await anybody.request(method, path)).status_code in (405, 501), method
    assert (await asked.view())["status"] == "pending"
    assert (await asked.view())["events"] == []


async def test_the_page_of_a_link_keeps_its_address_to_itself(
    town: Town, anybody: httpx.AsyncClient
) -> None:
    asked = await town.asked(assignees=["ana"])
    made = await links(asked, "ana")
    page = await anybody.get(made["approve"]["path"], headers=HTML)
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    form = {"content-type": "application/x-www-form-urlencoded", **HTML}
    done = await anybody.post(made["approve"]["path"], content="comment=fine", headers=form)
    assert done.status_code == 200
    assert "approved" in done.text
    again = await anybody.get(made["approve"]["path"], headers=HTML)
    assert "already" in again.text
    assert "<button" not in again.text


async def test_what_was_asked_is_not_shown_once_the_person_has_decided(
    town: Town, anybody: httpx.AsyncClient
) -> None:
    asked = await town.asked(
        title="Salary of Eve",
        description="From 40 to 50",
        data={"salary": 50},
        form={"type": "object", "description": "of Eve"},
        assignees=["ana", "bob"],
        quorum="all",
    )
    of = {name: await links(asked, name) for name in ("ana", "bob")}
    done = await anybody.post(of["ana"]["approve"]["path"])
    secrets = re.compile("Salary|Eve|50")
    for status in ("pending", "approved"):
        for link in of["ana"].values():
            shown = await anybody.get(link["path"])
            for text in (done.text, shown.text):
                assert not secrets.search(re.sub(r"[0-9a-f-]{36}|[0-9T:.]{15,}", "", text))
            found = shown.json()
            assert (found["status"], found["decided"]) == (status, "approve")
            page = (await anybody.get(link["path"], headers=HTML)).text
            assert f"You have said approve already. It is {status}." in page
            assert not secrets.search(page)
        if status == "pending":
            assert "Salary" in (await anybody.get(of["bob"]["reject"]["path"])).text
            html = await anybody.post(of["bob"]["approve"]["path"], headers=HTML)
            assert "Noted: approve. It is approved now." in html.text
            assert not secrets.search(html.text)


async def test_who_did_not_decide_sees_what_it_came_to_and_nothing_else(
    town: Town, anybody: httpx.AsyncClient
) -> None:
    asked = await town.asked(title="Salary of Eve", assignees=["ana", "bob"])
    made = await links(asked, "bob")
    await asked.reject("ana")
    page = await anybody.get(made["approve"]["path"], headers=HTML)
    assert "It is rejected already." in page.text
    shown = (await anybody.get(made["approve"]["path"])).json()
    assert (shown["status"], shown["decided"], shown["title"]) == ("rejected", None, "")
    assert "Salary" not in page.text


async def test_links_begin_with_the_public_url_whatever_the_host_is(town: Town) -> None:
    asked = await town.asked(assignees=["ana"])
    admin = await town.admin()
    path, forged = f"{APPROVALS}/{asked.id}/links", {"host": "evil.example"}
    made = (await admin.post(path, json={"user": "ana"}, headers=forged)).json()["data"]
    assert {each["url"] for each in made} == {f"http://evil.example{m['path']}" for m in made}
    settings = town.ports.settings.model_copy(update={"public_url": "https://flows.example/"})
    object.__setattr__(town.ports, "settings", settings)
    made = (await admin.post(path, json={"user": "ana"}, headers=forged)).json()["data"]
    assert {each["url"] for each in made} == {f"https://flows.example{m['path']}" for m in made}


async def test_a_link_is_used_once(town: Town, anybody: httpx.AsyncClient) -> None:
    asked = await town.asked(assignees=["ana", "bob"], quorum="all")
    made = await links(asked, "ana")
    assert (await anybody.post(made["approve"]["path"])).status_code == 200
    for each in made.values():
        assert (await anybody.post(each["path"])).status_code == 409


async def test_a_link_is_of_no_use_for_anything_else(
    town: Town, anybody: httpx.AsyncClient
) -> None:
    asked = await town.asked(assignees=["ana"])
    token = (await links(asked, "ana"))["approve"]["token"]
    key = {"authorization": f"Bearer {token}"}
    assert (await anybody.get(f"{APPROVALS}/{asked.id}", headers=key)).status_code == 401
    body = {"decision": "reject"}
    path = f"{APPROVALS}/{asked.id}/respond"
    assert (await anybody.post(path, json=body, headers=key)).status_code == 401
    sent = {"decision": "reject", "user": "bob"}
    assert (await anybody.post(f"{APPROVALS}/links/{token}", json=sent)).status_code == 422
    assert (await asked.view())["status"] == "pending"


async def test_a_wrong_token_is_like_one_that_never_was(
    town: Town, anybody: httpx.AsyncClient
) -> None:
    asked = await town.asked(assignees=["ana"])
    good = (await links(asked, "ana"))["approve"]["token"]
    prefix, number, secret = good.split("_", 2)
    head = f"{prefix}_{number}"
    wrong = [
        f"{head}_{'A' * 43}",
        f"pfa_0123456789abcdef_{secret}",
        head,
        secret,
        "x" * 200,
        good.upper(),
        f"{good}%01",
        f"..%2f{good}",
    ]
    details = set()
    for token in wrong:
        for method in ("GET", "POST"):
            answer = await anybody.request(method, f"{APPROVALS}/links/{token}")
            assert answer.status_code == 404, token
            details.add(answer.json()["detail"])
    assert len(details) <= 2
    assert (await asked.view())["status"] == "pending"


async def test_an_expired_link_is_refused(town: Town, anybody: httpx.AsyncClient) -> None:
    asked = await town.asked(assignees=["ana"])
    token, _ = await town.engine.database.run(
        approval_links.create,
        town.engine.org,
        asked.id,
        "ana",
        "approve",
        timedelta(seconds=-1),
    )
    assert (await anybody.post(f"{APPROVALS}/links/{token}")).status_code == 404


async def test_who_may_no_longer_decide_is_refused_by_link_as_well(
    town: Town, anybody: httpx.AsyncClient
) -> None:
    await town.group("finance", "ana")
    asked = await town.asked(assignees=["group:finance"])
    made = await links(asked, "ana")
    await town.group("finance", "bob")
    assert (await anybody.post(made["approve"]["path"])).status_code == 403


async def test_links_are_made_by_admins_for_people_who_are_asked(town: Town) -> None:
    asked = await town.asked({"who": "eve"}, assignees=["ana", "eve"], requester="{{trigger.who}}")
    ana = await town.person("ana")
    path = f"{APPROVALS}/{asked.id}/links"
    assert (await ana.post(path, json={"user": "ana"})).status_code == 403
    admin = await town.admin()
    for user in ("carl", "eve"):
        assert (await admin.post(path, json={"user": user})).status_code == 403


async def test_only_the_hash_of_a_link_is_kept(town: Town) -> None:
    asked = await town.asked(assignees=["ana"])
    token = (await links(asked, "ana"))["approve"]["token"]
    secret = token.split("_", 2)[2]
    assert re.fullmatch(r"[A-Za-z0-9_-]{43}", secret)

    async def dump(connection: Connection) -> str:
        statement = b"select approval_link::text from permaflow.approval_link"
        cursor = await connection.execute(statement)
        return "".join(row[0] for row in await cursor.fetchall())

    kept = await town.engine.database.run(dump)
    assert "ana" in kept
    assert secret not in kept


async def test_a_link_that_meets_a_broken_store_is_in_no_log(
    town: Town, anybody: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = await town.asked(assignees=["ana"])
    made = (await links(asked, "ana"))["approve"]
    await town.engine.database.run(Connection.execute, b"drop table permaflow.approval_event")
    capsys.readouterr()
    assert (await anybody.post(made["path"])).status_code == 503
    logged = capsys.readouterr().out
    assert "request.failed" in logged
    assert made["token"].split("_", 2)[2] not in logged


async def test_a_link_that_is_tried_too_often_is_put_off(
    town: Town, anybody: httpx.AsyncClient
) -> None:
    path = f"{APPROVALS}/links/pfa_0123456789abcdef_{'A' * 43}"
    found = [(await anybody.post(path)).status_code for _ in range(20)]
    assert 429 in found
    assert set(found) == {404, 429}


async def test_a_link_whose_form_is_not_filled_in_is_refused(
    town: Town, anybody: httpx.AsyncClient
) -> None:
    form = {"type": "object", "required": ["amount"]}
    asked = await town.asked(assignees=["ana"], form=form)
    path = (await links(asked, "ana"))["approve"]["path"]
    assert (await anybody.post(path)).status_code == 422
    assert (await anybody.post(path, json={"data": {"amount": 1}})).status_code == 200


async def test_the_form_of_a_link_has_ten_fields_at_most(
    town: Town, anybody: httpx.AsyncClient
) -> None:
    asked = await town.asked(assignees=["ana"])
    path = (await links(asked, "ana"))["approve"]["path"]
    form = {f"f{number}": "x" for number in range(10)} | {"comment": "fine"}
    refused = await anybody.post(path, data=form)
    assert (refused.status_code, refused.json()["code"]) == (400, "invalid_form")
    del form["f0"]
    assert (await anybody.post(path, data=form)).json()["status"] == "approved"


FILLED = {"content-type": "application/x-www-form-urlencoded", **HTML}
ORDER = {
    "type": "object",
    "properties": {
        "budget": {"type": "string", "enum": ["2026", "2027"], "title": "Whose <budget>"},
        "sum": {"type": "number", "maximum": 10, "description": "In & out"},
        "count": {"type": "integer", "default": 3},
        "urgent": {"type": "boolean"},
        "note": {"type": "string", "default": 'say "hi"'},
        "parts": {"type": "array"},
    },
    "required": ["budget", "urgent"],
}


async def test_the_page_of_a_link_asks_for_the_form_and_sends_its_values(
    town: Town, anybody: httpx.AsyncClient
) -> None:
    asked = await town.asked(assignees=["ana"], form=ORDER)
    made = await links(asked, "ana")
    page = (await anybody.get(made["approve"]["path"], headers=HTML)).text
    assert '<label for="field0">Whose &lt;budget&gt; (required)</label>' in page
    assert '<select id="field0" name="data.budget" required>' in page
    assert '<small id="field1-hint">In &amp; out</small>' in page
    assert 'name="data.count" type="number" step="1" size="50" value="3"' in page
    assert '<option value="true">yes</option>' in page
    assert 'value="say &quot;hi&quot;"' in page
    assert "data.parts" not in page
    assert "data." not in (await anybody.get(made["reject"]["path"], headers=HTML)).text
    sent = {"data.budget": "2027", "data.sum": "2.5", "data.count": "4", "data.urgent": "false"}
    sent |= {"data.note": "é 1", "comment": "fine"}
    content = urlencode(sent)
    done = await anybody.post(made["approve"]["path"], content=content, headers=FILLED)
    assert (done.status_code, "Noted: approve." in done.text) == (200, True)
    _, output = await asked.output()
    data = {"budget": "2027", "sum": 2.5, "count": 4, "urgent": False, "note": "é 1"}
    assert (output["data"], output["comment"]) == (data, "fine")


async def test_what_does_not_fit_the_form_is_asked_again_with_what_was_typed(
    town: Town, anybody: httpx.AsyncClient
) -> None:
    asked = await town.asked(title="Order <7>", assignees=["ana"], form=ORDER)
    path = (await links(asked, "ana"))["approve"]["path"]
    sent = {"data.sum": '"><b>', "data.count": "99", "data.urgent": "true", "comment": "so <so>"}
    again = await anybody.post(path, content=urlencode(sent), headers=FILLED)
    assert again.status_code == 422
    assert again.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in again.headers["content-security-policy"]
    assert '<strong id="field0-problem">Fill this in.</strong>' in again.text
    sent["data.budget"] = "2026"
    again = await anybody.post(path, content=urlencode(sent), headers=FILLED)
    assert again.status_code == 422
    assert 'aria-describedby="field1-hint field1-problem"' in again.text
    assert "is not of type &quot;number&quot;" in again.text
    for kept in ('value="&quot;&gt;&lt;b&gt;"', 'value="99"', 'value="so &lt;so&gt;"'):
        assert kept in again.text
    for kept in ('<option value="true" selected>', '<option value="2026" selected>'):
        assert kept in again.text
    assert "<b>" not in again.text
    told = await anybody.post(path, content=urlencode(sent), headers={**FILLED, "accept": "*/*"})
    (problem,) = told.json()["errors"]
    assert (told.status_code, problem["pointer"]) == (422, "/data/sum")
    long = {**sent, "data.sum": "1", "comment": "x" * 2_001}
    again = await anybody.post(path, content=urlencode(long), headers=FILLED)
    assert (again.status_code, 'id="comment-problem"' in again.text) == (422, True)
    assert (await asked.view())["status"] == "pending"


async def test_a_page_that_cannot_ask_for_the_form_offers_no_button(
    town: Town, anybody: httpx.AsyncClient
) -> None:
    form = {"properties": {"parts": {"type": "array"}}, "required": ["parts", "<i>"]}
    asked = await town.asked(assignees=["ana"], form=form)
    made = await links(asked, "ana")
    page = (await anybody.get(made["approve"]["path"], headers=HTML)).text
    assert "cannot be filled in here: parts, &lt;i&gt;." in page
    assert "<button" not in page
    assert "<button" in (await anybody.get(made["reject"]["path"], headers=HTML)).text


async def test_a_form_of_many_fields_can_be_sent(town: Town, anybody: httpx.AsyncClient) -> None:
    names = [f"f{number}" for number in range(30)]
    form = {"properties": {name: {"type": "string"} for name in names}, "required": names}
    asked = await town.asked(assignees=["ana"], form=form)
    path = (await links(asked, "ana"))["approve"]["path"]
    content = urlencode({f"data.{name}": "x" for name in names})
    assert (await anybody.post(path, content=content, headers=FILLED)).status_code == 200


async def test_a_refused_link_is_a_page_in_a_browser(
    town: Town, anybody: httpx.AsyncClient
) -> None:
    unknown = f"{APPROVALS}/links/pfa_0123456789abcdef_{'A' * 43}"
    for method in ("GET", "POST"):
        page = await anybody.request(method, unknown, headers=HTML)
        assert page.status_code == 404
        assert page.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert "There is no such link, or its time is over." in page.text
    assert (await anybody.get(unknown)).headers["content-type"] == "application/problem+json"
    asked = await town.asked(title="Secret", assignees=["ana"], form=ORDER)
    made = await links(asked, "ana")
    assert (await anybody.post(made["reject"]["path"])).status_code == 200
    page = await anybody.post(made["approve"]["path"], content="comment=", headers=FILLED)
    assert (page.status_code, "<h1>Conflict</h1>" in page.text) == (409, True)
    assert "Secret" not in page.text
