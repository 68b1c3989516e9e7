"""Python functions that workflows call by slug.

::

    @function("validate-order")
    async def validate_order(order: dict) -> dict: ...

The decorator only marks; nothing is registered by importing. A `FunctionRegistry` finds marked
functions in the modules that the settings name and in entry points of the group
`permaflow.functions`, whose value is a module with marked functions or one function (then the
entry point's name is the slug).
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, TypeVar

from permaflow.errors import ContractError

GROUP = "permaflow.functions"
MARK = "__permaflow_slug__"

F = TypeVar("F", bound=Callable[..., Any])

_slug = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]{0,99}")


def function(slug: str) -> Callable[[F], F]:
    """Mark a function, sync or async, as callable by workflows under `slug`.

    It takes the step's `input` and, if it has a second positional parameter, the `TaskContext`.
    A sync function runs in a thread.
    """

    def mark(target: F) -> F:
        setattr(target, MARK, _valid(slug))
        return target

    return mark


class FunctionRegistry:
    """Functions by slug. Implements `permaflow.task.Functions`."""

    def __init__(self, modules: Sequence[str] = (), *, installed: bool = True) -> None:
        self._modules = tuple(modules)
        self._installed = installed
        self._functions: dict[str, Callable[..., Any]] = {}
        self._broken: dict[str, ContractError] = {}
        self._searched = False

    def add(self, target: Callable[..., Any], slug: str = "") -> None:
        """Take a function in. Raises `ContractError` if its slug is taken or it has none."""
        name = slug or getattr(target, MARK, "")
        if not name:
            raise ContractError(f"{target!r} has no slug; decorate it with @function('…').")
        if not callable(target):
            raise ContractError(f"{name!r} is not a function but {type(target).__name__}.")
        known = self._functions.setdefault(_valid(name), target)
        if known is not target:
            raise ContractError(
                f"Two functions have the slug {name!r}: {known.__module__}.{known.__qualname__} "
                f"and {target.__module__}.{target.__qualname__}."
            )

    def get(self, slug: str) -> Callable[..., Any] | None:
        """The function, or None. Raises `ContractError` if what may offer it cannot be loaded."""
        found = self._functions.get(slug)
        if found is None and not self._searched:
            self.load()
            found = self._functions.get(slug)
        if found is None and self._broken:
            reasons = " ".join(map(str, self._broken.values()))
            raise self._broken.get(slug) or ContractError(
                f"There is no function {slug!r} among those that could be loaded. {reasons}"
            )
        return found

    def slugs(self) -> tuple[str, ...]:
        self.load()
        return tuple(sorted(self._functions))

    def load(self) -> tuple[ContractError, ...]:
        """Import every module now; what is broken is returned, not raised."""
        if not self._searched:
            self._searched = True
            for module in self._modules:
                self._attempt(module, partial(self._take_module, module))
            for point in entry_points(group=GROUP) if self._installed else ():
                self._attempt(point.name, partial(self._take_point, point))
        return tuple(self._broken.values())

    def _attempt(self, name: str, step: Callable[[], None]) -> None:
        try:
            step()
        except ContractError as error:
            self._broken[name] = error
        except Exception as error:  # whatever a plug-in raises while it is imported
            wrapped = ContractError(
                f"The functions of {name} cannot be loaded: {type(error).__name__}: {error}"
            )
            wrapped.__cause__ = error
            self._broken[name] = wrapped

    def _take_module(self, module: str) -> None:
        self._take(importlib.import_module(module))

    def _take_point(self, point: EntryPoint) -> None:
        loaded = point.load()
        if isinstance(loaded, ModuleType):
            self._take(loaded)
        else:
            self.add(loaded, point.name)

    def _take(self, module: ModuleType) -> None:
        for target in vars(module).values():
            if callable(target) and isinstance(getattr(target, MARK, None), str):
                self.add(target)


def _valid(slug: str) -> str:
    if not _slug.fullmatch(slug):
        raise ContractError(f"{slug!r} is no slug; use letters, digits, '-', '_' and '.'.")
    return slug
