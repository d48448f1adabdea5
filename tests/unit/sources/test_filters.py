"""What of a source is taken."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.sources.filters import EVERYTHING, Selection, pattern_of
from ingest_pipeline.types import SourceObject

_KEYS = ["a.md", "a.txt", "docs/b.md", "docs/deep/er/c.txt", "docs/drafts/d.md", "drafts/e.txt"]


def taken(selection: Selection, size: int = 10) -> list[str]:
    objects = (SourceObject(key, "1", size, datetime(2026, 1, 1, tzinfo=UTC)) for key in _KEYS)
    return [obj.key for obj in objects if selection.exclusion_reason(obj) is None]


def test_everything_is_included_by_default() -> None:
    assert taken(EVERYTHING) == _KEYS


def test_a_name_pattern_holds_at_any_depth() -> None:
    assert taken(Selection(include=["*.md"])) == ["a.md", "docs/b.md", "docs/drafts/d.md"]


def test_two_stars_match_any_number_of_folders() -> None:
    assert taken(Selection(include=["/docs/**/*.txt"])) == ["docs/deep/er/c.txt"]


def test_exclude_has_priority_over_include() -> None:
    assert taken(Selection(include=["*.md"], exclude=["drafts/"])) == ["a.md", "docs/b.md"]


def test_large_objects_are_excluded() -> None:
    assert taken(Selection(max_bytes=9)) == []
    assert taken(Selection(max_bytes=10)) == _KEYS


def test_a_reason_is_given() -> None:
    obj = SourceObject("a.md", "1", 10, datetime(2026, 1, 1, tzinfo=UTC))
    reasons = [Selection(["*.txt"]), Selection([], ["*.md"]), Selection(max_bytes=5)]
    assert [selection.exclusion_reason(obj) for selection in reasons] == [
        "not included",
        "excluded",
        "larger than 5 bytes",
    ]


def test_a_malformed_pattern_is_named() -> None:
    with pytest.raises(ConfigurationError, match="INGEST_EXCLUDE"):
        Selection(exclude=["*.md", "[z-a]"])


@pytest.mark.promise("source-faults")
@pytest.mark.parametrize(
    ("exclude", "excluded"),
    [
        (["drafts/", "!drafts/d.md"], ["drafts/d.md", "drafts/x/e.md"]),
        (["drafts/*", "!drafts/d.md"], ["drafts/x/e.md"]),
        (["drafts/**", "!drafts/d.md"], ["drafts/x/e.md"]),
        (["!*.md", "drafts/"], ["drafts/d.md", "drafts/x/e.md"]),
        (["*", "!*/", "!*.md"], ["a.txt"]),
        (["*", "!*.md"], ["a.txt", "drafts/d.md", "drafts/x/e.md"]),
        (["*.md", "!drafts/"], ["b.md", "drafts/d.md", "drafts/x/e.md"]),
        (["x", "!/drafts/x"], []),
        (["x/", "!/drafts/x/", "x/e.*"], []),
        (["*", "!drafts", "!d.*"], ["a.txt", "b.md", "drafts/x/e.md"]),
    ],
)
def test_exclusion_works_as_in_git(tmp_path: Path, exclude: list[str], excluded: list[str]) -> None:
    keys = ["a.txt", "b.md", "drafts/d.md", "drafts/x/e.md"]
    assert [key for key in keys if Selection(exclude=exclude).name_exclusion_reason(key)] == excluded
    if shutil.which("git"):
        subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
        (tmp_path / ".gitignore").write_text("\n".join(exclude))
        asked = ["git", "-C", str(tmp_path), "check-ignore", *keys]
        assert subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=False).stdout.split() == excluded


@pytest.mark.parametrize(
    ("include", "exclude", "left_out"),
    [
        ([], ["drafts/"], ["drafts/", "drafts/x/"]),
        ([], ["drafts/*", "!drafts/d.md"], ["drafts/x/"]),
        ([], ["*.md"], []),
        ([], ["x"], ["drafts/x/"]),
        (["*.md"], [], []),
        (["/docs/**/*.md"], [], ["drafts/", "drafts/x/"]),
        (["/drafts/d.md", "docs/"], [], []),
        (["/drafts/d.md", "/docs/"], [], ["drafts/x/"]),
        (["/dra*/d.md"], [], []),
        (["!*.txt"], [], []),
    ],
)
def test_a_folder_is_excluded_if_nothing_in_it_can_be_included(
    include: list[str], exclude: list[str], left_out: list[str]
) -> None:
    selection = Selection(include, exclude)
    assert [folder for folder in ("drafts/", "drafts/x/") if selection.name_exclusion_reason(folder)] == left_out


def test_the_pattern_of_a_path_matches_only_that_path() -> None:
    for path in ("lost+found", "[a]*?", "#x", "!y", "a b ", "back\\slash", "a/b"):
        selection = Selection(exclude=[pattern_of(path)])
        assert selection.name_exclusion_reason(path) == "excluded"
        assert selection.name_exclusion_reason(f"{path}/below") == "excluded"
        assert selection.name_exclusion_reason(f"x{path}") is None
