"""What readers are told: pages exist, links lead somewhere, decisions are numbered."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

LINK = re.compile(r"\[[^\]]+\]\(([^)\s]+)\)")
ADR_HEADINGS = ["Context", "Decision", "Consequences", "What would change our mind"]
SKIPPED = {".venv", "node_modules", ".git", ".permaflow"}


@pytest.fixture(scope="module")
def pages(root: Path) -> dict[str, str]:
    """Every Markdown page by its path."""
    files = (file for file in root.rglob("*.md") if not SKIPPED & set(file.parts))
    return {f.relative_to(root).as_posix(): f.read_text(encoding="utf-8") for f in files}


def test_every_link_to_a_file_leads_to_one(root: Path, pages: dict[str, str]) -> None:
    dead = [
        f"{page}: {target}"
        for page, text in pages.items()
        for target in LINK.findall(re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL))
        if "://" not in target
        and not target.startswith(("#", "mailto:"))
        and not ((root / page).parent / target.partition("#")[0]).exists()
    ]
    assert not dead


def test_no_page_is_unfinished(pages: dict[str, str]) -> None:
    left = re.compile(r"\b(TODO|TBD|FIXME|lorem ipsum|coming soon)\b", re.IGNORECASE)
    assert not [page for page, text in pages.items() if left.search(text)]


def test_the_readme_fits_on_a_screen_or_two(pages: dict[str, str]) -> None:
    assert pages["README.md"].count("\n") <= 100


def test_decisions_are_numbered_without_gaps_and_listed(pages: dict[str, str]) -> None:
    decisions = sorted(p for p in pages if re.fullmatch(r"docs/adr/\d{4}-[a-z0-9-]+\.md", p))
    numbers = [int(Path(path).name[:4]) for path in decisions]
    assert numbers == list(range(1, len(decisions) + 1))
    others = {p for p in pages if p.startswith("docs/adr/")} - set(decisions)
    assert others == {"docs/adr/README.md"}
    assert LINK.findall(pages["docs/adr/README.md"]) == [Path(path).name for path in decisions]


def test_every_decision_says_what_when_why_and_what_would_change_it(pages: dict[str, str]) -> None:
    for path, text in pages.items():
        if not re.match(r"docs/adr/\d", path):
            continue
        assert text.startswith(f"# {Path(path).name[:4]}: "), path
        assert re.search(r"^- Status: (accepted|superseded by \d{4})$", text, re.MULTILINE), path
        assert re.search(r"^- Date: \d{4}-\d\d-\d\d$", text, re.MULTILINE), path
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == ADR_HEADINGS, path


def test_the_changelog_has_a_place_for_the_next_change(pages: dict[str, str], root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    headings = re.findall(r"^## \[(.+?)\]", pages["CHANGELOG.md"], re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1:] == [] or headings[1] == project["version"]


def test_the_glossary_explains_each_word_once(pages: dict[str, str]) -> None:
    words = re.findall(r"^\| (?!Word|---)([^|]+?) \|", pages["docs/glossary.md"], re.MULTILINE)
    assert len(words) > 30
    assert len(words) == len(set(words))


def test_make_lists_every_target(root: Path) -> None:
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    (targets,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    answer = subprocess.run(["make"], cwd=root, capture_output=True, text=True, timeout=30)
    listed = re.findall(r"^  make (\w+)", answer.stdout, re.MULTILINE)
    assert answer.returncode == 0, answer.stderr
    assert sorted(listed) == sorted(targets.split())
