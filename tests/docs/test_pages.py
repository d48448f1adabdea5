"""Links and navigation of the documents, without the programs that build the site."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PAGES = [
    page
    for pattern in ("*.md", "docs/**/*.md", "deploy/**/*.md", "examples/**/*.md", "benchmarks/*.md", "tests/*.md")
    for page in sorted(ROOT.glob(pattern))
]
_LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]*)(?:#([^)\s]*))?\)")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    broken: list[str] = []
    for path, anchor in _LINK.findall(_prose(page)):
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in _anchors(target)):
            broken.append(f"{path}#{anchor}")
    assert broken == []


def test_the_navigation_of_the_site_has_each_page_once() -> None:
    # The site's programs, which would say so too, are not always installed.
    site: dict[str, Any] = yaml.load((ROOT / "mkdocs.yml").read_text(), yaml.BaseLoader)  # noqa: S506  it makes texts of all values
    elsewhere: dict[str, str] = site["extra"]["elsewhere"]
    own = {str(page.relative_to(ROOT / "docs")) for page in PAGES if page.is_relative_to(ROOT / "docs")}
    assert sorted(_entries(site["nav"])) == sorted({*own, *elsewhere.values()} - {"README.md"})
    assert all((ROOT / path).is_file() for path in elsewhere)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_each_page_has_one_title(page: Path) -> None:
    assert len(re.findall(r"^# ", _prose(page), re.MULTILINE)) == 1


@pytest.mark.parametrize(("page", "lines"), [("README.md", 120), ("GUARANTEES.md", 150)])
def test_the_pages_that_are_read_first_are_short(page: str, lines: int) -> None:
    assert len((ROOT / page).read_text().splitlines()) <= lines


def _entries(entry: Any) -> list[str]:
    """The pages of a part of the navigation."""
    if isinstance(entry, str):
        return [entry]
    return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in _entries(part)]


def _prose(page: Path) -> str:
    """The text of a page without its code."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@cache
def _anchors(page: Path) -> set[str]:
    """The names that links into a page may use."""
    if page.suffix != ".md":
        return set()
    text = _prose(page)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower()) for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))
