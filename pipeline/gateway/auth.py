"""Who may do what: API keys, their scopes, and the policy that every route declares.

A key is kept for `KEPT` seconds, so a revoked one is refused no later than that. An unknown key is
remembered for a moment, too, so that guessing costs us little.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable

from starlette.requests import HTTPConnection

from pipeline.gateway.cache import Cache
from pipeline.gateway.problems import Refusal
from pipeline.store.keys import Caller

PUBLIC = "public"
ADMIN = "admin"
SCOPES = frozenset(
    {
        "workflows:read",
        "workflows:write",
        "runs:read",
        "runs:write",
        "records:read",
        "records:write",
        "approvals:read",
        "approvals:write",
        "notifications:read",
        "notifications:write",
        ADMIN,
    }
)
"""What a key may be allowed to do. `admin` includes all others."""

KEPT = 4.0
KEPT_UNKNOWN = 1.0
MOST_KEPT = 10_000

KEY_PROTOCOL = "permaflow.key."
"""What stands before the key in a subprotocol of a WebSocket."""

_CALLER = "permaflow.caller"
_REALM = 'Bearer realm="permaflow"'

Verify = Callable[[str], Awaitable[Caller | None]]


class Guard:
    """Lets requests in. `verify` asks the store about the text of a key."""

    def __init__(self, verify: Verify) -> None:
        self._verify = verify
        self._callers: Cache[bytes, Caller] = Cache(
            KEPT, MOST_KEPT, seconds_of_nothing=KEPT_UNKNOWN
        )

    async def admit(self, request: HTTPConnection, needs: str) -> Caller:
        """Who is asking; 401 without a good key, 403 without the scope."""
        text = bearer(request)
        caller = await self.find(text) if text else None
        if caller is None:
            raise _unauthorized(given=bool(text))
        if needs not in caller.scopes and ADMIN not in caller.scopes:
            raise Refusal(
                403,
                "missing_scope",
                f"This needs the scope `{needs}`, which the API key {caller.key_id} does not have.",
                headers={"www-authenticate": f'{_REALM}, error="insufficient_scope"'},
            )
        request.scope[_CALLER] = caller
        return caller

    async def find(self, text: str) -> Caller | None:
        """Who the key speaks for, as of a few seconds ago at most."""
        name = hashlib.sha256(text.encode(errors="surrogateescape")).digest()
        return await self._callers.get(name, lambda: self._verify(text))


def bearer(request: HTTPConnection) -> str:
    """The key that a request carries, or nothing.

    A browser cannot give a WebSocket a header of its own; there the key may be a subprotocol.
    """
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return text.strip()
    for offered in request.scope.get("subprotocols", ()):
        if offered.startswith(KEY_PROTOCOL):
            return str(offered.removeprefix(KEY_PROTOCOL))
    return ""


def caller_of(request: HTTPConnection) -> Caller:
    """Whom the guard let in."""
    caller: Caller = request.scope[_CALLER]
    return caller


def name_of(caller: Caller) -> str:
    """Who did it, for the record: the user of the key, or the key itself."""
    return caller.user_name or f"key:{caller.name or caller.key_id}"


def _unauthorized(*, given: bool) -> Refusal:
    detail = (
        "The API key is unknown, revoked or expired."
        if given
        else "Send an API key: `Authorization: Bearer pf_…`."
    )
    header = f'{_REALM}, error="invalid_token"' if given else _REALM
    return Refusal(401, "unauthorized", detail, headers={"www-authenticate": header})
