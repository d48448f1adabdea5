"""Calls an enricher of the user in the child process, and reads its answer in the parent process."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, cast

from ingest_pipeline.enrichment.base import (
    ChunkEnricher,
    ChunkEnrichment,
    EnrichableChunk,
    EnrichableDocument,
    Enricher,
    Enrichment,
)
from ingest_pipeline.extensions.coroutines import result_of
from ingest_pipeline.extensions.protocol import (
    InvalidResultError,
    check_usage,
    columns_from_json,
    columns_to_json,
    pack,
    unpack,
)
from ingest_pipeline.types import Usage

_GREATEST_COST: Final = 1_000_000
_CURRENCY: Final = re.compile(r"[A-Z]{3}")


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
    if head.get("chunks"):
        return _answer_of_chunks(cast("ChunkEnricher", extension), data)
    text, (columns,) = unpack(data)
    found = result_of(cast("Enricher", extension).enrich(EnrichableDocument(str(head["key"]), text, columns)))
    enrichment = found if isinstance(found, Enrichment) else Enrichment(cast("Mapping[str, object]", found))
    return json.dumps((columns_to_json(enrichment.columns), *_billed(enrichment)), allow_nan=False).encode()


def read_answer(data: bytes) -> Enrichment:
    """The enrichment.

    Raises:
        ValueError, TypeError: The bytes were not made by `answer`.
    """
    columns, usage, paid = cast("list[Any]", json.loads(data))
    return Enrichment(columns_from_json(columns), *_read_billed(usage, paid))


def request_of_chunks(chunks: Sequence[EnrichableChunk]) -> bytes:
    """The request to the child process: the text and the heading of each chunk."""
    return pack("", [(chunk.text, chunk.heading) for chunk in chunks])


def read_answer_of_chunks(data: bytes, count: int) -> ChunkEnrichment:
    """The enrichment of so many chunks.

    Raises:
        ValueError, TypeError: The bytes were not made by `answer` from so many chunks.
    """
    columns, usage, paid = cast("list[Any]", json.loads(data))
    if not isinstance(columns, list) or len(cast("list[object]", columns)) != count:
        raise ValueError(count)
    found = [columns_from_json(one) for one in cast("list[object]", columns)]
    return ChunkEnrichment(found, *_read_billed(usage, paid))


def _answer_of_chunks(extension: ChunkEnricher, data: bytes) -> bytes:
    _, (parts,) = unpack(data)
    chunks = [EnrichableChunk(text, heading) for text, heading in parts]
    found = result_of(extension.enrich_chunks(chunks))
    enrichment = (
        found if isinstance(found, ChunkEnrichment) else ChunkEnrichment(cast("Sequence[Mapping[str, object]]", found))
    )
    columns: object = enrichment.columns
    if not isinstance(columns, list | tuple):
        raise InvalidResultError(f"returned columns of chunks that are a {type(columns).__name__}, not a list")
    listed = cast("Sequence[object]", columns)
    if len(listed) != len(chunks):
        raise InvalidResultError(f"returned the columns of {len(listed)} chunks, and it was given {len(chunks)}")
    return json.dumps(([columns_to_json(one) for one in listed], *_billed(enrichment)), allow_nan=False).encode()


def _billed(enrichment: Enrichment | ChunkEnrichment) -> tuple[object, object]:
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
