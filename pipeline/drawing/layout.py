"""Where the boxes of a picture stand: in layers from top to bottom, loops around their bodies.

A box stands below everything that leads to it; the boxes of a layer are ordered by where those
above them stand (four sweeps), then moved as close below them as their neighbours allow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from permaflow.plan import ROOT
from pipeline.drawing.model import Box, Drawing

CHARACTER = 7.2
LINE = 40.0
PADDING = 14.0
BETWEEN = 28.0
LAYER = 52.0
TITLE = 26.0
SWEEPS = 4
MOST_ARROWS = 2_000
"""With more, jumps are not looked into for where their targets stand."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A box with its left upper corner and its size."""

    box: Box
    x: float
    y: float
    width: float
    height: float

    @property
    def middle(self) -> float:
        return self.x + self.width / 2

    @property
    def bottom(self) -> float:
        return self.y + self.height


@dataclass(frozen=True, slots=True)
class Layout:
    placed: Mapping[str, Placed]
    width: float
    height: float


def lay_out(drawing: Drawing) -> Layout:
    """Places everything; the innermost loops first, because they need room around them."""
    return _Scopes(drawing).lay_out()


class _Scopes:
    def __init__(self, drawing: Drawing) -> None:
        self.boxes: dict[str, list[Box]] = {}
        for box in drawing.boxes:
            self.boxes.setdefault(box.scope, []).append(box)
        self.arrows: dict[str, list[tuple[str, str]]] = {}
        scope_of = {box.id: box.scope for box in drawing.boxes}
        ahead = [(a.source, a.target) for a in drawing.arrows if not a.back]
        led_to = {target for _, target in ahead}
        # What only a jump leads to stands below where the jump is from.
        after: dict[str, list[str]] = {}
        for source, target in ahead:
            after.setdefault(source, []).append(target)
        for arrow in drawing.arrows:
            jumps = arrow.back and arrow.target not in led_to and len(ahead) < MOST_ARROWS
            if jumps and not _reaches(arrow.target, arrow.source, after):
                ahead.append((arrow.source, arrow.target))
                after.setdefault(arrow.source, []).append(arrow.target)
        for source, target in ahead:
            if source != target:
                self.arrows.setdefault(scope_of[source], []).append((source, target))

    def lay_out(self) -> Layout:
        placed: dict[str, Placed] = {}
        width, height = self.scope(ROOT, placed, 0)
        return Layout(placed, width, height)

    def scope(self, name: str, placed: dict[str, Placed], depth: int) -> tuple[float, float]:
        """Places the boxes of a scope from (0, 0) on; gives the size that they take."""
        boxes = self.boxes.get(name, [])
        sizes: dict[str, tuple[float, float]] = {}
        bodies: dict[str, dict[str, Placed]] = {}
        for box in boxes:
            sizes[box.id] = _size(box)
            if box.shape == "loop" and depth < 20:
                body: dict[str, Placed] = {}
                wide, high = self.scope(box.id, body, depth + 1)
                bodies[box.id] = body
                least = sizes[box.id][0]
                sizes[box.id] = (max(least, wide + 2 * PADDING), high + TITLE + 2 * PADDING)
        arrows = self.arrows.get(name, [])
        layers = _layers([box.id for box in boxes], arrows)
        _order(layers, arrows)
        lefts = _lefts(layers, arrows, {key: size[0] for key, size in sizes.items()})
        by_id = {box.id: box for box in boxes}
        top, right = 0.0, 0.0
        for layer in layers:
            for key in layer:
                wide, high = sizes[key]
                placed[key] = Placed(by_id[key], lefts[key], top, wide, high)
                right = max(right, lefts[key] + wide)
                for inner in bodies.get(key, {}).values():
                    placed[inner.box.id] = Placed(
                        inner.box,
                        inner.x + lefts[key] + PADDING,
                        inner.y + top + TITLE + PADDING,
                        inner.width,
                        inner.height,
                    )
            top += max(sizes[key][1] for key in layer) + LAYER
        return right, max(0.0, top - LAYER)


def _reaches(source: str, target: str, after: Mapping[str, Sequence[str]]) -> bool:
    seen, stack = {source}, [source]
    while stack:
        name = stack.pop()
        if name == target:
            return True
        fresh = [other for other in after.get(name, ()) if other not in seen]
        seen.update(fresh)
        stack.extend(fresh)
    return False


def _size(box: Box) -> tuple[float, float]:
    letters = max(len(box.label), len(box.type), 6)
    wide = letters * CHARACTER + 2 * PADDING
    return (wide + 24 if box.shape == "branch" else wide), LINE


def _layers(names: Sequence[str], arrows: Iterable[tuple[str, str]]) -> list[list[str]]:
    """Every name below all that lead to it. What waits in a circle stands where it was written."""
    after: dict[str, list[str]] = {name: [] for name in names}
    waits = dict.fromkeys(names, 0)
    for source, target in arrows:
        if source in after and target in waits:
            after[source].append(target)
            waits[target] += 1
    rank = dict.fromkeys(names, 0)
    ready = deque(name for name in names if waits[name] == 0)
    while ready:
        name = ready.popleft()
        for other in after[name]:
            rank[other] = max(rank[other], rank[name] + 1)
            waits[other] -= 1
            if waits[other] == 0:
                ready.append(other)
    layers: list[list[str]] = [[] for _ in range(max(rank.values(), default=-1) + 1)]
    for name in names:
        layers[rank[name]].append(name)
    return [layer for layer in layers if layer]


def _order(layers: list[list[str]], arrows: Sequence[tuple[str, str]]) -> None:
    """Fewer crossings: each layer by the middle of where its neighbours stand."""
    above: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for source, target in arrows:
        above.setdefault(target, []).append(source)
        below.setdefault(source, []).append(target)
    for sweep in range(SWEEPS):
        down = sweep % 2 == 0
        near = above if down else below
        place = {name: at for layer in layers for at, name in enumerate(layer)}
        for layer in layers if down else reversed(layers):
            weights = {
                name: sum(place[n] for n in near[name]) / len(near[name])
                if near.get(name)
                else float(at)
                for at, name in enumerate(layer)
            }
            layer.sort(key=weights.__getitem__)
            place.update((name, at) for at, name in enumerate(layer))


def _lefts(
    layers: Sequence[Sequence[str]],
    arrows: Sequence[tuple[str, str]],
    widths: Mapping[str, float],
) -> dict[str, float]:
    """The left edges: below the middle of what leads there, without overlapping."""
    above: dict[str, list[str]] = {}
    for source, target in arrows:
        above.setdefault(target, []).append(source)
    lefts: dict[str, float] = {}
    widest = max((_span(layer, widths) for layer in layers), default=0.0)
    for layer in layers:
        at = (widest - _span(layer, widths)) / 2
        wanted: dict[str, float] = {}
        for name in layer:
            near = [lefts[n] + widths[n] / 2 for n in above.get(name, ()) if n in lefts]
            wanted[name] = sum(near) / len(near) - widths[name] / 2 if near else at
            at += widths[name] + BETWEEN
        right = float("-inf")
        for name in layer:
            lefts[name] = max(wanted[name], right)
            right = lefts[name] + widths[name] + BETWEEN
    first = min(lefts.values(), default=0.0)
    return {name: left - first for name, left in lefts.items()}


def _span(layer: Sequence[str], widths: Mapping[str, float]) -> float:
    return sum(widths[name] for name in layer) + BETWEEN * (len(layer) - 1)
