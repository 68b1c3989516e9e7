"""Dispatches as messages: grouped, because they became ready together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from pipeline.bus.subjects import step
from pipeline.wire import Dispatch, Dispatches, encode

_MAX_MESSAGE = 512 * 1024
_OVERHEAD = 200


class Item(NamedTuple):
    """A dispatch, and where it goes; `batch` is that of its task type, `size` of its config."""

    stage: str
    org: str
    batch: int
    dispatch: Dispatch
    size: int


class Outbox:
    """Collects dispatches and gives them as `(subject, bytes, key)`.

    Steps of one stage and organisation travel together, at most as many as their task type's
    `batch`. A message of one step is keyed by its attempt and `nudge`, so that publishing it again
    by accident is swallowed, and on purpose is not.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, int], list[Item]] = defaultdict(list)

    def add(self, item: Item) -> None:
        self._groups[item[:3]].append(item)

    def messages(self) -> Iterator[tuple[str, bytes, str | None]]:
        """The messages of everything collected."""
        for (stage, org, batch), items in self._groups.items():
            subject = step(stage, org)
            for chunk in _chunks(items, batch):
                yield subject, encode(Dispatches(org, chunk)), _key(chunk)


def _chunks(items: list[Item], batch: int) -> Iterator[list[Dispatch]]:
    chunk: list[Dispatch] = []
    weight = 0
    for item in items:
        size = item.size + _OVERHEAD
        if chunk and (len(chunk) >= batch or weight + size > _MAX_MESSAGE):
            yield chunk
            chunk, weight = [], 0
        chunk.append(item.dispatch)
        weight += size
    if chunk:
        yield chunk


def _key(chunk: list[Dispatch]) -> str | None:
    if len(chunk) > 1:
        return None
    only = chunk[0]
    return f"{only.run_id.hex}:{only.scope}:{only.node}:{only.attempt}:{only.nudge}"
