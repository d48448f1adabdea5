"""Calls an embedder of the user, in its child process, and reads the answer, in the parent."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np

from ingest_pipeline.embedding.base import Embedder, Embeddings, Purpose, Rows
from ingest_pipeline.errors import UnavailableError
from ingest_pipeline.extensions.coroutines import result_of
from ingest_pipeline.extensions.loader import described
from ingest_pipeline.extensions.protocol import InvalidResultError, check_usage
from ingest_pipeline.types import Usage, Vectors, counted

TEMPORARY: Final = (ConnectionError, TimeoutError, UnavailableError)
_GREATEST_REASON: Final = 300
"""Characters."""


@dataclass(frozen=True, slots=True)
class EmbedderAnswer:
    """What a call of an embedder gave: vectors, or one problem."""

    vectors: Vectors
    """A row for each text. The row of a refused text is NaN."""
    refused: Mapping[int, str]
    """Why a text has no vector, by its index, as the embedder says."""
    unusable: Mapping[int, str]
    """Why the vector of a text cannot be used, by its index."""
    usage: Usage
    temporary: str = ""
    """A temporary failure."""
    invalid: str = ""
    """What is wrong with the whole result, which was billed nevertheless."""


def request(texts: Sequence[str]) -> bytes:
    """What the child gets."""
    return json.dumps(list(texts)).encode()


def answer_bytes(texts: int, dimensions: int) -> int:
    """How long an answer can be."""
    return texts * (4 * dimensions + 8 * _GREATEST_REASON) + (64 << 10)


def answer(extension: object, head: dict[str, object], data: bytes) -> bytes:
    """The vectors of texts, as a line of JSON and numbers.

    Args:
        extension: The embedder.
        head: The `purpose` of the texts and the `dimensions` of the vectors.
        data: What `request` wrote.

    Raises:
        Exception: Whatever the embedder raises.
    """
    texts: list[str] = json.loads(data)
    dimensions, embedder = int(str(head["dimensions"])), cast("Embedder", extension)
    try:
        found = _call(embedder, texts, cast("Purpose", head["purpose"]))
    except TEMPORARY as error:
        return _line(temporary=described(error))
    try:
        check_usage(found.usage)
    except InvalidResultError as error:
        return _line(invalid=str(error))
    usage = (found.usage.tokens, found.usage.requests)
    try:
        refused = _reasons(found.refused, len(texts))
        vectors = _rows(found.vectors, len(texts), refused, dimensions)
    except InvalidResultError as error:
        return _line(usage, invalid=str(error))
    return _line(usage, refused=sorted(refused.items())) + vectors.tobytes()


def read_answer(data: bytes, count: int, dimensions: int) -> EmbedderAnswer:
    """The answer to a request with so many texts.

    Raises:
        ValueError, TypeError: The bytes were not made by `answer`.
    """
    line, _, numbers = data.partition(b"\n")
    (tokens, requests), pairs, temporary, invalid = cast("list[Any]", json.loads(line))
    usage, refused = Usage(tokens=tokens, requests=requests), dict(cast("list[tuple[int, str]]", pairs))
    try:
        check_usage(usage)
        _reasons(refused, count)
    except InvalidResultError as error:
        raise ValueError(str(error)) from error
    vectors = np.full((count, dimensions), np.nan, dtype=np.float32)
    unusable: dict[int, str] = {}
    if not (temporary or invalid):
        embedded = [index for index in range(count) if index not in refused]
        vectors[embedded] = np.frombuffer(numbers, dtype="<f4").reshape(len(embedded), dimensions)
        unusable = _unusable(vectors, embedded)
    return EmbedderAnswer(vectors, refused, unusable, usage, str(temporary), str(invalid))


def _call(embedder: Embedder, texts: Sequence[str], purpose: Purpose) -> Embeddings:
    if purpose == "query":
        (question,) = texts
        return Embeddings([cast("Sequence[float]", result_of(embedder.embed_query(question)))])
    found = result_of(embedder.embed_documents(texts))
    return found if isinstance(found, Embeddings) else Embeddings(cast("Rows", found))


def _line(
    usage: tuple[int, int] = (0, 0),
    *,
    refused: Sequence[tuple[int, str]] = (),
    temporary: str = "",
    invalid: str = "",
) -> bytes:
    return json.dumps([usage, refused, temporary, invalid]).encode() + b"\n"


def _reasons(refused: object, count: int) -> dict[int, str]:
    if not isinstance(refused, Mapping):
        raise InvalidResultError(f"returned refused texts that are a {type(refused).__name__}, not a mapping")
    reasons: dict[int, str] = {}
    for index, reason in cast("Mapping[object, object]", refused).items():
        if type(index) is not int or not 0 <= index < count or not isinstance(reason, str):
            raise InvalidResultError(f"refused the text {index!r:.30} of {count} because of {reason!r:.60}")
        reasons[index] = reason[:_GREATEST_REASON]
    return reasons


def _rows(vectors: object, count: int, refused: Mapping[int, str], dimensions: int) -> Vectors:
    """The vectors of the texts that are not refused, as numbers of 32 bits."""
    try:
        rows = list(cast("Iterable[object]", vectors))
    except TypeError:
        raise InvalidResultError(f"returned vectors that are a {type(vectors).__name__}, not a list") from None
    if len(rows) != count:
        raise InvalidResultError(f"returned {counted(len(rows), 'vector')} for {counted(count, 'text')}")
    wanted = [row for index, row in enumerate(rows) if index not in refused]
    if not wanted:
        return np.empty((0, dimensions), dtype=np.float32)
    try:
        found = np.array([np.asarray(row) for row in wanted])
    except (ValueError, TypeError):
        raise InvalidResultError("returned vectors of different widths") from None
    if found.dtype.kind not in "fiu":
        raise InvalidResultError(f"returned vectors of the type {found.dtype}, not of numbers")
    if found.shape != (len(wanted), dimensions):
        raise InvalidResultError(f"returned vectors of the shape {found.shape[1:]}, not of {dimensions} numbers")
    with np.errstate(over="ignore"):  # too large a number becomes infinite, which is refused
        numbers: Vectors = found.astype("<f4")
    return numbers


def _unusable(vectors: Vectors, embedded: Sequence[int]) -> dict[int, str]:
    problems: dict[int, str] = {}
    for index in embedded:
        if not np.isfinite(vectors[index]).all():
            problems[index] = "a vector that is not finite"
        elif not vectors[index].any():
            problems[index] = "a vector of length zero"
    return problems
