"""Three-valued truth of a `when`: True, False, or None for "not known yet" (Kleene's logic)."""

from __future__ import annotations

from collections.abc import Mapping

from permaflow.plan import Always, And, AtLeast, Never, Not, Or, Ref, Settled, When
from pipeline.core.state import NodeState


def truth(when: When, nodes: Mapping[str, NodeState]) -> bool | None:
    """Whether `when` holds, given how far the nodes of its scope are."""
    match when:
        case Ref():
            return _ref(when, nodes)
        case Settled(terms=terms, every=every):
            return _settled([truth(term, nodes) for term in terms], every)
        case Or(terms=terms):
            return _at_least(1, [truth(term, nodes) for term in terms])
        case And(terms=terms):
            return _at_least(len(terms), [truth(term, nodes) for term in terms])
        case AtLeast(count=count, terms=terms):
            return _at_least(count, [truth(term, nodes) for term in terms])
        case Not(term=term):
            value = truth(term, nodes)
            return None if value is None else not value
        case Always():
            return True
        case Never():
            return False


def _ref(ref: Ref, nodes: Mapping[str, NodeState]) -> bool | None:
    state = nodes.get(ref.node)
    if state is None or state.outcome is None:
        return None
    if state.outcome not in ref.outcomes:
        return False
    return ref.port is None or state.port == ref.port


def _at_least(count: int, values: list[bool | None]) -> bool | None:
    if values.count(True) >= count:
        return True
    if len(values) - values.count(False) < count:
        return False
    return None


def _settled(values: list[bool | None], every: bool) -> bool | None:
    if every and False in values:
        return False
    if None in values:
        return None
    return True in values
