"""Calls a reranker of the user, in its child process, and reads the answer, in the parent."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from ingest_pipeline.errors import UnavailableError
from ingest_pipeline.extensions.coroutines import result_of
from ingest_pipeline.extensions.loader import described
from ingest_pipeline.extensions.protocol import InvalidResultError
from ingest_pipeline.search.base import Reranker

_TEMPORARY: Final = (ConnectionError, TimeoutError, UnavailableError)


def request(question: str, texts: Sequence[str]) -> bytes:
    """What the child gets."""
    return json.dumps((question, list(texts))).encode()


def answer_bytes(texts: int) -> int:
    """How long an answer can be."""
    return 32 * texts + (8 << 10)


def answer(extension: object, head: dict[str, object], data: bytes) -> bytes:  # noqa: ARG001  other roles need it
    """The scores of texts, or a temporary failure.

    Args:
        extension: The reranker.
        head: Nothing.
        data: What `request` wrote.

    Raises:
        InvalidResultError: The reranker returned something else.
    """
    question, texts = cast("tuple[str, list[str]]", json.loads(data))
    try:
        found = result_of(cast("Reranker", extension).rerank(question, texts))
    except _TEMPORARY as error:
        return json.dumps(([], described(error))).encode()
    return json.dumps((_scores(found, len(texts)), "")).encode()


def read_answer(data: bytes, count: int) -> tuple[list[float], str]:
    """The scores of so many texts, or a temporary failure.

    Raises:
        ValueError, TypeError: The bytes were not made by `answer`.
    """
    scores, problem = cast("list[Any]", json.loads(data))
    try:
        return ([] if problem else _scores(scores, count)), str(problem)
    except InvalidResultError as error:
        raise ValueError(str(error)) from error


def _scores(found: object, count: int) -> list[float]:
    try:
        values = list(cast("Iterable[Any]", found))
        scores = [float(value) for value in values if not isinstance(value, str)]
    except (TypeError, ValueError):
        raise InvalidResultError(f"returned scores that are a {type(found).__name__}, not a list of numbers") from None
    if len(values) != count or len(scores) != count:
        raise InvalidResultError(f"returned {len(scores)} scores for {count} texts")
    if not all(map(math.isfinite, scores)):
        raise InvalidResultError("returned a score that is not finite")
    return scores
