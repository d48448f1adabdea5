"""Which objects of a source are documents of the corpus: by name and by size."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from pathspec import GitIgnoreSpec

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.types import SourceObject

LONGEST_KEY = 2048
"""Bytes. S3 and Google take half of that; a longer one, of a local folder or Azure, fits no index of Postgres."""
EXCLUDED, NOT_INCLUDED = "excluded", "not included"
_FOLDER = "ps_d"
"""Group of pathspec's regular expressions that matches the slash behind a folder."""
_WILD = frozenset("*?[\\")


class Selection:
    """What to take and what to leave out. What is left out is treated as if the source did not hold it.

    Args:
        include: Patterns as in a ``.gitignore``: ``*.md`` at any depth, ``/docs/**/*.txt`` from the top. Empty: all.
        exclude: What to leave out of that. As in Git, nothing below an excluded folder can be taken back by a ``!``.
        max_bytes: Size of the largest object to take. None: any.

    Raises:
        ConfigurationError: A pattern is malformed.
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = (), max_bytes: int | None = None) -> None:
        self._include = _compiled(include) if include else None
        self._tops = [_top(pattern) for pattern in include if not pattern.startswith("!")]
        self._exclude = _Exclusion(_compiled(exclude))
        self._max_bytes = max_bytes

    def exclusion_reason(self, obj: SourceObject) -> str | None:
        """Why the object is left out, None if it is taken."""
        if reason := self.name_exclusion_reason(obj.key):
            return reason
        if self._max_bytes is not None and obj.size > self._max_bytes:
            return f"larger than {self._max_bytes} bytes"
        return None

    def name_exclusion_reason(self, key: str) -> str | None:
        """Why an object of this name is left out, whatever it holds. A name that ends in a slash is a folder's.

        A folder is left out only if all that may ever be in it is, so nobody has to look into it.
        """
        if len(key.encode()) > LONGEST_KEY:
            return f"name of more than {LONGEST_KEY} bytes"
        if key.endswith("/"):
            if self._tops and not any(_may_meet(top, key) for top in self._tops):
                return NOT_INCLUDED
        elif self._include is not None and not self._include.match_file(key):
            return NOT_INCLUDED
        return EXCLUDED if self._exclude.covers(key) else None


class _Exclusion:
    """Patterns as Git reads them: folder by folder from the top, and at each the last pattern that matches decides.

    pathspec's own verdict differs where patterns take back: ``!*.md`` would take files out of an excluded folder.
    """

    def __init__(self, patterns: GitIgnoreSpec) -> None:
        every = reversed(list(patterns.patterns))
        self._patterns = [(pattern.include, pattern.regex) for pattern in every if pattern.regex is not None]
        self._decided = lru_cache(4096)(self._decide)

    def covers(self, key: str) -> bool:
        """Whether the object, or the folder if the key ends in a slash, is excluded."""
        if not self._patterns:
            return False
        above = [key[:end] for end, character in enumerate(key) if character == "/"]
        if any(self._decided(folder, is_folder=True) for folder in above):
            return True
        return not key.endswith("/") and self._decide(key, is_folder=False)

    def _decide(self, path: str, *, is_folder: bool) -> bool:
        return next((bool(include) for include, regex in self._patterns if _matches(regex, path, is_folder)), False)


def _matches(regex: re.Pattern[str], path: str, is_folder: bool) -> bool:  # noqa: FBT001  nobody else calls it
    """Whether a pattern of pathspec's matches the path itself, and not only a folder above it."""
    if any(found.groupdict().get(_FOLDER) is None for found in regex.finditer(path)):
        return True
    slashed = f"{path}/"
    return is_folder and any(
        found.groupdict().get(_FOLDER) and found.end(_FOLDER) == len(slashed) for found in regex.finditer(slashed)
    )


def pattern_of(path: str) -> str:
    """The pattern of one file or folder, by its path from the top."""
    return "/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", path)


def _top(pattern: str) -> tuple[str, ...]:
    """The folders, from the top, of which one must be in or above what the pattern matches; none if it floats."""
    parts = pattern.strip().rstrip("/").split("/")
    if len(parts) == 1:
        return ()
    named = parts[1:] if not parts[0] else parts
    wild = next((place for place, part in enumerate(named) if _WILD.intersection(part)), len(named))
    return tuple(named[:wild])


def _may_meet(top: tuple[str, ...], folder: str) -> bool:
    return all(ours == theirs for ours, theirs in zip(top, folder.split("/")[:-1], strict=False))


def _compiled(patterns: Sequence[str]) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except (ValueError, re.error) as error:
        raise ConfigurationError(
            f"Among the patterns {', '.join(map(repr, patterns))} is one that cannot be read: {error}",
            "Correct INGEST_INCLUDE or INGEST_EXCLUDE.",
        ) from error


EVERYTHING = Selection()
