"""Names and what they stand for: task types, dialects, connectors.

Three doors, one registry: the built-ins (a table of `name: "module:attribute"`), modules that the
settings name, and the entry points of installed packages. Nothing is imported before it is asked
for. A plug-in that is broken gives a `ContractError` that names it; the rest works.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from permaflow.errors import ContractError, NotFoundError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names → things of one kind.

    `kind` is the word for it in messages; `accept` returns the thing, or raises `ContractError`
    when what was loaded is something else; `name_of` gives the name of a thing that was found in
    a module. The first door that offers a name keeps it. A module of the settings that has neither
    the attribute nor its plural offers every object of the class `instances` in it.
    """

    def __init__(
        self,
        kind: str,
        *,
        accept: Callable[[object], T],
        name_of: Callable[[T], str],
        attribute: str,
        group: str = "",
        builtins: Mapping[str, str] | None = None,
        modules: Sequence[str] = (),
        instances: type | None = None,
    ) -> None:
        self.kind = kind
        self._accept = accept
        self._name_of = name_of
        self._attribute = attribute
        self._group = group
        self._modules = tuple(modules)
        self._instances = instances
        self._loaders: dict[str, Callable[[], T]] = {}
        self._origins: dict[str, str] = dict(builtins or {})
        self._loaded: dict[str, T] = {}
        self._broken: dict[str, ContractError] = {}
        self._searched = False

    def add(self, thing: T) -> None:
        """Take `thing` in by hand. Raises `ContractError` if its name is taken."""
        name = self._name_of(thing)
        if name in self._origins:
            raise ContractError(
                f"The {self.kind} {name!r} exists already, from {self._origins[name]}."
            )
        self._origins[name] = f"{type(thing).__module__}.{type(thing).__qualname__}"
        self._loaded[name] = thing

    def offer(self, name: str, load: Callable[[], T], origin: str) -> None:
        """Something to be loaded when it is asked for. A name that is taken is a broken plug-in."""
        if name in self._origins:
            message = f"{origin} offers the {self.kind} {name!r}, which exists already, from "
            self._broken.setdefault(origin, ContractError(message + f"{self._origins[name]}."))
            return
        self._origins[name] = origin
        self._loaders[name] = load

    def names(self) -> tuple[str, ...]:
        """Every name, sorted; those of broken plug-ins too."""
        self._search()
        return tuple(sorted(self._origins))

    def get(self, name: str) -> T:
        """What `name` stands for.

        Raises `NotFoundError` for an unknown name and `ContractError` for a broken plug-in.
        """
        thing = self._loaded.get(name)
        if thing is not None:
            return thing
        if name not in self._origins:
            self._search()
        if name in self._loaded:
            return self._loaded[name]
        if name in self._broken:
            raise self._broken[name]
        if name not in self._origins:
            raise NotFoundError(
                f"There is no {self.kind} {name!r}. Known are: {', '.join(self.names())}."
            )
        try:
            load = self._loaders.get(name)
            thing = self._accept(load()) if load else self._load(self._origins[name])
            if self._name_of(thing) != name:
                raise ContractError(
                    f"{self._origins[name]} is offered as the {self.kind} {name!r} "
                    f"but calls itself {self._name_of(thing)!r}."
                )
        except ContractError as error:
            self._broken[name] = error
            raise
        self._loaded[name] = thing
        return thing

    def load(self) -> tuple[ContractError, ...]:
        """Import everything now; what is broken is returned, not raised."""
        for name in self.names():
            try:
                self.get(name)
            except ContractError:
                pass
        return tuple(self._broken.values())

    def _search(self) -> None:
        if self._searched:
            return
        self._searched = True
        for module in self._modules:
            self._take_module(module)
        if not self._group:
            return
        for point in entry_points(group=self._group):
            if point.name in self._origins:
                error = ContractError(
                    f"The entry point {point.value} of {self._group} offers the {self.kind} "
                    f"{point.name!r}, which exists already, from {self._origins[point.name]}."
                )
                self._broken.setdefault(f"{self._group}:{point.value}", error)
            else:
                self._origins[point.name] = point.value

    def _take_module(self, module: str) -> None:
        """`module` holds one thing under the attribute, or several under its plural."""
        try:
            found = self._found_in(module)
            if not isinstance(found, Iterable):
                raise ContractError(f"{module}:{self._attribute}s must be a list.")
            for thing in found:
                accepted = self._accept(thing)
                self.add(accepted)
                self._origins[self._name_of(accepted)] = module
        except ContractError as error:
            self._broken[module] = error

    def _found_in(self, module: str) -> object:
        name, _, attribute = module.partition(":")
        loaded = _import(name)
        if attribute:
            return (_attribute(loaded, attribute, name),)
        several: object = getattr(loaded, self._attribute + "s", None)
        if several is not None:
            return several
        kind = self._instances
        if kind is not None and not isinstance(getattr(loaded, self._attribute, None), kind):
            every = [each for each in vars(loaded).values() if isinstance(each, kind)]
            if every:
                return list({id(each): each for each in every}.values())
        return (_attribute(loaded, self._attribute, name),)

    def _load(self, origin: str) -> T:
        module, _, attribute = origin.partition(":")
        try:
            return self._accept(_attribute(_import(module), attribute or self._attribute, module))
        except ContractError as error:
            raise ContractError(f"The {self.kind} from {origin} is broken: {error}") from error


def _import(module: str) -> object:
    try:
        return importlib.import_module(module)
    except Exception as error:  # whatever a plug-in raises while it is imported
        raise ContractError(
            f"The module {module} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _attribute(loaded: object, path: str, module: str) -> object:
    for part in path.split("."):
        try:
            loaded = getattr(loaded, part)
        except AttributeError:
            raise ContractError(f"The module {module} has no {path!r}.") from None
    return loaded
