"""What everybody may know: whether this process serves, its metrics, its version and its API."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

import orjson
from starlette.requests import Request
from starlette.responses import Response

from pipeline.gateway.answers import JSON, answer
from pipeline.gateway.shapes import VersionInfo
from pipeline.ops import Ops


class Health:
    """The handlers. `describe` makes the description of the API."""

    def __init__(self, ops: Ops, describe: Callable[[], dict[str, object]]) -> None:
        self._ops = ops
        self._describe = describe
        self._description: bytes | None = None

    async def livez(self, request: Request) -> Response:
        """Whether this process answers."""
        return await self._answer("/livez")

    async def readyz(self, request: Request) -> Response:
        """Whether what this process needs is there. The ops port says what is wrong."""
        state = await self._ops.state()
        checks = {name: "ok" if value == "ok" else "failed" for name, value in state.items()}
        ready = all(value == "ok" for value in checks.values())
        body = {"status": "ok" if ready else "unready", "checks": checks}
        return Response(orjson.dumps(body), 200 if ready else 503, media_type=JSON)

    async def metrics(self, request: Request) -> Response:
        """Metrics of this process, for Prometheus."""
        return await self._answer("/metrics")

    async def version(self, request: Request) -> Response:
        """What runs here."""
        return answer(VersionInfo(version=version("permaflow")))

    async def openapi(self, request: Request) -> Response:
        """The description of this API."""
        if self._description is None:
            self._description = orjson.dumps(self._describe())
        return Response(self._description, media_type=JSON)

    async def _answer(self, path: str) -> Response:
        found = await self._ops.answer(path)
        assert found is not None
        status, kind, body = found
        return Response(body, status, headers={"content-type": kind})
