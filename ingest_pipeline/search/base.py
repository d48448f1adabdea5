"""What every reranker offers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Reranker(Protocol):
    """Judges how well texts answer a question."""

    async def rerank(self, question: str, texts: Sequence[str]) -> list[float]:
        """Return a score for each text, in the order of the texts. Higher is better.

        Raises:
            UnavailableError: It does not answer. The same call may succeed later.
        """
        ...
