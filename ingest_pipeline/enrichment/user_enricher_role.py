"""Calls an enricher of the user in the child process, and reads its answer in the parent process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, cast

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
    usage = (enrichment.usage.tokens, enrichment.usage.requests)
    return json.dumps((columns_to_json(enrichment.columns), usage), allow_nan=False).encode()


def read_answer(data: bytes) -> Enrichment:
    """The enrichment.

    Raises:
        ValueError, TypeError: The bytes were not made by `answer`.
    """
    columns, (tokens, requests) = cast("list[Any]", json.loads(data))
    usage = Usage(tokens=tokens, requests=requests)
    try:
        check_usage(usage)
    except InvalidResultError as error:
        raise ValueError(str(error)) from error
    return Enrichment(columns_from_json(columns), usage)
