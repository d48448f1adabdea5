"""Which partition a document belongs to, under a key that Dagster can bear.

Dagster accepts any string as a dynamic partition key, and breaks on some of them later: ``...`` and commas separate
keys in ranges and lists, brackets and stars are patterns, long keys do not fit an index of Postgres. Such characters
are percent-encoded here, and a long key is cut and told apart by a hash.
"""

from __future__ import annotations

import hashlib
import re
from urllib.parse import quote, unquote_to_bytes

_LONGEST = 512
_KEPT = 400
_SPECIAL = re.compile(r"""[%,"'*\[\]|\\]|\.{3,}|^\s+|\s+$|^\.{1,2}(?=/|$)""")
_CUT = re.compile(r"~[0-9a-f]{16}$")


def partition_of(key: str) -> str:
    """The partition of a document, one each."""
    partition = "".join(part if part.isprintable() else _encoded(part) for part in _SPECIAL.sub(_encoded_match, key))
    raw = partition.encode()
    if len(raw) <= _LONGEST and not _CUT.search(partition):
        return partition
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return f"{raw[:_KEPT].decode(errors='ignore')}~{digest}"


def key_of(partition: str) -> str | None:
    """The key of the document, None if the partition's name was cut and only a listing can tell.

    Args:
        partition: As `partition_of` gave it, or as a person typed it.
    """
    if _CUT.search(partition):
        return None
    return unquote_to_bytes(partition).decode(errors="replace")


def _encoded_match(match: re.Match[str]) -> str:
    return _encoded(match[0])


def _encoded(text: str) -> str:
    return "".join("%2E" if character == "." else quote(character, safe="") for character in text)
