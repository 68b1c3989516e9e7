"""API keys are told once; secrets at rest can only be read where they belong."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from permaflow.errors import NotFoundError, SettingsError
from pipeline.store import keys
from pipeline.store.database import Database
from pipeline.store.secrets import SecretBox, open_box
from tests.fix_store import execute

OLD, NEW = bytes(32), bytes(range(32))
PLACE = "webhook:1:secret"


@pytest.mark.service
async def test_a_key_speaks_for_its_organisation(store: Database, org: UUID) -> None:
    key, text = await store.run(
        keys.create, org, "CI", ["runs:read", "runs:write"], user_name="ann"
    )
    caller = await store.run(keys.verify, text)
    assert caller is not None
    assert (caller.key_id, caller.org, caller.user_name) == (key.id, org, "ann")
    assert caller.scopes == {"runs:read", "runs:write"}


@pytest.mark.service
async def test_the_secret_of_a_key_is_nowhere_in_the_database(store: Database, org: UUID) -> None:
    _, text = await store.run(keys.create, org, "CI", [])
    secret = text.split("_", 2)[2]
    [(row,)] = await execute(store, "select api_key::text from permaflow.api_key")
    assert secret not in row
    assert secret.encode().hex() not in row


@pytest.mark.service
async def test_a_wrong_unknown_or_malformed_key_speaks_for_nobody(
    store: Database, org: UUID
) -> None:
    _, text = await store.run(keys.create, org, "CI", [])
    other = "B" if text[-1] == "A" else "A"
    wrong = ("", "pf_", text[:-1], text[:-1] + other, text.upper(), "pf_" + "0" * 16 + text[19:])
    for attempt in (*wrong, text + "\n", " " + text):
        assert await store.run(keys.verify, attempt) is None, attempt


@pytest.mark.service
async def test_a_revoked_key_is_dead_at_once(store: Database, org: UUID, other_org: UUID) -> None:
    key, text = await store.run(keys.create, org, "CI", [])
    with pytest.raises(NotFoundError):
        await store.run(keys.revoke, other_org, key.id)
    assert await store.run(keys.verify, text) is not None
    await store.run(keys.revoke, org, key.id)
    assert await store.run(keys.verify, text) is None
    [listed] = await store.run(keys.find, org)
    assert listed.revoked_at is not None


@pytest.mark.service
async def test_a_key_ends_when_it_expires(store: Database, org: UUID) -> None:
    now = datetime.now(UTC)
    hour = timedelta(hours=1)
    _, live = await store.run(keys.create, org, "live", [], expires_at=now + hour)
    _, dead = await store.run(keys.create, org, "dead", [], expires_at=now - hour)
    assert await store.run(keys.verify, live) is not None
    assert await store.run(keys.verify, dead) is None


def test_a_secret_comes_back() -> None:
    box = SecretBox({"k1": OLD})
    stored = box.encrypt(b"s3cret", PLACE)
    assert b"s3cret" not in stored
    assert box.decrypt(stored, PLACE) == b"s3cret"
    assert box.encrypt(b"s3cret", PLACE) != stored


def test_a_secret_cannot_be_read_in_another_place() -> None:
    box = SecretBox({"k1": OLD})
    with pytest.raises(SettingsError, match="belongs elsewhere"):
        box.decrypt(box.encrypt(b"s", PLACE), "webhook:2:secret")


def test_a_change_of_any_byte_is_noticed() -> None:
    box = SecretBox({"k1": OLD})
    stored = box.encrypt(b"s3cret", PLACE)
    for position in range(len(stored)):
        changed = bytearray(stored)
        changed[position] ^= 1
        with pytest.raises(SettingsError):
            box.decrypt(bytes(changed), PLACE)
    for length in range(len(stored)):
        with pytest.raises(SettingsError):
            box.decrypt(stored[:length], PLACE)


def test_keys_are_changed_without_a_stop() -> None:
    stored = SecretBox({"k1": OLD}).encrypt(b"s", PLACE)
    both = SecretBox({"k2": NEW, "k1": OLD})
    assert both.decrypt(stored, PLACE) == b"s"
    assert SecretBox({"k2": NEW}).decrypt(both.encrypt(b"s", PLACE), PLACE) == b"s"
    with pytest.raises(SettingsError, match="key 'k1'"):
        SecretBox({"k2": NEW}).decrypt(stored, PLACE)


def test_without_a_key_nothing_is_stored_in_the_clear() -> None:
    with pytest.raises(SettingsError, match="PERMAFLOW_ENCRYPTION_KEYS"):
        open_box("").encrypt(b"s", PLACE)


def test_the_first_key_of_the_setting_encrypts() -> None:
    first, second = (base64.b64encode(key).decode() for key in (NEW, OLD))
    box = open_box(f" k2:{first}, k1:{second} ,")
    assert open_box(f"k2:{first}").decrypt(box.encrypt(b"s", PLACE), PLACE) == b"s"
    assert box.decrypt(open_box(f"k1:{second}").encrypt(b"s", PLACE), PLACE) == b"s"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("hush-hush", "entry 1 is not `id:base64`"),
        ("k1:hush!hush", "entry 1 is not `id:base64`"),
        ("k1:", "entry 1 is not `id:base64`"),
        ("k1:aHVzaC1odXNo", "the key k1 has 9 bytes, not 32"),
        (f"k1:{'A' * 43}=,k1:{'A' * 43}=", "the id k1 stands there twice"),
        (f":{'A' * 43}=", "the id of a key is 1 to 64 bytes long"),
    ],
)
def test_a_wrong_setting_is_named_without_quoting_it(setting: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        open_box(setting)
    assert message in str(caught.value)
    assert "hush" not in str(caught.value)
