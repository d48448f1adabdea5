"""Filters that decide by name and size which objects of a source are documents of the corpus."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from pathspec import GitIgnoreSpec

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.types import SourceObject

MAX_KEY_BYTES = 2048
"""S3 and Google accept half of this. Longer keys, of a local folder or Azure, do not fit an index of Postgres."""
EXCLUDED, NOT_INCLUDED = "excluded", "not included"
_FOLDER = "ps_d"
"""The group of pathspec's regular expressions that matches the slash after a folder."""
_WILD = frozenset("*?[\\")


class Selection:
    """Includes and excludes objects. An excluded object is treated as if it did not exist.

    Args:
        include: Patterns as in a ``.gitignore``: ``*.md`` at any depth, ``/docs/**/*.txt`` from the top. Empty: all.
        exclude: Patterns of objects to exclude. As in Git, ``!`` does not include files below an excluded folder again.
        max_bytes: The size of the largest object to include. None: no limit.

    Raises:
        ConfigurationError: A pattern is malformed.
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = (), max_bytes: int | None = None) -> None:
        self._include = _compiled(include) if include else None
        self._tops = [_top(pattern) for pattern in include if not pattern.startswith("!")]
        self._exclude = _Exclusion(_compiled(exclude))
        self._max_bytes = max_bytes

    def exclusion_reason(self, obj: SourceObject) -> str | None:
        """Why the object is excluded; None if it is included."""
        if reason := self.name_exclusion_reason(obj.key):
            return reason
        if self._max_bytes is not None and obj.size > self._max_bytes:
            return f"larger than {self._max_bytes} bytes"
        return None

    def name_exclusion_reason(self, key: str) -> str | None:
        """Why an object of this name is excluded, whatever its content; None if it is not. Folder names end in a slash.

        A folder is excluded only if everything that may ever be in it is, so that it need not be listed.
        """
        if len(key.encode()) > MAX_KEY_BYTES:
            return f"name of more than {MAX_KEY_BYTES} bytes"
        if key.endswith("/"):
            if self._tops and not any(_may_meet(top, key) for top in self._tops):
                return NOT_INCLUDED
        elif self._include is not None and not self._include.match_file(key):
            return NOT_INCLUDED
        return EXCLUDED if self._exclude.covers(key) else None


class _Exclusion:
    """Patterns in Git's sense: folder by folder from the top, the last pattern that matches each folder decides.

    pathspec's own verdict differs for negated patterns: ``!*.md`` would include files of an excluded folder again.
    """

    def __init__(self, patterns: GitIgnoreSpec) -> None:
        every = reversed(list(patterns.patterns))
        self._patterns = [(pattern.include, pattern.regex) for pattern in every if pattern.regex is not None]
        self._decide_once = lru_cache(4096)(self._decide)

    def covers(self, key: str) -> bool:
        """Whether the object, or the folder if the key ends in a slash, is excluded."""
        if not self._patterns:
            return False
        above = [key[:end] for end, character in enumerate(key) if character == "/"]
        if any(self._decide_once(folder, is_folder=True) for folder in above):
            return True
        return not key.endswith("/") and self._decide(key, is_folder=False)

    def _decide(self, path: str, *, is_folder: bool) -> bool:
        return next((bool(include) for include, regex in self._patterns if _matches(regex, path, is_folder)), False)


def _matches(regex: re.Pattern[str], path: str, is_folder: bool) -> bool:  # noqa: FBT001  a private function
    """Whether a pattern of pathspec matches the path itself, and not only a folder above it."""
    if any(found.groupdict().get(_FOLDER) is None for found in regex.finditer(path)):
        return True
    slashed = f"{path}/"
    return is_folder and any(
        found.groupdict().get(_FOLDER) and found.end(_FOLDER) == len(slashed) for found in regex.finditer(slashed)
    )


def pattern_of(path: str) -> str:
    """The pattern that matches exactly one file or folder, given its path from the top."""
    return "/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", path)


def _top(pattern: str) -> tuple[str, ...]:
    """The leading folders, from the top, of everything that a pattern can match; empty if it matches at any depth."""
    parts = pattern.strip().rstrip("/").split("/")
    if len(parts) == 1:
        return ()
    named = parts[1:] if not parts[0] else parts
    wild = next((index for index, part in enumerate(named) if _WILD.intersection(part)), len(named))
    return tuple(named[:wild])


def _may_meet(top: tuple[str, ...], folder: str) -> bool:
    return all(wanted == actual for wanted, actual in zip(top, folder.split("/")[:-1], strict=False))


def _compiled(patterns: Sequence[str]) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except (ValueError, re.error) as error:
        raise ConfigurationError(
            f"One of the patterns {', '.join(map(repr, patterns))} is malformed: {error}",
            "Correct INGEST_INCLUDE or INGEST_EXCLUDE.",
        ) from error


EVERYTHING = Selection()
