"""The objects of a bucket whose names the object store library refuses to list."""

import os
from collections.abc import Sequence
from datetime import UTC

from ingest_pipeline.types import SourceObject


def s3_endpoint() -> str:
    """The URL of an S3-compatible server if the environment names one, otherwise an empty string."""
    return _setting("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")


def list_s3_files(bucket: str, prefix: str) -> Sequence[SourceObject]:
    """Every object under the prefix, sorted by key, without ETags and without folder markers.

    Raises:
        OSError: S3 does not answer or refuses.
    """
    from pyarrow.fs import FileSelector, FileType, S3FileSystem  # noqa: PLC0415  # starts threads and is rarely needed

    files = S3FileSystem(
        endpoint_override=s3_endpoint() or None,
        region=_setting("AWS_REGION", "AWS_DEFAULT_REGION") or "us-east-1",
        connect_timeout=5,
        request_timeout=60,
    )
    root = f"{bucket}/{prefix}".rstrip("/")
    found = files.get_file_info(FileSelector(root, recursive=True))
    objects = [
        SourceObject(info.path[len(root) + 1 :], "", info.size, info.mtime.astimezone(UTC))
        for info in found
        if info.type == FileType.File
    ]
    return sorted(objects, key=lambda obj: obj.key)


def _setting(*names: str) -> str:
    return next((os.environ[name] for name in names if os.environ.get(name)), "")
