"""Journals of former engines give the states that they gave then."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from pipeline.core.entries import TAGS, from_row, to_row
from pipeline.core.program import Program
from pipeline.core.replay import replay
from pipeline.core.state import Run
from tests.core.dump import dump
from tests.replay.record import JOURNALS, SUMS, compiled

FILES = sorted(JOURNALS.glob("*.json"))
COLLECTIONS = ("nodes", "outstanding", "scopes", "steps", "timers", "open")


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return found


def replayed(recorded: dict[str, Any]) -> Run:
    program = Program(compiled(recorded["document"]))
    run = Run(UUID(recorded["run"]), program, recorded["input"], recorded["trigger"])
    return replay(run, [(n, from_row(row)) for n, row in enumerate(recorded["rows"], 1)])


def differences(then: Any, now: Any, where: str = "", name: str = "") -> list[str]:
    """Where two states differ. A newer state may say more of a thing, but has no other things."""
    if not isinstance(then, dict) or not isinstance(now, dict):
        return [] if then == now else [f"{where}: {then!r} is {now!r} now"]
    missing = then.keys() - now.keys()
    if name in COLLECTIONS:
        missing |= now.keys() - then.keys()
    found = [f"{where}/{key}: is there in one only" for key in sorted(missing)]
    for key in then.keys() & now.keys():
        found += differences(then[key], now[key], f"{where}/{key}", key)
    return found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recorded_journal_gives_the_state_that_it_gave(file: Path) -> None:
    recorded = read(file)
    now = json.loads(json.dumps(dump(replayed(recorded))))
    assert differences(recorded["state"], now) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_recorded_journal_is_written_today_as_it_was_then(file: Path) -> None:
    for row in read(file)["rows"]:
        again = json.loads(json.dumps(to_row(from_row(row))))
        assert [entry[: len(then)] for entry, then in zip(again, row, strict=True)] == row


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_journal_with_a_piece_left_out_gives_another_state(file: Path) -> None:
    recorded = read(file)
    recorded["rows"][-1].pop()
    try:
        now = json.loads(json.dumps(dump(replayed(recorded))))
    except KeyError:
        return
    assert differences(recorded["state"], now)


def test_recorded_journals_have_been_added_to_and_never_changed() -> None:
    sums = dict(reversed(line.split()) for line in SUMS.read_text(encoding="utf-8").splitlines())
    now = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in FILES}
    assert now == sums


def test_every_kind_of_entry_has_been_recorded() -> None:
    tags = {entry[0] for file in FILES for row in read(file)["rows"] for entry in row}
    assert tags == set(TAGS.values())


def test_an_entry_of_a_newer_engine_is_refused() -> None:
    with pytest.raises(KeyError):
        from_row([["teleported", "", "a"]])
