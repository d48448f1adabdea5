"""Options for the storage of LanceDB tables, and a function that opens a table for readers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lancedb.table import Table

_LIMITS = {"connect_timeout": "5s", "read_timeout": "6s", "timeout": "60s", "client_retry_timeout": "5"}
"""Without these limits Lance waits 20 minutes for a store that accepts a request and never responds.

They make one attempt 6 s long. Lance repeats reading requests, so with 14.0.2 a write timed out after 6 s of
silence, a listing after 40 s, a commit and the reading of a file after about a minute. If a store sends its response
byte by byte, each attempt times out after 60 s. Postgres ends a holder of the lock that idles after two minutes.
"""


def table_uri(folder: str, name: str) -> str:
    """Folder of the Lance dataset that a LanceDB connection to `folder` opens as the table `name`."""
    return f"{folder.rstrip('/')}/{name}.lance"


def open_lancedb(uri: str, name: str, version: int) -> Table:
    """A table through LanceDB's own API, checked out at a version: it can be read and refuses writes."""
    import lancedb  # noqa: PLC0415  the import costs a second of CPU, and only this call needs it

    table = lancedb.connect(uri, storage_options=storage_options(uri)).open_table(name)
    table.checkout(version)
    return table


def storage_options(uri: str) -> dict[str, str]:
    """Options that Lance needs to reach the storage, besides the ``AWS_*`` variables, which it reads itself."""
    if "://" not in uri or uri.startswith("file:"):
        return {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not (uri.startswith("s3://") and endpoint):
        return _LIMITS
    return {**_LIMITS, "aws_endpoint": endpoint, "allow_http": str(endpoint.startswith("http://")).lower()}
