"""Calls an enricher of the user in the child process, and reads its answer in the parent process."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, cast

from ingest_pipeline.enrichment.base import (
    BilledError,
    ChunkEnricher,
    ChunkEnrichment,
    EnrichableChunk,
    EnrichableDocument,
    Enricher,
    Enrichment,
)
from ingest_pipeline.extensions.coroutines import result_of
from ingest_pipeline.extensions.loader import described
from ingest_pipeline.extensions.protocol import (
    MAX_DETAIL_CHARACTERS,
    InvalidResultError,
    check_usage,
    columns_from_json,
    columns_to_json,
    pack,
    unpack,
)
from ingest_pipeline.types import Usage

_GREATEST_COST: Final = 1_000_000
_PARTS_OF_A_FAILURE: Final = 4
_CURRENCY: Final = re.compile(r"[A-Z]{3}")


class BilledFailureError(Exception):
    """An enricher failed after it was billed. The message says what it did, as in "raised ValueError"."""

    def __init__(self, problem: str, billed: Enrichment) -> None:
        super().__init__(problem)
        self.billed = billed


def request(text: str, columns: Mapping[str, object]) -> bytes:
    """The request to the child process: the text, and the columns found so far."""
    return pack(text, columns)


def answer(extension: object, head: dict[str, object], data: bytes) -> bytes:
    """The columns and the usage of an enrichment.

    Args:
        extension: The enricher.
        head: The document's `key`, and whether the request is of `chunks`.
        data: The request, as `request` or `request_of_chunks` wrote it.

    Raises:
        InvalidResultError: The enricher returned something that its protocol does not allow.
    """
    try:
        if head.get("chunks"):
            return _answer_of_chunks(cast("ChunkEnricher", extension), data)
        return _answer_of_document(cast("Enricher", extension), str(head["key"]), data)
    except BilledError as error:
        return _failure(f"raised {described(error)}", _billed(error))


def read_answer(data: bytes) -> Enrichment:
    """The enrichment.

    Raises:
        ValueError, TypeError: The bytes were not made by `answer`.
        BilledFailureError: The enricher failed after it was billed.
    """
    columns, usage, paid = _parts(data)
    return Enrichment(columns_from_json(columns), *_read_billed(usage, paid))


def request_of_chunks(chunks: Sequence[EnrichableChunk]) -> bytes:
    """The request to the child process: the text and the heading of each chunk."""
    return pack("", [(chunk.text, chunk.heading) for chunk in chunks])


def read_answer_of_chunks(data: bytes, count: int) -> ChunkEnrichment:
    """The enrichment of so many chunks.

    Raises:
        ValueError, TypeError: The bytes were not made by `answer` from so many chunks.
        BilledFailureError: The enricher failed after it was billed.
    """
    columns, usage, paid = _parts(data)
    if not isinstance(columns, list) or len(cast("list[object]", columns)) != count:
        raise ValueError(count)
    found = [columns_from_json(one) for one in cast("list[object]", columns)]
    return ChunkEnrichment(found, *_read_billed(usage, paid))


def _answer_of_document(extension: Enricher, key: str, data: bytes) -> bytes:
    text, (columns,) = unpack(data)
    found = result_of(extension.enrich(EnrichableDocument(key, text, columns)))
    enrichment = found if isinstance(found, Enrichment) else Enrichment(cast("Mapping[str, object]", found))
    return _success(enrichment, lambda: columns_to_json(enrichment.columns))


def _answer_of_chunks(extension: ChunkEnricher, data: bytes) -> bytes:
    _, (parts,) = unpack(data)
    chunks = [EnrichableChunk(text, heading) for text, heading in parts]
    found = result_of(extension.enrich_chunks(chunks))
    enrichment = (
        found if isinstance(found, ChunkEnrichment) else ChunkEnrichment(cast("Sequence[Mapping[str, object]]", found))
    )
    return _success(enrichment, lambda: _columns_of_chunks(enrichment.columns, len(chunks)))


def _columns_of_chunks(columns: object, count: int) -> list[dict[str, object]]:
    if not isinstance(columns, list | tuple):
        raise InvalidResultError(f"returned columns of chunks that are a {type(columns).__name__}, not a list")
    listed = cast("Sequence[object]", columns)
    if len(listed) != count:
        raise InvalidResultError(f"returned the columns of {len(listed)} chunks, and it was given {count}")
    return [columns_to_json(one) for one in listed]


def _success(enrichment: Enrichment | ChunkEnrichment, columns: Callable[[], object]) -> bytes:
    """The columns with what was billed, or what was billed alone if the columns are invalid."""
    billed = _billed(enrichment)
    try:
        return json.dumps((columns(), *billed), allow_nan=False).encode()
    except InvalidResultError as error:
        if not (enrichment.usage.tokens or enrichment.usage.requests or enrichment.cost):
            raise
        return _failure(str(error), billed)


def _failure(problem: str, billed: tuple[object, object]) -> bytes:
    return json.dumps((None, *billed, problem[:MAX_DETAIL_CHARACTERS])).encode()


def _parts(data: bytes) -> list[Any]:
    """The columns, the usage and the cost of a success."""
    parts = cast("list[Any]", json.loads(data))
    if len(parts) == _PARTS_OF_A_FAILURE and isinstance(parts[-1], str):
        raise BilledFailureError(parts[-1], Enrichment({}, *_read_billed(*parts[1:3])))
    return parts


def _billed(enrichment: Enrichment | ChunkEnrichment | BilledError) -> tuple[object, object]:
    """The usage and the cost as JSON."""
    check_usage(enrichment.usage)
    _check_cost(enrichment.cost, enrichment.currency)
    cost = None if enrichment.cost is None else (str(enrichment.cost), enrichment.currency)
    return (enrichment.usage.tokens, enrichment.usage.requests), cost


def _read_billed(counts: Sequence[Any], paid: Sequence[Any] | None) -> tuple[Usage, Decimal | None, str | None]:
    """The usage, the cost and its currency, checked again."""
    tokens, requests = counts
    usage = Usage(tokens=tokens, requests=requests)
    try:
        amount, currency = (None, None) if paid is None else (Decimal(paid[0]), paid[1])
        _check_cost(amount, currency)
        check_usage(usage)
    except (InvalidResultError, ArithmeticError) as error:
        raise ValueError(str(error)) from error
    return usage, amount, currency


def _check_cost(cost: object, currency: object) -> None:
    if cost is None and currency is None:
        return
    if not isinstance(cost, Decimal) or not cost.is_finite() or not 0 <= cost <= _GREATEST_COST:
        raise InvalidResultError(f"returned the cost {cost!r:.60}, which is not a Decimal from 0 to {_GREATEST_COST}")
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        raise InvalidResultError(
            f"returned a cost in the currency {currency!r:.30}, which is not three capital letters"
        )
