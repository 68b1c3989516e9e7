"""Routes, each with a policy: the scope that a caller needs, or `PUBLIC`.

There is no way to open a door without saying who may come in, and `check_sealed` finds whatever
came into the application another way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route

from permaflow.errors import ContractError
from pipeline.gateway.auth import PUBLIC, SCOPES, Guard

Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Door:
    """One method of one path, and who may use it. `body` describes the JSON that it takes."""

    method: str
    path: str
    needs: str
    body: type[BaseModel] | None
    documented: APIRoute
    route: Route


class Doors:
    """Opens the doors of an application."""

    def __init__(self, app: FastAPI, guard: Guard) -> None:
        self._app = app
        self._guard = guard
        self.all: list[Door] = []

    def add(
        self,
        method: str,
        path: str,
        endpoint: Callable[..., Awaitable[Response]],
        *,
        needs: str,
        body: type[BaseModel] | None = None,
        **documented: Any,
    ) -> None:
        """A door whose parameters FastAPI reads. `documented` is what `APIRoute` takes."""
        dependencies = [Depends(self._policy(needs))] if _declared(needs, path) != PUBLIC else []
        route = _route(method, path, endpoint, dependencies=dependencies, **documented)
        self._app.router.routes.append(route)
        self.all.append(Door(method, route.path_format, needs, body, route, route))

    def add_hot(
        self,
        method: str,
        path: str,
        endpoint: Endpoint,
        *,
        needs: str,
        body: type[BaseModel] | None = None,
        likeness: Callable[..., Awaitable[Response]] | None = None,
        **documented: Any,
    ) -> None:
        """A door without FastAPI in the way. `likeness` has the parameters to document."""

        async def guarded(request: Request) -> Response:
            await self._guard.admit(request, needs)
            return await endpoint(request)

        open_to_all = _declared(needs, path) == PUBLIC
        route = Route(path, endpoint if open_to_all else guarded, methods=[method])
        self._app.router.routes.insert(0, route)
        shown = _route(method, path, likeness or endpoint, **documented)
        self.all.append(Door(method, path, needs, body, shown, route))

    def check_sealed(self) -> None:
        """Raises `ContractError` if the application has a route that is no door."""
        known = [door.route for door in self.all]
        for route in self._app.router.routes:
            if not any(route is each for each in known):
                raise ContractError(f"The route {route!r} declares no policy.")

    def methods(self, scope: Mapping[str, Any]) -> tuple[str, ...]:
        """The methods that the path of a request has."""
        return tuple(
            sorted({d.method for d in self.all if d.route.matches(dict(scope))[0] != Match.NONE})
        )

    def _policy(self, needs: str) -> Callable[[Request], Awaitable[None]]:
        async def admit(request: Request) -> None:
            await self._guard.admit(request, needs)

        return admit


def _route(method: str, path: str, endpoint: Callable[..., Any], **documented: Any) -> APIRoute:
    documented.setdefault("operation_id", endpoint.__name__)
    return APIRoute(path, endpoint, methods=[method], **documented)


def _declared(needs: str, path: str) -> str:
    if needs != PUBLIC and needs not in SCOPES:
        raise ContractError(f"The route {path} declares no policy: {needs!r} is no scope.")
    return needs
