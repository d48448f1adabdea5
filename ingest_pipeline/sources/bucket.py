"""A prefix in an object store: S3, Google Cloud Storage or Azure. Only a source with such a URL imports this module."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore import exceptions
from obstore.store import AzureStore, GCSStore, S3Store

from ingest_pipeline.errors import ConfigurationError, DocumentChangedError, SourceUnavailableError
from ingest_pipeline.sources.s3_names import list_s3_files, s3_endpoint
from ingest_pipeline.sources.source_url import UNADDRESSABLE, bucket_of
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
_FIRST_PAUSE_SECONDS = 0.2
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
_STANDARD_ATTRIBUTES = {
    "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Type", "Cache-Control", "Storage-Class",
}  # fmt: skip
"""Attributes of an object that are not the user's metadata."""
_FAILURES = (exceptions.BaseError, OSError, ValueError)
"""Errors that the library raises."""


class Bucket:
    """A prefix in an object store; see `ObjectSource` for the methods."""

    def __init__(self, url: str) -> None:
        self._kind, self._bucket, self._prefix = bucket_of(url)
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
        if UNADDRESSABLE.search(folder):
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
        if UNADDRESSABLE.search(key):
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
            _pause_before(attempt)
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

    def tags(self, obj: SourceObject) -> dict[str, str]:
        if not isinstance(self._store, S3Store):
            return {}
        from ingest_pipeline.sources.s3_tags import read_tags  # noqa: PLC0415  most corpora read no tags

        failure: Exception | None = None
        for attempt in range(_MAX_ATTEMPTS):
            _pause_before(attempt)
            try:
                return read_tags(self._store, obj.key)
            except FileNotFoundError as error:
                raise _changed(obj) from error
            except ConnectionError as error:
                failure = error
            except _FAILURES as error:
                raise self._unavailable(error) from error
        raise self._unavailable(failure) from failure

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
            addressable = [file.key for file in page if not UNADDRESSABLE.search(file.key)]
            found = [file for file in page if UNADDRESSABLE.search(file.key)]
            yield from sorted([*found, *self.stat_all(addressable)], key=lambda obj: obj.key)

    def _unavailable(self, error: Exception | None) -> SourceUnavailableError:
        return SourceUnavailableError(f"The source {self._url} cannot be read: {_reason(error)}")


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


def _source_object(meta: "ObjectMeta") -> SourceObject:
    etag = meta["e_tag"] or ""
    if etag and not etag.startswith(('"', "W/")):
        etag = f'"{etag}"'  # listings of Azure and others have no quotes, and the object would seem changed
    return SourceObject(meta["path"], etag, meta["size"], meta["last_modified"])


def _pause_before(attempt: int) -> None:
    """Wait before a request is repeated, twice as long each time."""
    if attempt:
        time.sleep(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1))


def _changed(obj: SourceObject) -> DocumentChangedError:
    return DocumentChangedError(f"Document {obj.key!r} was replaced or removed after it was listed")


def _reason(error: Exception | None) -> str:
    """The library's message, without its internals and without possible secrets in a URL."""
    message = str(error).partition("\n\nDebug source")[0]
    if code := re.search(r"<Code>(\w+)</Code>", message):
        message = f"{message.partition('<')[0]} {code[1]}"
    message = re.sub(r"//[^/@\s]*@", "//", message)
    return re.sub(r"\?\S+", "", message)[:400]
