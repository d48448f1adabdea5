"""The partition of a document, under a key that Dagster can handle.

Dagster accepts any string as a dynamic partition key, and breaks on some of them later: ``...`` and commas separate
keys in ranges and lists, brackets and stars are patterns, long keys do not fit an index of Postgres. Such characters
are percent-encoded here, and a long key is cut and made unique by a hash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, unquote_to_bytes

from ingest_pipeline.errors import ConfigurationError

_MAX_BYTES = 512
_KEPT_BYTES = 400
_SPECIAL = re.compile(r"""[%,"'*\[\]|\\]|\.{3,}|^\s+|\s+$|^\.{1,2}(?=/|$)""")
_CUT = re.compile(r"~[0-9a-f]{16}/?$")
_SCHEME = re.compile(r"(file)|(folder)(?::(\d{1,2}))?|(bucket):(\d{1,4})")


@dataclass(frozen=True, slots=True)
class PartitionScheme:
    """How documents are distributed over partitions."""

    kind: Literal["file", "folder", "bucket"]
    count: int = 0
    """The number of path levels in a partition's name for a folder scheme, or of buckets for a bucket scheme."""

    @classmethod
    def parse(cls, text: str) -> PartitionScheme:
        """Read ``file``, ``folder``, ``folder:LEVELS`` or ``bucket:BUCKETS``.

        Raises:
            ConfigurationError: The text is none of these.
        """
        found = _SCHEME.fullmatch(text)
        if found and found[1]:
            return cls("file")
        if found and found[2] and int(found[3] or 1) > 0:
            return cls("folder", int(found[3] or 1))
        if found and found[4] and int(found[5]) > 0:
            return cls("bucket", int(found[5]))
        raise ConfigurationError(
            f"The partition scheme {text!r} is none of file, folder, folder:LEVELS and bucket:BUCKETS",
            "Correct INGEST_PARTITION_BY; LEVELS are 1 to 99, BUCKETS 1 to 9999.",
        )

    def __str__(self) -> str:
        return self.kind if self.kind == "file" else f"{self.kind}:{self.count}"

    def partition_of(self, key: str) -> str:
        """The partition of a document."""
        if self.kind == "bucket":
            return self._bucket(int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) % self.count)
        folders = key.split("/")[:-1]
        if self.kind == "file" or not folders:
            return _encoded_key(key)
        # The slash distinguishes a folder from a document of the same name, which object stores allow.
        return _encoded_key("/".join(folders[: self.count])) + "/"

    @property
    def partitions(self) -> Sequence[str] | None:
        """All possible partitions, in Dagster's order; None if they depend on the documents."""
        return [self._bucket(number) for number in range(self.count)] if self.kind == "bucket" else None

    def document_of(self, partition: str) -> str | None:
        """The key of a partition's only document; None if it may have several or its name was cut."""
        if self.kind == "bucket" or (self.kind == "folder" and partition.endswith("/")) or _CUT.search(partition):
            return None
        return key_of(partition)

    def folder_of(self, partition: str) -> str:
        """The folder of all documents of a partition, without a slash at its end; empty for the root."""
        if self.kind != "folder" or not partition.endswith("/") or _CUT.search(partition):
            return ""
        return unquote_to_bytes(partition.removesuffix("/")).decode(errors="replace")

    def _bucket(self, number: int) -> str:
        return f"{number:0{len(str(self.count - 1))}d}"


FILE = PartitionScheme("file")


def key_of(partition: str) -> str | None:
    """The key of the document; None if the partition's name was cut, so that only a listing can find it.

    Args:
        partition: A partition of the scheme ``file``, or a user's input.
    """
    if _CUT.search(partition):
        return None
    return unquote_to_bytes(partition).decode(errors="replace")


def _encoded_key(key: str) -> str:
    partition = _SPECIAL.sub(_encoded_match, key)
    if not partition.isprintable():
        partition = "".join(part if part.isprintable() else _encoded(part) for part in partition)
    raw = partition.encode()
    if len(raw) <= _MAX_BYTES and not _CUT.search(partition):
        return partition
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    return f"{raw[:_KEPT_BYTES].decode(errors='ignore')}~{digest}"


def _encoded_match(match: re.Match[str]) -> str:
    return _encoded(match[0])


def _encoded(text: str) -> str:
    return "".join("%2E" if character == "." else quote(character, safe="") for character in text)
