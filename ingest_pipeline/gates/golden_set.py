"""Golden sets: questions with the documents, chunks or texts that a search must find, read from a file.

The file is JSON Lines, YAML or CSV, as its suffix says. Each question has a `query`, and at least one of `documents`
(keys), `chunks` (ids) and `texts` (a chunk must contain the text, whatever the white space):

    {"query": "How many days of leave do I have?", "documents": ["leave.md"]}

A CSV file has these names in its first line; several values of a cell are separated by `|`.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml

from ingest_pipeline.errors import ConfigurationError

_EXPECTED = ("documents", "chunks", "texts")
_SUFFIXES = (".jsonl", ".ndjson", ".yaml", ".yml", ".csv")
_FORM = 'Write each question like {"query": "Who approves travel?", "documents": ["travel.md"]}.'


@dataclass(frozen=True, slots=True)
class GoldenQuestion:
    """A question, and what a search must find for it."""

    query: str
    documents: tuple[str, ...] = ()
    """Keys of documents. Any chunk of one counts."""
    chunks: tuple[str, ...] = ()
    """Ids of chunks."""
    texts: tuple[str, ...] = ()
    """Texts. Any chunk that contains one counts, whatever the white space."""


def read_golden_set(file: str) -> tuple[GoldenQuestion, ...]:
    """Read the questions of a file.

    Raises:
        ConfigurationError: The file cannot be read, has no questions, or is malformed.
    """
    path = Path(file)
    if path.suffix.lower() not in _SUFFIXES:
        raise ConfigurationError(
            f"The golden set {file!r} has none of the suffixes {', '.join(_SUFFIXES)}", "Rename or convert the file."
        )
    try:
        questions = tuple(_question(file, place, values) for place, values in _entries(path))
    except OSError as error:
        raise ConfigurationError(
            f"The golden set {file!r} cannot be read: {error.strerror or error}", "Correct its path or its permissions."
        ) from error
    except (UnicodeError, ValueError, yaml.YAMLError, csv.Error) as error:
        what = " ".join(str(error).split())
        raise ConfigurationError(f"The golden set {file!r} cannot be read: {what}", "Correct the file.") from error
    if not questions:
        raise ConfigurationError(f"The golden set {file!r} has no questions", _FORM)
    return questions


def _entries(path: Path) -> Iterator[tuple[str, object]]:
    """The questions of a file with their places, as the format has them."""
    text, suffix = path.read_text(encoding="utf-8-sig"), path.suffix.lower()
    if suffix in {".yaml", ".yml"}:
        loaded: object = yaml.safe_load(text)
        for number, one in enumerate(cast("list[object]", loaded) if isinstance(loaded, list) else [loaded], 1):
            if one is not None:
                yield f"question {number}", one
    elif suffix == ".csv":
        rows = csv.DictReader(text.splitlines(), strict=True)
        for row in rows:
            yield f"line {rows.line_num}", {name: _cell(name, value) for name, value in row.items() if value}
    else:
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                yield f"line {number}", json.loads(line)


def _cell(name: str, value: str) -> str | list[str]:
    return [part.strip() for part in value.split("|")] if name in _EXPECTED else value


def _question(file: str, place: str, values: object) -> GoldenQuestion:
    def refused(what: str) -> ConfigurationError:
        return ConfigurationError(f"The golden set {file!r} {what} in {place}", _FORM)

    if not isinstance(values, Mapping):
        raise refused("has no mapping")
    given = cast("Mapping[str, Any]", values)
    if unknown := [str(name) for name in given if name not in {"query", *_EXPECTED}]:
        raise refused(f"has the unknown name {unknown[0]!r}")
    query = given.get("query")
    if not isinstance(query, str) or not query.strip():
        raise refused("has no query")
    expected: dict[str, tuple[str, ...]] = {}
    for name in _EXPECTED:
        found = given.get(name) or []
        found = [found] if isinstance(found, str) else found
        if not isinstance(found, list) or not all(isinstance(one, str) and one for one in cast("list[object]", found)):
            raise refused(f"has {name} that are not a list of texts")
        expected[name] = tuple(dict.fromkeys(cast("list[str]", found)))
    if not any(expected.values()):
        raise refused("expects neither documents nor chunks nor texts")
    return GoldenQuestion(query, **expected)
