"""Calls an enricher of the user, in its child process, and reads the answer, in the parent."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Mapping
from typing import Any, Final, cast

from ingest_pipeline.enrichment.base import EnrichableDocument, Enricher, Enrichment
from ingest_pipeline.extensions.protocol import (
    InvalidResultError,
    columns_from_json,
    columns_to_json,
    pack,
    unpack,
)
from ingest_pipeline.types import Usage

_GREATEST_COUNT: Final = 1 << 40
_GREATEST_REQUESTS: Final = 1 << 20


def request(text: str, columns: Mapping[str, object]) -> bytes:
    """What the child gets: the text and the columns so far."""
    return pack(text, columns)


def answer(extension: object, head: dict[str, object], data: bytes) -> bytes:
    """The columns and the usage of an enrichment.

    Args:
        extension: The enricher.
        head: The document's `key`.
        data: What `request` wrote.

    Raises:
        InvalidResultError: The enricher returned something else.
    """
    text, (columns,) = unpack(data)
    found = cast("object", cast("Enricher", extension).enrich(EnrichableDocument(str(head["key"]), text, columns)))
    if inspect.isawaitable(found):
        found = asyncio.run(_awaited(cast("Awaitable[object]", found)))
    enrichment = found if isinstance(found, Enrichment) else Enrichment(cast("Mapping[str, object]", found))
    _check(enrichment.usage)
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
        _check(usage)
    except InvalidResultError as error:
        raise ValueError(str(error)) from error
    return Enrichment(columns_from_json(columns), usage)


async def _awaited(found: Awaitable[object]) -> object:
    return await found


def _check(usage: object) -> None:
    if not isinstance(usage, Usage):
        raise InvalidResultError(f"returned usage that is a {type(usage).__name__}, not a Usage")
    for name, value, most in (
        ("tokens", usage.tokens, _GREATEST_COUNT),
        ("requests", usage.requests, _GREATEST_REQUESTS),
    ):
        if type(value) is not int or not 0 <= value <= most:
            raise InvalidResultError(f"returned usage with {value!r:.30} {name}")
