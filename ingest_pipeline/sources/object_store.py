"""The documents: what a source holds now, and the bytes of one object exactly as it was listed."""

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
    nothing,
)
from ingest_pipeline.sources.s3_names import list_s3_files, s3_endpoint
from ingest_pipeline.types import SourceObject

if TYPE_CHECKING:
    from obstore import GetOptions, ObjectMeta
    from obstore.store import ClientConfig, RetryConfig

_PAGE = 1000
_BLOCK = 1 << 20
_REQUEST = 8 << 20
"""Bytes asked for at once. One range a request, so that no connection stays open while the reader is busy elsewhere."""
_ATTEMPTS = 4
"""How often a request is made whose answer breaks off in mid body; requests that fail earlier the library repeats."""
_LAST_ATTEMPT = 60.0
"""No attempt at such a request begins later than so many seconds after the first."""
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
"""Keys that the library refuses or takes for others: with empty, ``.`` or ``..`` segments or control characters."""
_FAILURES = (exceptions.BaseError, OSError, ValueError)
"""What the library raises."""


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
        ConfigurationError: The url is no such thing, or the folder does not exist.
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
        objection_to: ExclusionReasonOf = nothing,
        on_excluded: OnExcluded = ignore_excluded,
    ) -> Iterator[SourceObject]:
        """Every document of the source, in order of the keys' UTF-8 bytes, each once.

        Azure storage and S3 directory buckets list in another order; their listing is sorted in memory.

        A document whose name cannot be addressed is listed with an empty ETag, and `read` says what to do about it.
        Folder markers (empty objects whose key ends in a slash) are left out, and what `LocalFolder` leaves out.

        Args:
            after: Only keys behind this one. It must be addressable, as `can_follow` says.
            folder: Only what lies below this folder.
            objection_to: Why nobody wants what has a name, None if somebody does. A local folder, whose name ends in a
                slash, is then not looked into.
            on_excluded: Takes note of what a local folder holds and is not listed, by name and reason.

        Raises:
            SourceUnavailableError: The source does not answer, refuses, or is gone; perhaps after some documents.
        """
        if isinstance(self._store, LocalFolder):
            return self._store.list(after, folder.strip("/"), objection_to, on_excluded)
        return self._store.list(after, folder.strip("/"))

    @staticmethod
    def can_follow(key: str) -> bool:
        """Whether a listing can go on behind this key."""
        return not _UNADDRESSABLE.search(key)

    def stat_all(self, keys: Sequence[str]) -> Sequence[SourceObject]:
        """Those of the documents that are there, in the order of their keys; one request each, some at a time.

        Raises:
            SourceUnavailableError: The source does not answer or refuses.
        """
        found = self._store.stat_all(keys)
        return sorted(found, key=lambda obj: obj.key)

    def stat(self, key: str) -> SourceObject | None:
        """The document as it is now, None if there is none.

        Raises:
            SourceUnavailableError: The source does not answer or refuses.
        """
        return self._store.stat(key)

    def read(self, obj: SourceObject) -> Iterator[bytes]:
        """The bytes of the object pinned to its ETag, in blocks of at most 1 MB.

        Raises:
            DocumentChangedError: It was replaced or removed since; perhaps after some blocks.
            InaccessibleDocumentError: Its name cannot be addressed, or it may not be read.
            SourceUnavailableError: The source does not answer, after retries.
        """
        if not obj.etag:
            raise InaccessibleDocumentError(obj.key, "has a name by which it cannot be read", "Rename it.")
        kept = self._kept.take(obj)
        return self._store.read(obj) if kept is None else iter(kept)

    def content_hash(self, obj: SourceObject) -> str:
        """SHA-256 of the object's bytes, hexadecimal. They are kept in memory, if they fit, for the next `read`.

        Raises:
            DocumentChangedError, DocumentError, SourceUnavailableError: As `read`.
        """
        digest = hashlib.sha256()
        with boundary(Boundary.SOURCE_READ):
            for block in self._kept.keep(obj, self.read(obj)):
                digest.update(block)
        return digest.hexdigest()

    def discard(self, obj: SourceObject) -> None:
        """Free the memory that `content_hash` took: the object will not be read."""
        self._kept.take(obj)

    def read_range(self, obj: SourceObject, start: int, end: int) -> bytes:
        """Some bytes of the object pinned to its ETag.

        Args:
            obj: As it was listed.
            start: Offset of the first.
            end: Offset behind the last, not beyond the object's size.

        Raises:
            DocumentChangedError, DocumentError, SourceUnavailableError: As `read`.
        """
        if not obj.etag:
            raise InaccessibleDocumentError(obj.key, "has a name by which it cannot be read", "Rename it.")
        return self._store.read_range(obj, start, end)


class _Bucket:
    """A prefix in an object store; `ObjectSource` says what its methods do."""

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
            folder = ""  # the caller picks what belongs to it
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
            elif obj.size > 0:  # else the marker of a folder that has the name of an empty document
                raise self._unavailable(ValueError(f"it lists {obj.key!r} behind {last!r}"))

    def _pages(self, after: str, folder: str) -> Iterator[SourceObject]:
        last = after
        try:
            for page in self._store.list(folder or None, offset=after or None, chunk_size=_PAGE):
                for obj in self._without_markers(page):
                    yield obj
                    last = obj.key
        except exceptions.InvalidPathError as error:
            # The library gives up a whole page for one key it refuses.
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
        for start in range(0, obj.size, _REQUEST):
            body = self.read_range(obj, start, min(start + _REQUEST, obj.size))
            for offset in range(0, len(body), _BLOCK):
                yield body[offset : offset + _BLOCK]

    def read_range(self, obj: SourceObject, start: int, end: int) -> bytes:
        failure: Exception | None = None
        latest = time.monotonic() + _LAST_ATTEMPT
        for attempt in range(_ATTEMPTS):
            try:
                answer = self._store.get(obj.key, options=_pinned(obj, start, end))
            except (FileNotFoundError, exceptions.PreconditionError) as error:
                raise _changed(obj) from error
            except _FAILURES as error:
                raise self._unavailable(error) from error
            if not _is_same(_source_object(answer.meta), obj):
                raise _changed(obj)  # by a store that does not know conditional reads
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

    def _without_markers(self, page: "Sequence[ObjectMeta]") -> Iterator[SourceObject]:
        """The library drops the slash at a key's end; of an empty object, only asking tells whether it had one."""
        found = [_source_object(meta) for meta in page]
        empty = [obj.key for obj in found if obj.size == 0]
        real = {obj.key for obj in self.stat_all(empty) if obj.size == 0}
        yield from (obj for obj in found if obj.size > 0 or obj.key in real)

    def stat_all(self, keys: Sequence[str]) -> Sequence[SourceObject]:
        with ThreadPoolExecutor(16) as pool:
            return [obj for obj in pool.map(self.stat, keys) if obj is not None]

    def _list_by_name(self, last: str, refusal: Exception) -> Iterator[SourceObject]:
        """The keys after ``last`` from another library, which knows no ETags; so each is asked for. Slow, but whole."""
        if self._kind != "s3":
            raise self._unavailable(refusal) from refusal
        try:
            files = [file for file in list_s3_files(self._bucket, self._prefix) if file.key > last]
        except OSError as error:
            raise self._unavailable(error) from error
        for start in range(0, len(files), _PAGE):
            page = files[start : start + _PAGE]
            addressable = [file.key for file in page if not _UNADDRESSABLE.search(file.key)]
            found = [file for file in page if _UNADDRESSABLE.search(file.key)]
            yield from sorted([*found, *self.stat_all(addressable)], key=lambda obj: obj.key)

    def _unavailable(self, error: Exception | None) -> SourceUnavailableError:
        return SourceUnavailableError(f"The source {self._url} does not answer as it should: {_reason(error)}")


def canonical_url(url: str) -> str:
    """One spelling for all urls that mean the same source: a slash at the end says nothing, nor does ``file://``.

    Raises:
        ConfigurationError: The url names no source.
    """
    if "://" in url and not url.startswith("file:"):
        scheme, bucket, prefix = _parse(url)
        return f"{scheme}://{bucket}/{prefix}" if prefix else f"{scheme}://{bucket}"
    return str(_local_path(url))


def _pinned(obj: SourceObject, start: int, end: int) -> "GetOptions":
    """Options of a read of this very object. ``If-Match`` is true of no weak ETag, so with one it is not sent."""
    if _is_weak(obj.etag):
        return {"range": (start, end)}
    return {"if_match": obj.etag, "range": (start, end)}


def _is_same(answered: SourceObject, obj: SourceObject) -> bool:
    """Whether an answer is of the object that was listed. A weak ETag alone says less than that."""
    if not _is_weak(obj.etag):
        return answered.etag == obj.etag
    # Of the time an answer names whole seconds only.
    times = {int(one.last_modified.timestamp()) for one in (answered, obj)}
    return (answered.etag, answered.size, len(times)) == (obj.etag, obj.size, 1)


def _is_weak(etag: str) -> bool:
    return etag.startswith("W/")


def _may_speak_http(kind: str) -> bool:
    """An S3 endpoint says so itself; those of the others are hidden in what only the library reads."""
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
        etag = f'"{etag}"'  # Azure and others leave the quotes out in listings, and an object would seem changed
    return SourceObject(meta["path"], etag, meta["size"], meta["last_modified"])


def _changed(obj: SourceObject) -> DocumentChangedError:
    return DocumentChangedError(f"Document {obj.key!r} was replaced or removed after it was listed")


def _reason(error: Exception | None) -> str:
    """What the library says, without its internals, and without what may be secret in a url."""
    said = str(error).partition("\n\nDebug source")[0]
    if code := re.search(r"<Code>(\w+)</Code>", said):
        said = f"{said.partition('<')[0]} {code[1]}"
    said = re.sub(r"//[^/@\s]*@", "//", said)
    return re.sub(r"\?\S+", "", said)[:400]
