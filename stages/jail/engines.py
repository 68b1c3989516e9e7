"""The engines that a cell can run, as a runner sees them: names, and where their parts are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec

from permaflow.errors import NotFoundError


@dataclass(frozen=True, slots=True)
class Engine:
    """`module` is loaded in the cell and holds `Engine`; `needs` is what has to be installed."""

    name: str
    module: str
    needs: str
    install: str

    @property
    def paths(self) -> tuple[str, ...]:
        """Where the cell finds its modules. Raises `NotFoundError` if the engine is not there."""
        ours = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        return (ours, _folder_of(self))


QUICKJS = Engine("quickjs", "stages.jail.quickjs", "_quickjs", "permaflow")
V8 = Engine("v8", "stages.jail.v8", "py_mini_racer", "permaflow[v8]")
MONTY = Engine("monty", "stages.jail.monty", "pydantic_monty", "permaflow[python]")
ENGINES = {engine.name: engine for engine in (QUICKJS, V8, MONTY)}


def engine(name: str) -> Engine:
    """Raises `NotFoundError`."""
    found = ENGINES.get(name)
    if found is None:
        raise NotFoundError(f"There is no engine {name!r}; there are {', '.join(ENGINES)}.")
    return found


def installed(one: Engine) -> bool:
    return find_spec(one.needs) is not None


def _folder_of(one: Engine) -> str:
    spec = find_spec(one.needs)
    if spec is None or spec.origin is None:
        raise NotFoundError(
            f"The engine {one.name!r} is not installed here: pip install '{one.install}'."
        )
    folder = os.path.dirname(os.path.abspath(spec.origin))
    return os.path.dirname(folder) if spec.submodule_search_locations else folder
