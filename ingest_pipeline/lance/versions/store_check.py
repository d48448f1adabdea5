"""Tries whether an object store refuses to overwrite an object that a request only wants to create.

Writers of this package agree on the number of a version in Postgres. Another program, such as a script with LanceDB,
knows nothing of that: it writes the manifest of the next number if there is none. On a store that ignores the condition
it would destroy a version that was just published, or have its own destroyed. Such a store is refused when a table is
created in it or moved to it.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

import obstore
from obstore import exceptions

from ingest_pipeline.errors import UnsafeStoreError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.errors import reason_of
from ingest_pipeline.lance.storage import storage_options
from ingest_pipeline.lance.versions.object_store import open_folder
from ingest_pipeline.telemetry.logs import get_logger

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig

log = get_logger(__name__)

_SCHEMES = ("s3://", "gs://", "az://", "abfss://")
_LIMITS: ClientConfig = {"connect_timeout": timedelta(seconds=5), "timeout": timedelta(seconds=10)}
_RETRIES: RetryConfig = {"max_retries": 2, "retry_timeout": timedelta(seconds=15)}
_UNSUPPORTED = ("status code: 501", "501 Not Implemented", "NotImplemented")


def check_store(uri: str) -> None:
    """Create a small object in a table's folder twice, then remove it. The second request must fail.

    Args:
        uri: The table. Nothing is tried if it is on a local file system.

    Raises:
        UnsafeStoreError: The store accepted the second request, or does not know the condition.
    """
    if not uri.startswith(_SCHEMES):
        return
    # The sweep removes the object if this process dies first.
    name = f"_transactions/{uuid4()}.store_check"
    with boundary(Boundary.STORE_CHECKED):
        try:
            store = open_folder(uri, storage_options(uri), _LIMITS, _RETRIES)
            is_refused = _is_second_refused(store, name)
        except exceptions.BaseError as error:
            if isinstance(error, exceptions.NotSupportedError) or any(one in str(error) for one in _UNSUPPORTED):
                raise UnsafeStoreError(
                    f"{_what(uri)} does not support conditional writes: {reason_of(error)}"
                ) from error
            # The next request fails if the store is down, and works if only Lance finds the credentials.
            log.warning("%s could not be checked for conditional writes: %s", _what(uri), reason_of(error))
            return
        with suppress(exceptions.BaseError):
            obstore.delete(store, name)
    if not is_refused:
        raise UnsafeStoreError(
            f"{_what(uri)} overwrote an object that a request only wanted to create (If-None-Match: *), so that "
            "another program could destroy a published version"
        )


def _is_second_refused(store: ObjectStore, name: str) -> bool:
    with suppress(exceptions.AlreadyExistsError):  # the request was repeated, because the first answer was lost
        obstore.put(store, name, b"first", mode="create")
    try:
        obstore.put(store, name, b"second", mode="create")
    except exceptions.AlreadyExistsError:
        return True
    return False


def _what(uri: str) -> str:
    return f"The object store of the LanceDB table at {uri}"
