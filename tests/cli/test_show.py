"""Tables as people see them."""

from __future__ import annotations

import pytest
from rich.console import Console

from pipeline.cli import show

RUN = "01a202e0-8fc2-730d-9d87-68435731d511"


@pytest.mark.parametrize("width", [40, 80, 140])
def test_nothing_is_cut_off_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    def terminal(stderr: bool = False) -> Console:
        return Console(width=width, force_terminal=True, color_system=None, highlight=False)

    monkeypatch.setattr(show, "console", terminal)
    row = (RUN, "new-orders", "completed", "2026-11-22 10:00:01", "It took longer than it may.")
    show.table(("id", "workflow", "status", "started", "error"), [row])
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 2
    for cell in row:
        assert cell in shown
