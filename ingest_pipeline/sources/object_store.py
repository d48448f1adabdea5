"""Documents of a source: listing them, and reading the bytes of one object exactly as it was listed."""

import hashlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from obstore import exceptions
from obstore.store import AzureStore, GCSStore, S3Store

from ingest_pipeline.errors import (
    ConfigurationError,
    DocumentChangedError,
    InaccessibleDocumentError,
    SourceUnavailableError,
)
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.sources.kept_objects import KeptObjects
from ingest_pipeline.sources.local import (
    ExclusionReasonOf,
    FollowLinks,
    LocalFolder,
    OnExcluded,
    ignore_excluded,
    include_all,
)
from ingest_pipeline.sources.s3_names import list_s3_files, s3_endpoint
from ingest_pipeline.types import SourceObject

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ClientConfig, RetryConfig

_PAGE_OBJECTS = 1000
_BLOCK_BYTES = 1 << 20
_REQUEST_BYTES = 8 << 20
"""Each request reads one range of this size, so that no connection stays open while the reader is busy elsewhere."""
_MAX_ATTEMPTS = 4
"""Attempts at a request whose response breaks off. The library itself repeats requests that fail earlier."""
_LAST_ATTEMPT_SECONDS = 60.0
"""Seconds after the first attempt in which further attempts may begin."""
_RETRY: "RetryConfig" = {
    "max_retries": 4,
    "retry_timeout": timedelta(seconds=30),
    "backoff": {"init_backoff": timedelta(milliseconds=200), "max_backoff": timedelta(seconds=4)},
}
_CLIENT: "ClientConfig" = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=20),
    "timeout": timedelta(seconds=60),
}
_UNADDRESSABLE = re.compile(r"[\x00-\x1f\x7f]|^/|//|/$|(^|/)\.\.?(/|$)")
"""Keys that the library refuses or changes: with empty, ``.`` or ``..`` segments or control characters."""
_STANDARD_ATTRIBUTES = {
    "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Type", "Cache-Control", "Storage-Class",
}  # fmt: skip
"""Attributes of an object that are not the user's metadata."""
_FAILURES = (exceptions.BaseError, OSError, ValueError)
"""Errors that the library raises."""


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
        if "://" in url and not url.startswith("file:"):
            self._store: LocalFolder | _Bucket = _Bucket(url)
        else:
            self._store = LocalFolder(_local_path(url), links)

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
        return not _UNADDRESSABLE.search(key)

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
        return isinstance(self._store, _Bucket)

    def metadata(self, obj: SourceObject) -> dict[str, str]:
        """The user's metadata of an object, by name; one request. A local file has none.

        Raises:
            DocumentChangedError, DocumentError, SourceUnavailableError: See `read`.
        """
        return self._store.metadata(obj) if isinstance(self._store, _Bucket) else {}

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


class _Bucket:
    """A prefix in an object store; see `ObjectSource` for the methods."""

    def __init__(self, url: str) -> None:
        self._kind, self._bucket, self._prefix = _parse(url)
        self._url = f"{self._kind}://{self._bucket}/{self._prefix}"
        make = {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[self._kind]
        client = _CLIENT.copy()
        if _may_speak_http(self._kind):
            client["allow_http"] = True
        try:
            self._store = make(self._bucket, prefix=self._prefix or None, client_options=client, retry_config=_RETRY)
        except _FAILURES as error:
            raise ConfigurationError(f"The source {self._url} cannot be used: {_reason(error)}") from error

    def list(self, after: str, folder: str) -> Iterator[SourceObject]:
        if _UNADDRESSABLE.search(folder):
            folder = ""  # the caller filters by folder
        if self._kind == "az" or self._bucket.endswith("--x-s3"):
            listed = sorted(self._pages("", folder), key=lambda obj: obj.key)
            yield from (obj for obj in listed if obj.key > after)
        else:
            yield from self._in_order(after, folder)

    def _in_order(self, after: str, folder: str) -> Iterator[SourceObject]:
        last = ""
        for obj in self._pages(after, folder):
            if obj.key > last:
                last = obj.key
                if obj.key > after:
                    yield obj
            elif obj.size > 0:  # otherwise the marker of a folder with the same name as an empty document
                raise self._unavailable(ValueError(f"its listing is not in order: {obj.key!r} after {last!r}"))

    def _pages(self, after: str, folder: str) -> Iterator[SourceObject]:
        last = after
        try:
            for page in self._store.list(folder or None, offset=after or None, chunk_size=_PAGE_OBJECTS):
                for obj in self._without_markers(page):
                    yield obj
                    last = obj.key
        except exceptions.InvalidPathError as error:
            # One key that the library refuses fails the whole page.
            below = f"{folder}/" if folder else ""
            yield from (obj for obj in self._list_by_name(last, error) if obj.key.startswith(below))
        except _FAILURES as error:
            raise self._unavailable(error) from error

    def stat(self, key: str) -> SourceObject | None:
        if _UNADDRESSABLE.search(key):
            return None
        try:
            return _source_object(self._store.head(key))
        except FileNotFoundError:
            return None
        except _FAILURES as error:
            raise self._unavailable(error) from error

    def read(self, obj: SourceObject) -> Iterator[bytes]:
        if obj.size == 0 and self.stat(obj.key) != obj:
            raise _changed(obj)
        for start in range(0, obj.size, _REQUEST_BYTES):
            body = self.read_range(obj, start, min(start + _REQUEST_BYTES, obj.size))
            for offset in range(0, len(body), _BLOCK_BYTES):
                yield body[offset : offset + _BLOCK_BYTES]

    def read_range(self, obj: SourceObject, start: int, end: int) -> bytes:
        failure: Exception | None = None
        latest = time.monotonic() + _LAST_ATTEMPT_SECONDS
        for attempt in range(_MAX_ATTEMPTS):
            try:
                answer = self._store.get(obj.key, options=_pinned(obj, start, end))
            except (FileNotFoundError, exceptions.PreconditionError) as error:
                raise _changed(obj) from error
            except _FAILURES as error:
                raise self._unavailable(error) from error
            if not _is_same(_source_object(answer.meta), obj):
                raise _changed(obj)  # the store ignores the condition of the request
            try:
                body: bytes = answer.bytes().to_bytes()
            except _FAILURES as error:
                failure = error
                if time.monotonic() > latest:
                    break
                time.sleep(0.2 * 2**attempt)
            else:
                return body
        raise self._unavailable(failure) from failure

    def metadata(self, obj: SourceObject) -> dict[str, str]:
        try:
            answer = self._store.get(obj.key, options={"head": True})
        except FileNotFoundError as error:
            raise _changed(obj) from error
        except _FAILURES as error:
            raise self._unavailable(error) from error
        if not _is_same(_source_object(answer.meta), obj):
            raise _changed(obj)
        return {name: value for name, value in answer.attributes.items() if name not in _STANDARD_ATTRIBUTES}

    def _without_markers(self, page: "Sequence[ObjectMeta]") -> Iterator[SourceObject]:
        """Drop folder markers. The library strips their slash, so each empty object needs one request to check."""
        found = [_source_object(meta) for meta in page]
        empty = [obj.key for obj in found if obj.size == 0]
        real = {obj.key for obj in self.stat_all(empty) if obj.size == 0}
        yield from (obj for obj in found if obj.size > 0 or obj.key in real)

    def stat_all(self, keys: Sequence[str]) -> Sequence[SourceObject]:
        with ThreadPoolExecutor(16) as pool:
            return [obj for obj in pool.map(self.stat, keys) if obj is not None]

    def _list_by_name(self, last: str, refusal: Exception) -> Iterator[SourceObject]:
        """List keys after ``last`` with another library. It has no ETags, so each object costs a request."""
        if self._kind != "s3":
            raise self._unavailable(refusal) from refusal
        try:
            files = [file for file in list_s3_files(self._bucket, self._prefix) if file.key > last]
        except OSError as error:
            raise self._unavailable(error) from error
        for start in range(0, len(files), _PAGE_OBJECTS):
            page = files[start : start + _PAGE_OBJECTS]
            addressable = [file.key for file in page if not _UNADDRESSABLE.search(file.key)]
            found = [file for file in page if _UNADDRESSABLE.search(file.key)]
            yield from sorted([*found, *self.stat_all(addressable)], key=lambda obj: obj.key)

    def _unavailable(self, error: Exception | None) -> SourceUnavailableError:
        return SourceUnavailableError(f"The source {self._url} cannot be read: {_reason(error)}")


def canonical_url(url: str) -> str:
    """The one form of all URLs of the same source: without a slash at the end and without ``file://``.

    Raises:
        ConfigurationError: The url names no source.
    """
    if "://" in url and not url.startswith("file:"):
        scheme, bucket, prefix = _parse(url)
        return f"{scheme}://{bucket}/{prefix}" if prefix else f"{scheme}://{bucket}"
    return str(_local_path(url))


def _pinned(obj: SourceObject, start: int, end: int) -> "GetOptions":
    """Options of a read of exactly this object. ``If-Match`` never matches a weak ETag, so it is not sent with one."""
    if _is_weak(obj.etag):
        return {"range": (start, end)}
    return {"if_match": obj.etag, "range": (start, end)}


def _is_same(answered: SourceObject, obj: SourceObject) -> bool:
    """Whether a response belongs to the object that was listed. A weak ETag alone does not prove it."""
    if not _is_weak(obj.etag):
        return answered.etag == obj.etag
    # The time in a response has whole seconds only.
    times = {int(one.last_modified.timestamp()) for one in (answered, obj)}
    return (answered.etag, answered.size, len(times)) == (obj.etag, obj.size, 1)


def _is_weak(etag: str) -> bool:
    return etag.startswith("W/")


def _may_speak_http(kind: str) -> bool:
    """Whether plain HTTP is allowed. For S3 the endpoint's scheme decides; the library reads the other settings."""
    if kind == "s3":
        return s3_endpoint().startswith("http://")
    return os.environ.get("GOOGLE_ALLOW_HTTP" if kind == "gs" else "AZURE_ALLOW_HTTP") == "true"


def _parse(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and prefix."""
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if (
        scheme not in {"s3", "gs", "az"}
        or not re.fullmatch(r"[A-Za-z0-9._-]+", bucket)
        or _UNADDRESSABLE.search(prefix)
    ):
        shown = f"{scheme}://{bucket.rpartition('@')[2]}/{prefix.partition('?')[0]}"
        message = f"The source {shown!r} is neither a path nor s3://, gs:// or az:// with a bucket and a prefix"
        raise ConfigurationError(message, "Correct INGEST_SOURCE.")
    return scheme, bucket, prefix


def _local_path(url: str) -> Path:
    if not url.startswith("file:"):
        return Path(url).expanduser().absolute()
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise ConfigurationError(f"The source {url!r} names no folder of this machine", "Write file:///path/to/folder.")
    return Path(unquote(parts.path))


def _source_object(meta: "ObjectMeta") -> SourceObject:
    etag = meta["e_tag"] or ""
    if etag and not etag.startswith(('"', "W/")):
        etag = f'"{etag}"'  # listings of Azure and others have no quotes, and the object would seem changed
    return SourceObject(meta["path"], etag, meta["size"], meta["last_modified"])


def _changed(obj: SourceObject) -> DocumentChangedError:
    return DocumentChangedError(f"Document {obj.key!r} was replaced or removed after it was listed")


def _reason(error: Exception | None) -> str:
    """The library's message, without its internals and without possible secrets in a URL."""
    message = str(error).partition("\n\nDebug source")[0]
    if code := re.search(r"<Code>(\w+)</Code>", message):
        message = f"{message.partition('<')[0]} {code[1]}"
    message = re.sub(r"//[^/@\s]*@", "//", message)
    return re.sub(r"\?\S+", "", message)[:400]
