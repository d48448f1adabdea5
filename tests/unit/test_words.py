"""Retired words occur neither in the documents nor in the messages, docstrings and comments of the package.

docs/glossary.md has the words in use. Identifiers are not prose: names in code spans and whole words with underscores
are not looked at.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "ingest_pipeline"

RETIRED = {
    r"parcels?|stretch(es)?": "batch",
    r"workshops?": "ingest context",
    r"signs? of life": "heartbeat",
    r"late reports?": "replay",
    r"supersedes?|superseding": "publish, replace",
    r"buy|buys|buying|bought": "embed, bill, pay",
    r"reused": "cached",
    r"bulk orders?|in bulk": "batch job",
    r"known as": "corpus",
    r"stands?|stood|standing": "is, exists, current",
    r"objections?": "exclusion reason",
    r"left out|leaves? out|leaving out": "excluded, skipped",
    r"settle time|unsettled": "minimum age, too recent",
    r"litter|left over": "orphan files",
    r"foresees?|foresaw|foreseen": "estimate",
    r"(?<!not )promised": "expected",
    r"worn": "fragmented",
    r"bulk": "batch",
    r"persons?": "user",
    r"asked of": "must, requires",
    r"told": "reported, informed",
    r"lies|lay": "is in",
    r"given up|gives? up|gave up|giving up": "failed, abandoned, timed out",
    r"that which": "what",
    r"in (the )?place of": "instead of",
    r"upkeep": "maintenance",
    r"unasked": "without a request",
    r"in mid \w+": "during",
    r"nonsense": "invalid",
    r"mends?|mended|mending": "repair, fix",
    r"(?<=\s)nobody|whoever": "no process, no user",
    r"hurts?|hurting": "disrupt, affect",
    r"weathers?": "faults",
    r"(go|goes|going|went) on": "continue",
    r"(hear|hears|heard) (of|nothing)": "get no answer, get a report",
    r"half done": "in progress",
    r"under way": "in progress, in flight",
    r"forestall(s|ed)?": "publish first",
    r"purchases?": "billed request",
    r"(un)?plugged": "disabled",
    r"anew": "again",
    r"all the same": "nevertheless",
    r"comes? to an end": "end",
    r"left behind": "remaining",
    r"(is|are|was|were) asked|asked for": "requested, queried",
}
_RETIRED = re.compile("|".join(rf"\b(?:{pattern})\b" for pattern in RETIRED), re.IGNORECASE)
_CODE_SPAN = re.compile(r"`[^`\s]+`")

DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(ROOT / "deploy").rglob("*.md"),
    *(ROOT / "deploy").rglob("*.yaml"),
    *(ROOT / "examples").rglob("*.md"),
    ROOT / "benchmarks" / "README.md",
    ROOT / "tests" / "README.md",
]


def _python_prose(source: str) -> Iterator[tuple[int, str]]:
    """The string literals and comments of a module, with their lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _prose(path: Path) -> Iterator[tuple[int, str]]:
    text = path.read_text()
    if path.suffix == ".py":
        yield from _python_prose(text)
    else:
        yield from enumerate(text.splitlines(), 1)


def retired_words(path: Path) -> list[str]:
    """Each retired word of a file with its line, most useful in a failing test's output."""
    return [
        f"{path.relative_to(ROOT)}:{line}: {found[0]!r} in {text.strip()[max(0, found.start() - 40) :][:100]!r}"
        for line, prose in _prose(path)
        for text in [_CODE_SPAN.sub("", prose)]
        for found in _RETIRED.finditer(text)
    ]


def _parts() -> dict[str, list[Path]]:
    """The files of each package and each top-level module; a link's files are those of the folder it leads to."""
    parts: dict[str, list[Path]] = {}
    for entry in sorted(PACKAGE.iterdir()):
        if entry.is_dir() and entry.name != "__pycache__":
            folder = ROOT / entry.name if entry.is_symlink() else entry
            parts[entry.name] = [path for suffix in ("py", "sql") for path in sorted(folder.rglob(f"*.{suffix}"))]
        elif entry.suffix == ".py":
            parts[entry.name] = [entry]
    return parts


PARTS = _parts()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_document_uses_a_retired_word(path: Path) -> None:
    assert retired_words(path) == []


@pytest.mark.parametrize("part", sorted(PARTS))
def test_no_message_docstring_or_comment_uses_a_retired_word(part: str) -> None:
    assert [line for path in PARTS[part] for line in retired_words(path)] == []


def test_there_is_something_to_check() -> None:
    assert len(DOCUMENTS) >= 25
    assert sum(map(len, PARTS.values())) >= 120


@pytest.mark.parametrize(
    ("text", "found"), [("# bought and stands", 2), ('"""It lies there."""', 1), ("stands = 1", 0)]
)
def test_the_words_of_strings_and_comments_are_checked(text: str, found: int) -> None:
    assert sum(len(_RETIRED.findall(prose)) for _, prose in _python_prose(text + "\n")) == found


def test_the_glossary_is_short_and_has_each_word_once() -> None:
    rows = re.findall(r"^\| \*\*(.+?)\*\*", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    words = [word.strip() for row in rows for word in row.split(",")]
    assert len(rows) <= 35
    assert len(words) == len(set(words))


def test_each_test_that_the_guarantees_name_exists() -> None:
    text = (ROOT / "docs" / "evidence.md").read_text()
    defined = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"^(?:async )?def (test_\w+|check_\w+)", path.read_text(), re.MULTILINE)
    }
    named = set(re.findall(r"`(test_\w+)`", text))
    files = set(re.findall(r"`((?:unit|integration|property|faults|acceptance|packaging|soak)/[\w/]+\.py)`", text))
    assert len(named) >= 200
    assert sorted(named - defined) == []
    assert sorted(file for file in files if not (ROOT / "tests" / file).is_file()) == []


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md", "GUARANTEES.md", "docs/glossary.md"])
def test_each_file_that_a_document_names_exists(page: str) -> None:
    named = re.findall(r"`([a-z_]+/[\w/]+\.(?:py|sql))`", (ROOT / page).read_text())
    roots = (ROOT, PACKAGE, ROOT / "tests", ROOT / "docs")
    assert [name for name in named if not any((root / name).is_file() for root in roots)] == []
