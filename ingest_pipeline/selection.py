"""Which objects of a source are documents of the corpus: by name and by size."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pathspec import GitIgnoreSpec

from ingest_pipeline.errors import ConfigurationError
from ingest_pipeline.model import SourceObject

LONGEST_KEY = 2048
"""Bytes. S3 and Google take half of that; a longer one, of a local folder or Azure, fits no index of Postgres."""


class Selection:
    """What to take and what to leave out. What is left out is treated as if the source did not hold it.

    Args:
        include: Patterns as in a ``.gitignore``: ``*.md`` at any depth, ``/docs/**/*.txt`` from the top. Empty: all.
        exclude: What to leave out of that.
        max_bytes: Size of the largest object to take. None: any.

    Raises:
        ConfigurationError: A pattern is malformed.
    """

    def __init__(self, include: Sequence[str] = (), exclude: Sequence[str] = (), max_bytes: int | None = None) -> None:
        self._include = _compiled(include) if include else None
        self._exclude = _compiled(exclude) if exclude else None
        self._max_bytes = max_bytes

    def objection(self, obj: SourceObject) -> str | None:
        """Why the object is left out, None if it is taken."""
        if len(obj.key.encode()) > LONGEST_KEY:
            return f"name of more than {LONGEST_KEY} bytes"
        if self._include is not None and not self._include.match_file(obj.key):
            return "not included"
        if self._exclude is not None and self._exclude.match_file(obj.key):
            return "excluded"
        if self._max_bytes is not None and obj.size > self._max_bytes:
            return f"larger than {self._max_bytes} bytes"
        return None


EVERYTHING = Selection()


def _compiled(patterns: Sequence[str]) -> GitIgnoreSpec:
    try:
        return GitIgnoreSpec.from_lines(patterns)
    except (ValueError, re.error) as error:
        raise ConfigurationError(
            f"Among the patterns {', '.join(map(repr, patterns))} is one that cannot be read: {error}",
            "Correct INGEST_INCLUDE or INGEST_EXCLUDE.",
        ) from error
