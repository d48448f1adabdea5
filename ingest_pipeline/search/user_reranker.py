"""The reranker of the user, and how it is called."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from ingest_pipeline.errors import RerankerResponseError, RerankerUnavailableError
from ingest_pipeline.extensions.loader import Extension, only
from ingest_pipeline.extensions.pool import Hook, HookFailedError
from ingest_pipeline.search.user_reranker_role import answer_bytes, read_answer, request

_ROLE = "ingest_pipeline.search.user_reranker_role"
_REMEDY = "Correct the reranker, or search without it."


@dataclass(frozen=True)
class UserReranker:
    """A reranker of the user, in a child process."""

    hook: Hook

    @classmethod
    def load(cls, extension: Extension) -> UserReranker:
        """Load a reranker.

        Raises:
            ConfigurationError: It cannot be loaded or does not fit the protocol.
        """
        return cls(Hook.load_unconfined(extension, _ROLE, "rerank"))

    async def rerank(self, question: str, texts: Sequence[str]) -> list[float]:
        """Return a score for each text, in the order of the texts. Higher is better.

        Raises:
            RerankerUnavailableError: It reports a temporary failure.
            RerankerResponseError: It raises another exception, hangs, ends its process or returns no scores.
            ConfigurationError: Its child process does not start.
        """
        name = self.hook.name
        try:
            data = await asyncio.to_thread(self.hook.call, {}, request(question, texts), answer_bytes(len(texts)))
            scores, problem = read_answer(data, len(texts))
        except HookFailedError as failure:
            raise RerankerResponseError(f"The {name} {failure}", _REMEDY) from None
        except (ValueError, TypeError):
            raise RerankerResponseError(
                f"The child process of the {name} returned something invalid", _REMEDY
            ) from None
        if problem:
            raise RerankerUnavailableError(f"The {name} failed with {problem}", "Search again, or without a reranker.")
        return scores


@lru_cache(64)
def load_reranker(extensions: tuple[Extension, ...]) -> UserReranker | None:
    """Load the reranker that an option names, once in a process. None: the option names none.

    Raises:
        ConfigurationError: It cannot be loaded or does not fit the protocol, or there are several.
    """
    extension = only(extensions)
    return None if extension is None else UserReranker.load(extension)
