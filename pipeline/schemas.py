"""The JSON Schemas of the dialects, with the types of nodes of an installation or of the box."""

from __future__ import annotations

from functools import lru_cache

from permaflow.errors import NotFoundError
from permaflow.plan import Json
from permaflow.task_types import TaskTypeRegistry
from pipeline.builtins import TASK_TYPES
from pipeline.catalogue import Catalogue
from specs.schemas.documents import DIALECT_SCHEMAS, schema_of
from specs.triggers import KINDS
from specs.work import INLINE

NAMES = tuple(DIALECT_SCHEMAS)


def dialect_schema(name: str, catalogue: Catalogue) -> dict[str, Json]:
    """The schema of a dialect; imports all plug-ins. Raises `NotFoundError` for other names."""
    if name not in DIALECT_SCHEMAS:
        raise NotFoundError(f"There is no schema {name!r}. There are: {', '.join(NAMES)}.")
    return schema_of(name, {block.name: block.config for block in catalogue.blocks()})


@lru_cache(maxsize=len(NAMES))
def box_schema(name: str) -> dict[str, Json]:
    """The same with what comes in the box; types of plug-ins fit, whatever their configs."""
    if name not in DIALECT_SCHEMAS:
        raise NotFoundError(f"There is no schema {name!r}. There are: {', '.join(NAMES)}.")
    catalogue = Catalogue(TaskTypeRegistry(TASK_TYPES))
    names = (*KINDS, *sorted(INLINE), *sorted(TASK_TYPES.keys() - KINDS.keys() - INLINE))
    configs = {each: catalogue.get(each).config for each in names}
    return schema_of(name, configs, others=True)
