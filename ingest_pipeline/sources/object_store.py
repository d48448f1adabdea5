"""Documents of a source: listing them, and reading the bytes of one object exactly as it was listed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ingest_pipeline.errors import InaccessibleDocumentError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.sources.local import LocalFolder, ignore_excluded, include_all
from ingest_pipeline.sources.local_listing import ExclusionReasonOf, FollowLinks, OnExcluded
from ingest_pipeline.sources.object_cache import KeptObjects
from ingest_pipeline.sources.source_url import UNADDRESSABLE, canonical_url, is_bucket, local_path
from ingest_pipeline.types import SourceObject

if TYPE_CHECKING:
    from ingest_pipeline.sources.bucket import Bucket


class ObjectSource:
    """A folder of this machine or a prefix in an object store.

    Object stores take credentials, endpoint and region from the environment, as ``AWS_*``, ``GOOGLE_*`` and
    ``AZURE_*``; an ``http://`` endpoint of S3 needs no further permission, others need ``GOOGLE_ALLOW_HTTP=true`` or
    ``AZURE_ALLOW_HTTP=true``.

    Args:
        url: A path, ``file://...``, ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``. The
            prefix is not percent-encoded. It is a folder: ``docs`` does not cover ``docs2/x``.
        links: Which links of a local folder are followed.

    Raises:
        ConfigurationError: The URL has another form, or the folder does not exist.
    """

    def __init__(self, url: str, links: FollowLinks = "inside") -> None:
        self.url = canonical_url(url)
        self._kept = KeptObjects()
        self._store: LocalFolder | Bucket
        if is_bucket(url):
            from ingest_pipeline.sources.bucket import Bucket  # noqa: PLC0415  a local source needs no object store

            self._store = Bucket(url)
        else:
            self._store = LocalFolder(local_path(url), links)

    def list(
        self,
        after: str = "",
        folder: str = "",
        exclusion_reason_of: ExclusionReasonOf = include_all,
        on_excluded: OnExcluded = ignore_excluded,
    ) -> Iterator[SourceObject]:
        """Every document of the source, in order of the keys' UTF-8 bytes, each once.

        Azure storage and S3 directory buckets list in another order; their listing is sorted in memory.

        A document whose name cannot be addressed is listed with an empty ETag, and `read` raises an error.
        Folder markers (empty objects whose key ends in a slash) and what `LocalFolder` excludes are not listed.

        Args:
            after: Only keys after this one. It must be addressable, as `can_follow` says.
            folder: Only documents below this folder.
            exclusion_reason_of: Why a name is excluded; None if it is included. An excluded local folder, whose name
                ends in a slash, is not listed.
            on_excluded: Called with name and reason of each entry of a local folder that is not listed.

        Raises:
            SourceUnavailableError: The source does not answer, refuses, or does not exist; perhaps after some
                documents.
        """
        if isinstance(self._store, LocalFolder):
            return self._store.list(after, folder.strip("/"), exclusion_reason_of, on_excluded)
        return self._store.list(after, folder.strip("/"))

    @staticmethod
    def can_follow(key: str) -> bool:
        """Whether a listing can continue after this key."""
        return not UNADDRESSABLE.search(key)

    def stat_all(self, keys: Sequence[str]) -> Sequence[SourceObject]:
        """The documents among these that exist, by key; one request for each, several at the same time.

        Raises:
            SourceUnavailableError: The source does not answer or refuses.
        """
        found = self._store.stat_all(keys)
        return sorted(found, key=lambda obj: obj.key)

    def stat(self, key: str) -> SourceObject | None:
        """The document as it is now; None if it does not exist.

        Raises:
            SourceUnavailableError: The source does not answer or refuses.
        """
        return self._store.stat(key)

    def read(self, obj: SourceObject) -> Iterator[bytes]:
        """The bytes of the object pinned to its ETag, in blocks of at most 1 MB.

        Raises:
            DocumentChangedError: The object was replaced or removed since; perhaps after some blocks.
            InaccessibleDocumentError: The object's name cannot be addressed, or reading it is not permitted.
            SourceUnavailableError: The source does not answer, after retries.
        """
        if not obj.etag:
            raise InaccessibleDocumentError(obj.key, "has a name that cannot be addressed", "Rename the object.")
        kept = self._kept.take(obj)
        return self._store.read(obj) if kept is None else iter(kept)

    def content_hash(self, obj: SourceObject) -> str:
        """SHA-256 of the object's bytes, hexadecimal. If they fit, the bytes stay in memory for the next `read`.

        Raises:
            DocumentChangedError, DocumentError, SourceUnavailableError: See `read`.
        """
        digest = hashlib.sha256()
        with boundary(Boundary.SOURCE_READ):
            for block in self._kept.keep(obj, self.read(obj)):
                digest.update(block)
        return digest.hexdigest()

    def discard(self, obj: SourceObject) -> None:
        """Free the memory that `content_hash` took, because the object will not be read."""
        self._kept.take(obj)

    @property
    def has_metadata(self) -> bool:
        """Whether objects can have metadata beside their bytes."""
        return not isinstance(self._store, LocalFolder)

    def metadata(self, obj: SourceObject) -> dict[str, str]:
        """The user's metadata of an object, by name; one request. A local file has none.

        Raises:
            DocumentChangedError, DocumentError, SourceUnavailableError: See `read`.
        """
        return {} if isinstance(self._store, LocalFolder) else self._store.metadata(obj)

    def tags(self, obj: SourceObject) -> dict[str, str]:
        """The tags of an object in S3, by name; one request. Other objects have none.

        The tags are those of now. `metadata`, read afterwards, finds out whether the object was replaced meanwhile.

        Raises:
            DocumentChangedError, SourceUnavailableError: See `read`. The store may also refuse to show tags.
        """
        return {} if isinstance(self._store, LocalFolder) else self._store.tags(obj)

    def read_range(self, obj: SourceObject, start: int, end: int) -> bytes:
        """Some bytes of the object pinned to its ETag.

        Args:
            obj: The object as it was listed.
            start: Offset of the first byte.
            end: Offset after the last byte, not beyond the object's size.

        Raises:
            DocumentChangedError, DocumentError, SourceUnavailableError: See `read`.
        """
        if not obj.etag:
            raise InaccessibleDocumentError(obj.key, "has a name that cannot be addressed", "Rename the object.")
        return self._store.read_range(obj, start, end)
