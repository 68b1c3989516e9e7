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
from starlette.routing import BaseRoute, Match, Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketState

from permaflow.errors import ContractError, PermaflowError
from pipeline.gateway.auth import PUBLIC, SCOPES, Guard
from pipeline.gateway.problems import Refusal, problem_response, refusal

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
        self.sockets: list[WebSocketRoute] = []

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

    def add_socket(
        self, path: str, endpoint: Callable[[WebSocket], Awaitable[None]], *, needs: str
    ) -> None:
        """A WebSocket. What refuses a request refuses it, too, before it is accepted."""

        async def guarded(socket: WebSocket) -> None:
            try:
                await self._guard.admit(socket, needs)
                await endpoint(socket)
            except Refusal as refused:
                await _deny(socket, refused)
            except PermaflowError as error:
                await _deny(socket, refusal(error))

        if _declared(needs, path) == PUBLIC:
            raise ContractError(f"The WebSocket {path} declares no policy.")
        route = WebSocketRoute(path, guarded)
        self._app.router.routes.append(route)
        self.sockets.append(route)

    def check_sealed(self) -> None:
        """Raises `ContractError` if the application has a route that is no door."""
        known: list[BaseRoute] = [*(door.route for door in self.all), *self.sockets]
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


async def _deny(socket: WebSocket, refused: Refusal) -> None:
    if socket.application_state is WebSocketState.CONNECTING:
        await socket.send_denial_response(problem_response(refused, socket.scope))
    elif socket.application_state is WebSocketState.CONNECTED:
        await socket.close(1011)


def _route(method: str, path: str, endpoint: Callable[..., Any], **documented: Any) -> APIRoute:
    documented.setdefault("operation_id", endpoint.__name__)
    return APIRoute(path, endpoint, methods=[method], **documented)


def _declared(needs: str, path: str) -> str:
    if needs != PUBLIC and needs not in SCOPES:
        raise ContractError(f"The route {path} declares no policy: {needs!r} is no scope.")
    return needs
