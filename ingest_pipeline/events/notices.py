"""Reads messages of S3, and finds the documents that they are about.

S3 writes messages itself, or through a topic of SNS or a rule of EventBridge. A message has a kind of event, a time and
a `sequencer` too, which are not read: the planner looks at the object itself to see what happened to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast
from urllib.parse import unquote_plus

from ingest_pipeline.columns.sources import SIDECAR_SUFFIX
from ingest_pipeline.sources.source_url import bucket_of

_MAX_WRAPPINGS = 3


@dataclass(frozen=True, slots=True)
class ObjectNotice:
    """An object that may have changed."""

    bucket: str
    key: str
    """The key in the bucket, decoded."""


def read_notices(body: str) -> list[ObjectNotice]:
    """The objects that a message names. The test event that S3 sends when a queue is connected names none.

    Args:
        body: The message: of S3, of S3 in an envelope of SNS, or of EventBridge.

    Raises:
        ValueError: The message is none of these.
    """
    event = _parsed(body)
    for _ in range(_MAX_WRAPPINGS):
        if event.get("Type") != "Notification":
            break
        event = _parsed(event.get("Message"))
    if event.get("Event") == "s3:TestEvent":
        return []
    if event.get("source") == "aws.s3":
        # The one form in which the key is not encoded.
        return [_notice(event.get("detail"))]
    records = event.get("Records")
    found = [_notice(record.get("s3") if isinstance(record, Mapping) else None) for record in _list(records)]
    return [ObjectNotice(notice.bucket, unquote_plus(notice.key, errors="strict")) for notice in found]


def keys_in(source: str, notices: list[ObjectNotice], *, with_sidecars: bool) -> list[str]:
    """The keys of the documents of a source that notices name, each once.

    Args:
        source: Url of the source.
        notices: The notices. Those about other buckets and prefixes are ignored.
        with_sidecars: Whether objects with the suffix of a sidecar belong to the document beside them.
    """
    _, bucket, prefix = bucket_of(source)
    below = f"{prefix}/" if prefix else ""
    keys = [
        notice.key.removeprefix(below)
        for notice in notices
        if notice.bucket == bucket and notice.key.startswith(below) and notice.key != below
    ]
    if with_sidecars:
        keys = [key.removesuffix(SIDECAR_SUFFIX) for key in keys]
    return list(dict.fromkeys(keys))


def _parsed(text: object) -> Mapping[str, object]:
    try:
        value = json.loads(text) if isinstance(text, str) else None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        message = "it is not a JSON object"
        raise ValueError(message)  # noqa: TRY004  the message is malformed, whatever the types
    return cast("Mapping[str, object]", value)


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        message = "it has no records of S3"
        raise ValueError(message)  # noqa: TRY004  likewise
    return cast("list[object]", value)


def _notice(value: object) -> ObjectNotice:
    bucket, key = _text(value, "bucket", "name"), _text(value, "object", "key")
    if not bucket or not key:
        message = "it names no object"
        raise ValueError(message)
    return ObjectNotice(bucket, key)


def _text(value: object, *names: str) -> str:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value if isinstance(value, str) else ""
