"""`action_http` with credentials and files, on a real server of this machine."""

from __future__ import annotations

import base64
from datetime import timedelta
from email import message_from_bytes
from email.policy import HTTP

import pytest

from connectors.http_transport import GuardedHttp
from permaflow.errors import NotFoundError
from permaflow.ports import Document, StoredDocument
from permaflow.task import Done, Reject, Retry
from permaflow.testing.task import config_of, make_context
from stages.http import task_type
from tests.connectors.sites import Site, answer

RAW = bytes(range(256))


class Vault:
    """Secrets by name."""

    async def get(self, name):
        if name != "crm":
            raise NotFoundError(f"There is no secret {name!r}.")
        return "t0ken"


class Shelf:
    """Documents: one to send, and those that are kept."""

    def __init__(self):
        self.kept = {}

    async def get(self, document_id):
        if document_id != "d1":
            raise NotFoundError(f"There is no document {document_id}.")
        return Document("q1 ü.csv", "text/csv; charset=utf-8", b"a;b\r\n")

    async def put(self, document, *, key):
        self.kept[key] = document
        return StoredDocument("d2", "/documents/v1/d2")


async def ask(site, shelf=None, *, attempt=1, timeout=None, **config):
    async with GuardedHttp(allow=[site.permit]) as http:
        more = {"timeout": timeout} if timeout else {}
        context = make_context(
            http=http, secrets=Vault(), documents=shelf or Shelf(), attempt=attempt, **more
        )
        given = {"url": site.url, "method": "POST"} | config
        return await task_type.run(config_of(task_type, **given), context)


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        ({"type": "bearer", "secret": "crm"}, "authorization", "Bearer t0ken"),
        (
            {"type": "basic", "secret": "crm", "user": "ada"},
            "authorization",
            "Basic " + base64.b64encode(b"ada:t0ken").decode(),
        ),
        ({"type": "header", "secret": "crm"}, "x-api-key", "t0ken"),
        (
            {"type": "header", "secret": "crm", "name": "Authorization", "prefix": "Token "},
            "authorization",
            "Token t0ken",
        ),
    ],
)
async def test_who_asks_is_told_by_the_secret_that_is_named(auth, header, value):
    async with Site() as site:
        assert isinstance(await ask(site, auth=auth), Done)
    assert site.seen[0].headers[header] == value


async def test_a_secret_that_is_not_there_rejects_the_step_before_anything_is_sent():
    async with Site() as site:
        verdict = await ask(site, auth={"type": "bearer", "secret": "other"})
    assert isinstance(verdict, Reject)
    assert verdict.code == "not_found"
    assert site.seen == []


@pytest.mark.parametrize(
    "auth",
    [
        {"type": "bearer"},
        {"type": "digest", "secret": "crm"},
        {"type": "basic", "secret": "crm", "user": "a:b"},
        {"type": "bearer", "secret": "crm", "token": "written out"},
    ],
)
def test_credentials_that_mean_nothing_are_refused(auth):
    with pytest.raises(ValueError):
        config_of(task_type, url="https://x.example", auth=auth)


async def test_a_secret_with_a_line_break_is_no_second_header():
    class Broken(Vault):
        async def get(self, name):
            return "a\r\nX-Evil: 1"

    async with Site() as site, GuardedHttp(allow=[site.permit]) as http:
        context = make_context(http=http, secrets=Broken())
        config = {"url": site.url, "auth": {"type": "bearer", "secret": "crm"}}
        verdict = await task_type.run(config_of(task_type, **config), context)
    assert isinstance(verdict, Reject)
    assert site.seen == []


async def test_credentials_do_not_follow_to_another_origin():
    async with Site() as elsewhere, Site() as site:
        site.reply = lambda seen: answer(307, {"Location": elsewhere.url})
        async with GuardedHttp(allow=[site.permit, elsewhere.permit]) as http:
            context = make_context(http=http, secrets=Vault())
            config = {"url": site.url, "auth": {"type": "bearer", "secret": "crm"}}
            await task_type.run(config_of(task_type, **config), context)
    assert "authorization" in site.seen[0].headers
    assert "authorization" not in elsewhere.seen[0].headers


async def test_bytes_and_documents_are_bodies():
    async with Site() as site:
        await ask(site, base64=base64.b64encode(RAW).decode())
        await ask(site, base64="", content_type="image/png")
        await ask(site, document="d1")
        wrong = await ask(site, base64="nonsense!")
        missing = await ask(site, document="d9")

    raw, empty, document = site.seen
    assert (raw.headers["content-type"], raw.body) == ("application/octet-stream", RAW)
    assert (empty.headers["content-type"], empty.body) == ("image/png", b"")
    assert (document.headers["content-type"], document.body) == (
        "text/csv; charset=utf-8",
        b"a;b\r\n",
    )
    assert isinstance(wrong, Reject)
    assert isinstance(missing, Reject)


async def test_a_form_with_files_is_read_as_it_was_meant():
    parts = [
        {"name": "text", "text": "grüße"},
        {"name": 'na"me\r\nX: y', "text": "<b>", "filename": "a.html", "content_type": "text/html"},
        {"name": "raw", "base64": base64.b64encode(RAW).decode(), "filename": "raw.bin"},
        {"name": "report", "document": "d1"},
    ]
    async with Site() as site:
        assert isinstance(await ask(site, multipart=parts), Done)
        await ask(site, multipart=parts, attempt=2)

    first, second = site.seen
    assert first.body == second.body
    head = f"Content-Type: {first.headers['content-type']}\r\n\r\n".encode()
    read = message_from_bytes(head + first.body, policy=HTTP)
    fields = [
        (
            part.get_param("name", header="content-disposition"),
            part.get_filename(),
            part.get_content_type(),
            part.get_payload(decode=True),
        )
        for part in read.iter_parts()
    ]
    assert fields[0] == ("text", None, "text/plain", "grüße".encode())
    assert fields[1] == ("na%22me%0D%0AX: y", "a.html", "text/html", b"<b>")
    assert fields[2] == ("raw", "raw.bin", "application/octet-stream", RAW)
    assert fields[3][0] == "report"
    assert fields[3][2:] == ("text/csv", b"a;b\r\n")


async def test_an_answer_may_be_kept_as_a_document_of_each_attempt():
    headers = {"Content-Type": "image/png"}
    shelf = Shelf()
    async with Site(lambda seen: answer(200, headers, RAW)) as site:
        verdict = await ask(site, shelf, response="reference")
        await ask(site, shelf, response="reference", attempt=2)

    assert isinstance(verdict, Done)
    assert verdict.output["body"] == {
        "id": "d2",
        "link": "/documents/v1/d2",
        "content_type": "image/png",
        "size": 256,
    }
    assert [document.body for document in shelf.kept.values()] == [RAW, RAW]


async def test_an_answer_that_failed_is_not_kept():
    shelf = Shelf()
    async with Site(lambda seen: answer(404, {}, b"no")) as site:
        verdict = await ask(site, shelf, response="reference")
    assert isinstance(verdict, Reject)
    assert shelf.kept == {}


async def test_an_answer_above_the_cap_of_the_step_is_not_read():
    async with Site(lambda seen: answer(200, {}, b"x" * 1_001)) as site:
        verdict = await ask(site, max_bytes=1_000)
        fits = await ask(site, max_bytes=1_001)
    assert isinstance(verdict, Reject)
    assert verdict.code == "too_large"
    assert isinstance(fits, Done)


async def test_a_server_that_does_not_answer_in_time_is_tried_again():
    async with Site(lambda seen: None) as site:
        verdict = await ask(site, timeout=timedelta(seconds=0.2))
    assert isinstance(verdict, Retry)
    assert verdict.code == "timeout"


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
async def test_every_method_is_sent(method):
    async with Site(lambda seen: answer(204)) as site:
        verdict = await ask(site, method=method)
    assert isinstance(verdict, Done)
    assert site.seen[0].method == method
