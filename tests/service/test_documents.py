"""Documents and secrets: what the gateway gives out, and what it never does."""

from __future__ import annotations

from uuid import UUID

import httpx
import pytest
from uuid_utils.compat import uuid7

from permaflow.errors import NotFoundError, SecretHostError, SettingsError
from permaflow.ports import Document
from pipeline.store import audit, documents, named_secrets, retention
from pipeline.store.database import Database
from pipeline.store.documents import DocumentStore
from pipeline.store.named_secrets import StoredSecrets
from pipeline.store.secrets import SecretBox, open_box
from tests.fix_gateway import Doors
from tests.fix_store import execute

pytestmark = pytest.mark.service

SECRETS = "/secrets/v1"
EVIL = b"<script>alert(1)</script>"


@pytest.fixture
def box() -> SecretBox:
    return SecretBox({"k1": bytes(range(32))})


# --- documents ---


async def test_a_document_is_given_out_as_an_attachment_that_may_do_nothing(
    door: httpx.AsyncClient, store: Database, org: UUID
) -> None:
    document_id = uuid7()
    document = Document('q1 "ü"\r\n;.html', "text/html; charset=utf-8", EVIL)
    await store.run(documents.put, org, document_id, document, None)

    answer = await door.get(f"/documents/v1/{document_id}")
    assert (answer.status_code, answer.content) == (200, EVIL)
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["content-disposition"] == (
        "attachment; filename=\"q1 ______.html\"; filename*=UTF-8''q1%20%22%C3%BC%22%0D%0A%3B.html"
    )
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"].startswith("sandbox; default-src 'none'")
    assert answer.headers["cache-control"] == "private, no-store"


@pytest.mark.parametrize("kind", ["text/plain\r\nX-Evil: 1", "text/ü"])
async def test_a_type_that_is_none_is_not_told(
    door: httpx.AsyncClient, store: Database, org: UUID, kind: str
) -> None:
    document_id = uuid7()
    await store.run(documents.put, org, document_id, Document("a", kind, b"x"), None)
    answer = await door.get(f"/documents/v1/{document_id}")
    assert answer.headers["content-type"] == "application/octet-stream"
    assert "x-evil" not in answer.headers


async def test_a_document_needs_a_key_that_reads_runs(doors: Doors) -> None:
    path = f"/documents/v1/{uuid7()}"
    assert (await (await doors("records:read")).get(path)).status_code == 403
    assert (await (await doors("runs:read")).get(path)).status_code == 404


async def test_what_is_put_again_stays_and_others_do_not_see_it(
    store: Database, org: UUID, other_org: UUID
) -> None:
    ours = DocumentStore(store, org, uuid7(), "https://flows.example.com")
    first = await ours.put(Document("a.csv", "text/csv", b"1"), key="k")
    again = await ours.put(Document("b.csv", "text/csv", b"2"), key="k")
    assert again == first
    assert first.link == f"https://flows.example.com/documents/v1/{first.id}"
    assert (await ours.get(first.id)).body == b"1"
    theirs = DocumentStore(store, other_org, uuid7(), "")
    for wanted in (first.id, "nonsense"):
        with pytest.raises(NotFoundError):
            await theirs.get(wanted)


async def test_old_documents_and_notifications_are_removed(store: Database, org: UUID) -> None:
    old, new = uuid7(), uuid7()
    for document_id in (old, new):
        await store.run(documents.put, org, document_id, Document("a", "text/csv", b""), None)
    ago = "clock_timestamp() - interval '3 days'"
    await execute(store, f"update permaflow.document set created_at = {ago} where id = %s", (old,))
    await execute(
        store,
        "insert into permaflow.notification"
        " (org_id, id, user_name, seq, title, description, link, data, at)"
        f" values (%s, %s, 'ada', 1, 't', 'd', '', 'null', {ago})",
        (org, uuid7()),
    )
    assert await retention.prune_left_by_actions(store, 2) == 2
    assert await execute(store, "select id from permaflow.document") == [(new,)]


# --- secrets ---


async def test_a_secret_is_set_and_named_and_never_given_out(
    door: httpx.AsyncClient, store: Database, org: UUID, box: SecretBox
) -> None:
    canary = "canary-0123456789"
    assert (await door.put(f"{SECRETS}/crm", json={"value": "first"})).status_code == 204
    assert (await door.put(f"{SECRETS}/crm", json={"value": canary})).status_code == 204

    listed = await door.get(SECRETS)
    assert [each["name"] for each in listed.json()["data"]] == ["crm"]
    assert canary not in listed.text
    assert (await door.get(f"{SECRETS}/crm")).status_code == 405
    [[stored]] = await execute(store, "select encrypted from permaflow.secret")
    assert canary.encode() not in stored
    secrets = StoredSecrets(store, box, org)
    assert await secrets.get("crm") == canary
    assert secrets.used == [canary]
    deeds = await store.run(audit.find, org, object_name="crm")
    assert [each.action for each in deeds] == ["secret.set", "secret.set"]
    assert not any(canary.encode() in each.details for each in deeds)

    assert (await door.delete(f"{SECRETS}/crm")).status_code == 204
    assert (await door.delete(f"{SECRETS}/crm")).status_code == 404
    with pytest.raises(NotFoundError, match="There is no secret 'crm'"):
        await secrets.get("crm")


async def test_only_an_administrator_sets_secrets(doors: Doors) -> None:
    client = await doors("workflows:write", "runs:write", "records:write")
    assert (await client.put(f"{SECRETS}/crm", json={"value": "x"})).status_code == 403


@pytest.mark.parametrize(
    ("name", "value"), [("a b", "x"), ("-a", "x"), ("a", ""), ("a", "x" * 16_001), ("a", "x\0")]
)
async def test_what_is_no_secret_is_refused(door: httpx.AsyncClient, name: str, value: str) -> None:
    answer = await door.put(f"{SECRETS}/{name}", json={"value": value})
    assert 400 <= answer.status_code < 500


async def test_the_gateway_itself_cannot_read_a_secret(
    door: httpx.AsyncClient, gateway: Database, org: UUID, box: SecretBox
) -> None:
    await door.put(f"{SECRETS}/crm", json={"value": "x"})
    from permaflow.errors import StoreError

    with pytest.raises(StoreError, match="permission denied"):
        await StoredSecrets(gateway, box, org).get("crm")


async def test_a_secret_belongs_to_its_place_and_its_key(
    door: httpx.AsyncClient, store: Database, org: UUID, other_org: UUID, box: SecretBox
) -> None:
    await door.put(f"{SECRETS}/crm", json={"value": "x"})
    with pytest.raises(NotFoundError):
        await StoredSecrets(store, box, other_org).get("crm")
    await execute(store, "update permaflow.secret set name = 'other'")
    with pytest.raises(SettingsError, match="belongs elsewhere"):
        await StoredSecrets(store, box, org).get("other")
    with pytest.raises(SettingsError):
        await StoredSecrets(store, SecretBox({}), org).get("other")


async def test_without_a_key_nothing_is_stored(store: Database, org: UUID) -> None:
    with pytest.raises(SettingsError, match="PERMAFLOW_ENCRYPTION_KEYS"):
        await store.run(named_secrets.put, org, "crm", "x", box=open_box(""), by="me")


# --- where a secret may be sent to ---


async def listed(door: httpx.AsyncClient) -> list[str]:
    [only] = (await door.get(SECRETS)).json()["data"]
    hosts: list[str] = only["hosts"]
    return hosts


async def test_a_secret_keeps_its_hosts_until_others_are_named(
    door: httpx.AsyncClient, store: Database, org: UUID, box: SecretBox
) -> None:
    await door.put(f"{SECRETS}/crm", json={"value": "x"})
    assert await listed(door) == []
    hosts = ["CRM.example.com.", "*.example.org", "crm.example.com"]
    await door.put(f"{SECRETS}/crm", json={"value": "x", "hosts": hosts})
    assert await listed(door) == ["*.example.org", "crm.example.com"]
    await door.put(f"{SECRETS}/crm", json={"value": "new"})
    assert await listed(door) == ["*.example.org", "crm.example.com"]
    secrets = StoredSecrets(store, box, org)
    assert await secrets.get("crm") == "new"
    await door.put(f"{SECRETS}/crm", json={"value": "x", "hosts": []})
    assert await listed(door) == []
    deeds = await store.run(audit.find, org, object_name="crm")
    told = [each.details for each in deeds]
    assert sum(b"crm.example.com" in each for each in told) == 2


async def test_an_attempt_that_has_a_secret_may_go_to_its_hosts_alone(
    door: httpx.AsyncClient, store: Database, org: UUID, box: SecretBox
) -> None:
    await door.put(f"{SECRETS}/crm", json={"value": "x", "hosts": ["crm.example.com"]})
    await door.put(f"{SECRETS}/any", json={"value": "y"})
    secrets = StoredSecrets(store, box, org)
    assert await secrets.get("any") == "y"
    secrets.check("evil.example")
    assert await secrets.get("crm") == "x"
    secrets.check("crm.example.com")
    with pytest.raises(SecretHostError, match=r"'crm' may be sent to crm\.example\.com alone, and"):
        secrets.check("evil.example")


async def test_who_changes_the_hosts_in_the_database_makes_the_secret_useless(
    door: httpx.AsyncClient, store: Database, org: UUID, box: SecretBox
) -> None:
    await door.put(f"{SECRETS}/crm", json={"value": "x", "hosts": ["crm.example.com"]})
    for hosts in ("'{}'", "'{evil.example}'"):
        await execute(store, f"update permaflow.secret set hosts = {hosts}")
        with pytest.raises(SettingsError, match="belongs elsewhere"):
            await StoredSecrets(store, box, org).get("crm")


@pytest.mark.parametrize(
    "hosts", [["https://crm.example.com"], ["crm.example.com/x"], ["*"], [""], ["a"] * 21, "a", [1]]
)
async def test_what_is_no_host_is_refused(door: httpx.AsyncClient, hosts: object) -> None:
    answer = await door.put(f"{SECRETS}/crm", json={"value": "x", "hosts": hosts})
    assert 400 <= answer.status_code < 500
    assert (await door.get(SECRETS)).json()["data"] == []
