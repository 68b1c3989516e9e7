"""What follows an approval, and what that makes of it.

A step that is bound to the bare success of an approval waits for `approved`: a rejection must not
pass for one. A rejection, or a timeout, leaves through its port if something follows that port, or
the config says `branch`; else it is a failure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta

from permaflow.plan import TAKEN, And, AtLeast, Json, Not, Or, Question, Ref, Settled, When
from specs import waits
from specs.approvals import KIND, Asking
from specs.documents import Step
from specs.reading import shown

APPROVED, REJECTED, TIMED_OUT = "approved", "rejected", "timed_out"


def main_port(step: Step) -> str | None:
    """The port that bare success means; None if any."""
    work = step.work
    if isinstance(work, Question) and work.kind == waits.KIND:
        return waits.MET
    return APPROVED if asking_of(step) is not None else None


def asking_of(step: Step) -> Asking | None:
    work = step.work
    if isinstance(work, Question) and work.kind == KIND and isinstance(work.config, Asking):
        return work.config
    return None


def narrow(when: When, steps: Mapping[str, Step]) -> When:
    """The same `when`, where the success of an approval is that it was approved."""
    match when:
        case Ref(node=name, outcomes=outcomes, port=None) if outcomes == TAKEN and name in steps:
            return replace(when, port=main_port(steps[name]))
        case Not(term=term):
            return Not(narrow(term, steps))
        case And(terms=terms) | Or(terms=terms) | Settled(terms=terms) | AtLeast(terms=terms):
            return replace(when, terms=tuple(narrow(term, steps) for term in terms))
        case _:
            return when


def ports_in(whens: Iterable[When]) -> Iterator[tuple[str, str | None]]:
    """The nodes that are waited for, with the ports."""
    stack = list(whens)
    while stack:
        match stack.pop():
            case Ref(node=name, port=port):
                yield name, port
            case Not(term=term):
                stack.append(term)
            case And(terms=terms) | Or(terms=terms) | Settled(terms=terms) | AtLeast(terms=terms):
                stack.extend(terms)
            case _:
                pass


def settle(steps: Mapping[str, Step], used: Iterable[tuple[str, str | None]]) -> None:
    """Decides for every approval what a rejection and a timeout are, and for every wait for a
    change what a timeout is; `used` are the ports that something follows.
    """
    used = list(used)
    for name in {name for name, port in used if port == waits.TIMED_OUT}:
        if name in steps:
            _settle_wait(steps[name])
    approvals = {name: asking for name, step in steps.items() if (asking := asking_of(step))}
    if not approvals:
        return
    followed: dict[str, set[str | None]] = {name: set() for name in approvals}
    for name, port in used:
        if name in followed:
            followed[name].add(port)
    for name, asking in approvals.items():
        _settle(steps[name], asking, followed[name])


def _settle_wait(step: Step) -> None:
    """Something follows its timeout."""
    work = step.work
    if not isinstance(work, Question) or work.kind != waits.KIND:
        return
    if work.config["on_timeout"] == "fail":
        step.problem("", "never_taken", _unused(step, waits.TIMED_OUT, "on_timeout"))
    if step.timeout is None:
        step.problem("", "missing_field", "`timeout_seconds` is missing; give a number of seconds.")
    step.work = replace(work, timeout_port=waits.TIMED_OUT)


def _settle(step: Step, asking: Asking, followed: set[str | None]) -> None:
    if step.timeout is not None and asking.timeout is not None:
        step.problem("", "conflict", "Give `timeout_seconds` in the config or beside it, not both.")
    timeout = asking.timeout
    if timeout is None and step.timeout is not None:
        timeout = step.timeout.total_seconds()
    on_reject = asking.on_reject or ("branch" if REJECTED in followed else "fail")
    on_timeout = asking.on_timeout or ("branch" if TIMED_OUT in followed else "fail")
    by_timeout = timeout is not None and on_timeout == "reject"
    if REJECTED in followed and on_reject == "fail":
        step.problem("", "never_taken", _unused(step, REJECTED, "on_reject"))
    if TIMED_OUT in followed and on_timeout != "branch":
        step.problem("", "never_taken", _unused(step, TIMED_OUT, "on_timeout"))
    if timeout is None and (asking.on_timeout or TIMED_OUT in followed):
        step.problem("", "missing_field", "`timeout_seconds` is missing; give a number of seconds.")
    port: str | None = None
    match on_timeout:
        case "approve":
            port = APPROVED
        case "reject" if on_reject == "branch" and by_timeout:
            port = REJECTED
        case "branch":
            port = TIMED_OUT
    step.timeout = None if timeout is None else timedelta(seconds=timeout)
    settled = replace(asking, on_reject=on_reject, on_timeout=on_timeout, timeout=timeout)
    step.work = Question(KIND, settled, port, None if port is None else _output(port))


def _unused(step: Step, port: str, name: str) -> str:
    return (
        f"{shown(step.id)} never leaves through `{port}`: its `{name}` says otherwise. Set it to "
        "`branch`, or remove what follows that port."
    )


def _output(port: str) -> dict[str, Json]:
    """The output of an approval that nobody decided in time."""
    return {
        "decision": port,
        "timed_out": True,
        "by": "",
        "comment": "",
        "data": {},
        "decisions": [],
    }
