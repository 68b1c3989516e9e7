"""Signatures of webhooks: is this body from who knows the secret, and is it fresh?

::

    scheme     what is signed         where the signature stands
    standard   id.timestamp.body      webhook-signature: v1,<base64> v1,<base64>
    stripe     timestamp.body         Stripe-Signature: t=…,v1=<hex>,v1=<hex>
    slack      v0:timestamp:body      X-Slack-Signature: v0=<hex>
    github     body                   X-Hub-Signature-256: sha256=<hex>
    shopify    body                   X-Shopify-Hmac-Sha256: <base64>
    hmac       body, or               a header of your choice, hex or base64;
               timestamp.body         a timestamp if `timestamp_header` is set
    none       nothing

Everything here is pure. `verify` never raises, whatever a sender writes; it compares bytes in
constant time, over the body exactly as it came.

GitHub, Shopify and plain `hmac` sign no time and no id, so a captured request could be sent again
for ever. Within `replay_window` seconds the same body therefore counts as the same delivery.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

from permaflow.errors import InputError
from permaflow.plan import Json

UNSIGNED = "none"
SCHEMES = ("none", "hmac", "github", "stripe", "slack", "shopify", "standard")
ALGORITHMS = ("sha256", "sha512", "sha1")
ENCODINGS = ("hex", "base64")

TOLERANCE = 300
"""Seconds that a signed time may be away from now, either way."""

MOST_SIGNATURES = 8
REPLAY_WINDOW = 600
MAX_SECRET_BYTES = 1_000

Headers = Mapping[str, str]
"""Lower-case names; what came several times is joined by `, `."""


@dataclass(frozen=True, slots=True)
class Verification:
    """How senders to one address sign. What follows `scheme` is for `hmac`, except the window."""

    scheme: str = UNSIGNED
    header: str = "x-signature"
    algorithm: str = "sha256"
    encoding: str = "hex"
    prefix: str = ""
    timestamp_header: str = ""
    replay_window: int = REPLAY_WINDOW


@dataclass(frozen=True, slots=True)
class Proof:
    """A good signature. `delivery` and `timestamp` are signed, or empty."""

    delivery: str = ""
    timestamp: str = ""


@dataclass(frozen=True, slots=True)
class _Claim:
    """What a request says of itself, not checked yet."""

    signed: bytes
    signatures: Sequence[bytes]
    delivery: str = ""
    timestamp: str = ""


def read_verification(value: Json) -> Verification:
    """The setting of a trigger: a scheme, or an object with `scheme` and its options.

    Raises `InputError` with a pointer within the value.
    """
    if value is None:
        return Verification()
    options = {"scheme": value} if isinstance(value, str) else value
    if not isinstance(options, dict):
        raise InputError(f"Write the scheme, or an object with `scheme`: {', '.join(SCHEMES)}.")
    known = [field.name for field in fields(Verification)]
    for name in options:
        if name not in known:
            raise InputError(
                f"There is no `{name}` here; there are {', '.join(known)}.", pointer=f"/{name}"
            )
    for name, choices in (("scheme", SCHEMES), ("algorithm", ALGORITHMS), ("encoding", ENCODINGS)):
        if options.get(name, choices[0]) not in choices:
            raise InputError(f"`{name}` is one of {', '.join(choices)}.", pointer=f"/{name}")
    if "scheme" not in options:
        raise InputError(f"Name the `scheme`: {', '.join(SCHEMES)}.")
    window = options.get("replay_window", REPLAY_WINDOW)
    if type(window) is not int or not 0 <= window <= 86_400:
        raise InputError(
            "`replay_window` is a whole number of seconds up to 86400; 0 lets the same body in "
            "again at once.",
            pointer="/replay_window",
        )
    texts = {}
    for name in ("header", "prefix", "timestamp_header"):
        text = options.get(name, getattr(Verification(), name))
        if not isinstance(text, str) or len(text) > 100 or not text.isascii():
            raise InputError(f"`{name}` is a short text.", pointer=f"/{name}")
        texts[name] = text
    return Verification(
        scheme=options["scheme"],
        header=texts["header"].lower(),
        algorithm=options.get("algorithm", "sha256"),
        encoding=options.get("encoding", "hex"),
        prefix=texts["prefix"],
        timestamp_header=texts["timestamp_header"].lower(),
        replay_window=window,
    )


def check_secret(scheme: str, secret: str) -> None:
    """Raises `InputError` for a secret that nobody could sign with."""
    if not secret.strip():
        raise InputError("The secret is empty.")
    if len(secret.encode(errors="replace")) > MAX_SECRET_BYTES:
        raise InputError(f"A secret has at most {MAX_SECRET_BYTES} bytes.")
    if _key(scheme, secret) is None:
        raise InputError("A secret of `standard` is `whsec_` and base64.")


def verify(
    verification: Verification, secrets: Sequence[str], headers: Headers, body: bytes, now: float
) -> Proof | None:
    """The proof that the body was signed with one of the secrets, not long ago; or None."""
    if verification.scheme == UNSIGNED:
        return Proof()
    claim = _CLAIMS[verification.scheme](verification, headers, body)
    keys = [key for secret in secrets if secret and (key := _key(verification.scheme, secret))]
    # Without a claim or a key the same work is done, so that neither shows in the time it takes.
    algorithm = verification.algorithm if verification.scheme == "hmac" else "sha256"
    signed = body if claim is None else claim.signed
    same = False
    for key in keys or [b"nobody"]:
        expected = hmac.digest(key, signed, algorithm)
        for signature in claim.signatures if claim is not None else (b"",):
            same |= hmac.compare_digest(expected, signature)
    if claim is None or not keys or not same:
        return None
    if claim.timestamp and abs(now - int(claim.timestamp)) > TOLERANCE:
        return None
    return Proof(claim.delivery, claim.timestamp)


def event_ids(
    verification: Verification,
    proof: Proof,
    headers: Headers,
    body: bytes,
    value: Json,
    now: float,
) -> tuple[str, str]:
    """What makes this delivery the same as another: its id, and the id it may have had before.

    `value` is the parsed body. Both are empty where every request counts: an open address whose
    sender names no `Idempotency-Key` or `webhook-id`. Of a signed request only what is signed
    counts, or else anybody could use up an id before its owner.
    """
    if verification.scheme == UNSIGNED:
        name = headers.get("idempotency-key") or headers.get("webhook-id") or ""
        return (f"named:{name}", "") if name else ("", "")
    if proof.delivery:
        return f"delivery:{proof.delivery}", ""
    named = _SIGNED_IDS.get(verification.scheme)
    if named and isinstance(value, dict) and isinstance(value.get(named), str) and value[named]:
        return f"event:{value[named]}", ""
    digest = hashlib.sha256(body).hexdigest()
    if proof.timestamp:
        return f"body:{proof.timestamp}:{digest}", ""
    if not verification.replay_window:
        return "", ""
    span = int(now // verification.replay_window)
    return f"body:{span}:{digest}", f"body:{span - 1}:{digest}"


_SIGNED_IDS = {"stripe": "id", "slack": "event_id"}
"""Scheme → the member of the body that names the event; the body is signed."""


def _key(scheme: str, secret: str) -> bytes | None:
    if scheme != "standard":
        return secret.encode(errors="surrogatepass")
    try:
        return base64.b64decode(secret.removeprefix("whsec_"), validate=True) or None
    except (binascii.Error, ValueError):
        return None


def _standard(_: Verification, headers: Headers, body: bytes) -> _Claim | None:
    delivery, timestamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not delivery or "." in delivery or len(delivery) > 256 or not _is_time(timestamp):
        return None
    parts = headers.get("webhook-signature", "").split()
    found = [_base64(part[3:].rstrip(",")) for part in parts if part.startswith("v1,")]
    signed = f"{delivery}.{timestamp}.".encode(errors="surrogateescape") + body
    return _claim(signed, found, delivery=delivery, timestamp=timestamp)


def _stripe(_: Verification, headers: Headers, body: bytes) -> _Claim | None:
    pairs = [part.strip().partition("=") for part in headers.get("stripe-signature", "").split(",")]
    times = [value for name, _, value in pairs if name == "t"]
    if len(times) != 1 or not _is_time(times[0]):
        return None
    found = [_hex(value) for name, _, value in pairs if name == "v1"]
    return _claim(f"{times[0]}.".encode() + body, found, timestamp=times[0])


def _slack(_: Verification, headers: Headers, body: bytes) -> _Claim | None:
    timestamp = headers.get("x-slack-request-timestamp", "")
    signature = headers.get("x-slack-signature", "")
    if not _is_time(timestamp) or not signature.startswith("v0="):
        return None
    signed = f"v0:{timestamp}:".encode() + body
    return _claim(signed, [_hex(signature[3:])], timestamp=timestamp)


def _github(_: Verification, headers: Headers, body: bytes) -> _Claim | None:
    signature = headers.get("x-hub-signature-256", "")
    return _claim(body, [_hex(signature[7:])]) if signature.startswith("sha256=") else None


def _shopify(_: Verification, headers: Headers, body: bytes) -> _Claim | None:
    return _claim(body, [_base64(headers.get("x-shopify-hmac-sha256", ""))])


def _hmac(verification: Verification, headers: Headers, body: bytes) -> _Claim | None:
    text = headers.get(verification.header, "").strip()
    prefix = verification.prefix or f"{verification.algorithm}="
    text = text.removeprefix(prefix)
    found = [_hex(text) if verification.encoding == "hex" else _base64(text)]
    if not verification.timestamp_header:
        return _claim(body, found)
    timestamp = headers.get(verification.timestamp_header, "")
    if not _is_time(timestamp):
        return None
    return _claim(f"{timestamp}.".encode() + body, found, timestamp=timestamp)


_CLAIMS = {
    "standard": _standard,
    "stripe": _stripe,
    "slack": _slack,
    "github": _github,
    "shopify": _shopify,
    "hmac": _hmac,
}


def _claim(
    signed: bytes, found: Sequence[bytes | None], *, delivery: str = "", timestamp: str = ""
) -> _Claim | None:
    signatures = [signature for signature in found if signature]
    if not signatures or len(found) > MOST_SIGNATURES:
        return None
    return _Claim(signed, signatures, delivery, timestamp)


def _is_time(text: str) -> bool:
    """Seconds since 1970, written plainly: what was signed is read back as exactly this number."""
    return text.isascii() and text.isdigit() and len(text) <= 12


def _hex(text: str) -> bytes | None:
    if not text.isascii() or not text.isalnum():
        return None
    try:
        return bytes.fromhex(text)
    except ValueError:
        return None


def _base64(text: str) -> bytes | None:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
