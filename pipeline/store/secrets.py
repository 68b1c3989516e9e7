"""Secrets at rest: AES-256-GCM, with the key's id in front and the place bound to the text.

::

    v1 | length of the key's id | key's id | nonce (12) | ciphertext and tag

`place` says where the secret belongs (`webhook:<id>:secret`): a text that is copied to another row
cannot be read there. The first key encrypts, every key decrypts, so that keys are changed without a
stop: put the new key in front, set every secret again, take the old key away.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from permaflow.errors import SettingsError

SETTING = "PERMAFLOW_ENCRYPTION_KEYS"
_VERSION = b"v1"
_NONCE = 12
_KEY = 32
_LONGEST_ID = 64


class SecretBox:
    """Encrypts and decrypts. `keys` is id → 32 bytes; the first one encrypts."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        for key_id, key in keys.items():
            if not 1 <= len(key_id.encode()) <= _LONGEST_ID:
                raise SettingsError(f"{SETTING}: the id of a key is 1 to {_LONGEST_ID} bytes long.")
            if len(key) != _KEY:
                raise SettingsError(
                    f"{SETTING}: the key {key_id} has {len(key)} bytes, not {_KEY}."
                )
        self._ciphers = {key_id: AESGCM(key) for key_id, key in keys.items()}
        self._current = next(iter(keys), None)

    def encrypt(self, secret: bytes, place: str) -> bytes:
        """Raises `SettingsError` if there is no key."""
        if self._current is None:
            raise SettingsError(
                f"A secret is to be stored, and there is no key for it. Set {SETTING} to "
                "`id:key`, where key is 32 random bytes in base64."
            )
        head = _head(self._current)
        nonce = os.urandom(_NONCE)
        cipher = self._ciphers[self._current]
        return head + nonce + cipher.encrypt(nonce, secret, head + place.encode())

    def decrypt(self, stored: bytes, place: str) -> bytes:
        """Raises `SettingsError` if the key is not there, or the text does not belong here."""
        key_id, head = _parse(stored)
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SettingsError(
                f"A secret was encrypted with the key {key_id!r}, which {SETTING} does not have. "
                "Put it behind the current one."
            )
        nonce, text = stored[len(head) :][:_NONCE], stored[len(head) + _NONCE :]
        try:
            return cipher.decrypt(nonce, text, head + place.encode())
        except (InvalidTag, ValueError):
            raise SettingsError(
                f"The secret of {place} was changed, belongs elsewhere, or was encrypted with "
                f"another key named {key_id!r}. Set it again, or restore the key."
            ) from None


def open_box(setting: str) -> SecretBox:
    """The box of a setting: `id:base64,id:base64`. Raises `SettingsError`; quotes no key."""
    keys: dict[str, bytes] = {}
    for position, part in enumerate(filter(None, map(str.strip, setting.split(","))), start=1):
        key_id, colon, text = part.partition(":")
        try:
            key = base64.b64decode(text, validate=True)
        except binascii.Error:
            key = b""
        if not colon or not key:
            raise SettingsError(f"{SETTING}: entry {position} is not `id:base64`.")
        if key_id in keys:
            raise SettingsError(f"{SETTING}: the id {key_id} stands there twice.")
        keys[key_id] = key
    return SecretBox(keys)


def _head(key_id: str) -> bytes:
    raw = key_id.encode()
    return _VERSION + bytes([len(raw)]) + raw


def _parse(stored: bytes) -> tuple[str, bytes]:
    start = len(_VERSION) + 1
    end = start + stored[len(_VERSION)] if len(stored) >= start else start
    if not stored.startswith(_VERSION) or len(stored) < end + _NONCE:
        raise SettingsError("A stored secret is not in the form of this version of Permaflow.")
    return stored[start:end].decode(errors="replace"), stored[:end]
