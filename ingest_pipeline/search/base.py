"""What every reranker offers, also one of the user."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Reranker(Protocol):
    """Judges how well texts answer a question.

    One that the option `reranker` names runs in a child process with the environment and the network of the run. Its
    constructor runs in other processes too, so a model is loaded by the first call. It may have an attribute `seconds`,
    the time for one question, 120 if absent. `ConnectionError` and `TimeoutError` mean that it does not answer now.
    """

    async def rerank(self, question: str, texts: Sequence[str]) -> list[float]:
        """Return a score for each text, in the order of the texts. Higher is better.

        Raises:
            UnavailableError: It does not answer. The same call may succeed later.
        """
        ...
