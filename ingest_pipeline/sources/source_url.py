"""The URL of a source: a folder of this machine, or a bucket and a prefix."""

import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ingest_pipeline.errors import ConfigurationError

UNADDRESSABLE = re.compile(r"[\x00-\x1f\x7f]|^/|//|/$|(^|/)\.\.?(/|$)")
"""Keys that the library refuses or changes: with empty, ``.`` or ``..`` segments or control characters."""


def is_bucket(url: str) -> bool:
    """Whether the URL is of an object store, not of a local folder."""
    return "://" in url and not url.startswith("file:")


def canonical_url(url: str) -> str:
    """The one form of all URLs of the same source: without a slash at the end and without ``file://``.

    Raises:
        ConfigurationError: The url names no source.
    """
    if is_bucket(url):
        scheme, bucket, prefix = bucket_of(url)
        return f"{scheme}://{bucket}/{prefix}" if prefix else f"{scheme}://{bucket}"
    return str(local_path(url))


def bucket_of(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and prefix of the URL of an object store.

    Raises:
        ConfigurationError: The URL has another form.
    """
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if scheme not in {"s3", "gs", "az"} or not re.fullmatch(r"[A-Za-z0-9._-]+", bucket) or UNADDRESSABLE.search(prefix):
        shown = f"{scheme}://{bucket.rpartition('@')[2]}/{prefix.partition('?')[0]}"
        message = f"The source {shown!r} is neither a path nor s3://, gs:// or az:// with a bucket and a prefix"
        raise ConfigurationError(message, "Correct INGEST_SOURCE.")
    return scheme, bucket, prefix


def local_path(url: str) -> Path:
    """The absolute path of a local folder.

    Raises:
        ConfigurationError: A `file://` URL names another machine or no absolute path.
    """
    if not url.startswith("file:"):
        return Path(url).expanduser().absolute()
    parts = urlsplit(url)
    if parts.netloc not in {"", "localhost"} or not parts.path.startswith("/"):
        raise ConfigurationError(f"The source {url!r} names no folder of this machine", "Write file:///path/to/folder.")
    return Path(unquote(parts.path))
