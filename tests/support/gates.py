"""Gates of a user, which child processes import by name."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ingest_pipeline import PreparedVersion


class NoDrafts:
    """Refuses chunks with the word draft, and says what it saw."""

    def __init__(self, word: str = "draft") -> None:
        self._word = word

    def judge(self, version: PreparedVersion) -> Sequence[str]:
        rows = version.table.to_table(columns=["document", "text"]).to_pylist()
        drafts = sorted({row["document"] for row in rows if self._word in row["text"]})
        before = version.head.count_rows()
        seen = f"head has {before} chunks, {list(version.documents)} published, {list(version.removed)} removed"
        return [*drafts, seen] if drafts else []


class Raises:
    """Fails."""

    def judge(self, _version: PreparedVersion) -> Sequence[str]:
        raise RuntimeError("no opinion")


class Hangs:
    """Does not answer."""

    seconds = 0.2

    def judge(self, _version: PreparedVersion) -> Sequence[str]:
        time.sleep(60)
        return []


class SaysNumber:
    """Returns something else."""

    def judge(self, _version: PreparedVersion) -> Sequence[str]:
        return 3  # type: ignore[return-value]  # pyright: ignore[reportReturnType]
