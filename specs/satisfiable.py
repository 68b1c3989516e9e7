"""Whether a `when` can ever be true: found by trying what its nodes may come to."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from permaflow.plan import (
    Always,
    And,
    AtLeast,
    Never,
    Not,
    Or,
    Outcome,
    Ref,
    Settled,
    When,
)

MAX_COMBINATIONS = 4_096
MAX_LOOKS = 500_000

Ending = tuple[Outcome, str | None]
"""How a node may end, and through which port."""
Endings = Callable[[str], Sequence[Ending]]


@dataclass(slots=True)
class Search:
    """Tries combinations, until a budget for the whole document is spent; then all may be true."""

    endings: Endings
    looks: int = MAX_LOOKS

    def may_hold(self, when: When) -> bool:
        """False only if no combination of endings makes `when` true.

        Exact up to `MAX_COMBINATIONS` combinations that differ for `when`; beyond, it is True.
        """
        ways, total = _ways(when, self.endings)
        self.looks -= total * len(ways)
        return self.looks < 0 or total > MAX_COMBINATIONS or _try(when, ways)


Ways = list[list[dict[Ref, bool]]]


def _ways(when: When, endings: Endings) -> tuple[Ways, int]:
    """For each node, what it may come to, as the refs see it; and how many combinations that is."""
    refs: dict[str, dict[Ref, None]] = {}
    _collect(when, refs)
    ways: Ways = []
    total = 1
    for node, mentioned in refs.items():
        # Endings that no ref of this `when` tells apart are one.
        seen: dict[tuple[bool, ...], dict[Ref, bool]] = {}
        for ending in endings(node):
            values = {ref: _fits(ref, ending) for ref in mentioned}
            seen.setdefault(tuple(values.values()), values)
        ways.append(list(seen.values()))
        total *= len(seen)
        if total > MAX_COMBINATIONS:
            break
    return ways, total


def _try(when: When, ways: Ways) -> bool:
    for combination in product(*ways):
        known: dict[Ref, bool] = {}
        for values in combination:
            known.update(values)
        if _holds(when, known):
            return True
    return False


def _fits(ref: Ref, ending: Ending) -> bool:
    outcome, port = ending
    return outcome in ref.outcomes and (ref.port is None or ref.port == port)


def _collect(when: When, refs: dict[str, dict[Ref, None]]) -> None:
    stack = [when]
    while stack:
        match stack.pop():
            case Ref() as ref:
                refs.setdefault(ref.node, {})[ref] = None
            case Not(term=term):
                stack.append(term)
            case And(terms=terms) | Or(terms=terms) | Settled(terms=terms):
                stack.extend(terms)
            case AtLeast(terms=terms):
                stack.extend(terms)
            case _:
                pass


def _holds(when: When, known: Mapping[Ref, bool]) -> bool:
    match when:
        case Ref():
            return known[when]
        case Not(term=term):
            return not _holds(term, known)
        case And(terms=terms):
            return all(_holds(term, known) for term in terms)
        case Or(terms=terms):
            return any(_holds(term, known) for term in terms)
        case Settled(terms=terms, every=every):
            values = [_holds(term, known) for term in terms]
            return all(values) if every else any(values)
        case AtLeast(count=count, terms=terms):
            return sum(_holds(term, known) for term in terms) >= count
        case Always():
            return True
        case Never():
            return False
