"""Calls an enricher of the user in the child process, and reads its answer in the parent process."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, cast

from ingest_pipeline.enrichment.base import EnrichableDocument, Enricher, Enrichment
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
        head: The document's `key`.
        data: The request, as `request` wrote it.

    Raises:
        InvalidResultError: The enricher returned something that its protocol does not allow.
    """
    text, (columns,) = unpack(data)
    found = result_of(cast("Enricher", extension).enrich(EnrichableDocument(str(head["key"]), text, columns)))
    enrichment = found if isinstance(found, Enrichment) else Enrichment(cast("Mapping[str, object]", found))
    check_usage(enrichment.usage)
    _check_cost(enrichment.cost, enrichment.currency)
    usage = (enrichment.usage.tokens, enrichment.usage.requests)
    cost = None if enrichment.cost is None else (str(enrichment.cost), enrichment.currency)
    return json.dumps((columns_to_json(enrichment.columns), usage, cost), allow_nan=False).encode()


def read_answer(data: bytes) -> Enrichment:
    """The enrichment.

    Raises:
        ValueError, TypeError: The bytes were not made by `answer`.
    """
    columns, (tokens, requests), paid = cast("list[Any]", json.loads(data))
    usage = Usage(tokens=tokens, requests=requests)
    try:
        amount, currency = (None, None) if paid is None else (Decimal(paid[0]), paid[1])
        _check_cost(amount, currency)
        check_usage(usage)
    except (InvalidResultError, ArithmeticError) as error:
        raise ValueError(str(error)) from error
    return Enrichment(columns_from_json(columns), usage, amount, currency)


def _check_cost(cost: object, currency: object) -> None:
    if cost is None and currency is None:
        return
    if not isinstance(cost, Decimal) or not cost.is_finite() or not 0 <= cost <= _GREATEST_COST:
        raise InvalidResultError(f"returned the cost {cost!r:.60}, which is not a Decimal from 0 to {_GREATEST_COST}")
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        raise InvalidResultError(
            f"returned a cost in the currency {currency!r:.30}, which is not three capital letters"
        )
