"""Dispatches as messages: grouped, because they became ready together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from uuid import UUID

import msgspec

from pipeline.bus.subjects import step
from pipeline.core.effects import Dispatch
from pipeline.wire import Dispatch as WireDispatch
from pipeline.wire import Dispatches, encode

_MAX_MESSAGE = 512 * 1024
_OVERHEAD = 200


class Outbox:
    """Collects dispatches and gives them as `(subject, bytes, key)`.

    Steps of one stage and organisation travel together, at most as many as their task type's
    `batch`. A message of one step is keyed by its attempt and `nudge`, so that publishing it again
    by accident is swallowed, and on purpose is not.
    """

    def __init__(self) -> None:
        self._groups: dict[tuple[str, str, int], list[tuple[WireDispatch, int]]] = defaultdict(list)

    def add(
        self,
        org: str,
        run_id: UUID,
        effect: Dispatch,
        config: bytes,
        config_ref: UUID | None,
        timeout: float,
        batch: int,
        nudge: int,
    ) -> None:
        """`config` is encoded already."""
        wire = WireDispatch(
            run_id,
            effect.scope,
            effect.node,
            effect.attempt,
            effect.type,
            msgspec.Raw(config),
            timeout,
            config_ref,
            nudge,
            effect.visit,
            effect.once,
        )
        self._groups[effect.stage, org, batch].append((wire, len(config) + _OVERHEAD))

    def messages(self) -> Iterator[tuple[str, bytes, str | None]]:
        """The messages of everything collected."""
        for (stage, org, batch), dispatches in self._groups.items():
            subject = step(stage, org)
            for chunk in _chunks(dispatches, batch):
                yield subject, encode(Dispatches(org, chunk)), _key(chunk)


def _chunks(dispatches: list[tuple[WireDispatch, int]], batch: int) -> Iterator[list[WireDispatch]]:
    chunk: list[WireDispatch] = []
    weight = 0
    for wire, size in dispatches:
        if chunk and (len(chunk) >= batch or weight + size > _MAX_MESSAGE):
            yield chunk
            chunk, weight = [], 0
        chunk.append(wire)
        weight += size
    if chunk:
        yield chunk


def _key(chunk: list[WireDispatch]) -> str | None:
    if len(chunk) > 1:
        return None
    only = chunk[0]
    return f"{only.run_id.hex}:{only.scope}:{only.node}:{only.attempt}:{only.nudge}"
