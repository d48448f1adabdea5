"""Writes a manifest as an object that must not exist yet. Lance itself offers no such write."""

from __future__ import annotations

from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

from lance.file import LanceFileSession
from obstore import exceptions

from ingest_pipeline.lance.versions.object_store import open_folder

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

_TIMEOUTS = ("connect_timeout", "read_timeout", "timeout")
_RETRIES: RetryConfig = {"max_retries": 3, "retry_timeout": timedelta(seconds=10)}


def put_object(uri: str, options: dict[str, str], name: str, content: bytes, *, replace: bool) -> bool:
    """Write an object, unless there is one of that name.

    Args:
        uri: The table.
        options: What Lance needs to reach the store.
        name: Name of the object, relative to the table's folder.
        content: Its content.
        replace: Replace an object that has the name.

    Returns:
        False if there is an object of that name, which was not touched.
    """
    files = LanceFileSession(uri, storage_options=options)
    if not replace:
        try:
            _store(uri, tuple(options.items())).put(name, content, mode="create", use_multipart=False)
        except exceptions.AlreadyExistsError:
            return False
        except (exceptions.BaseError, OSError, ValueError):
            # This library knows fewer stores and credentials than Lance. A write whose answer was lost may be done.
            if files.contains(name):
                return False
        else:
            return True
    with TemporaryDirectory() as local:
        Path(local, "manifest").write_bytes(content)
        files.upload_file(f"{local}/manifest", name)
    return True


@lru_cache(maxsize=8)
def _store(uri: str, options: tuple[tuple[str, str], ...]) -> ObjectStore:
    known = dict(options)
    limits = {name: known[name] for name in _TIMEOUTS if name in known}
    return open_folder(uri, known, cast("ClientConfig", limits), _RETRIES)
