"""Reaching the storage under LanceDB tables, and opening one as its readers do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lancedb.table import Table


def open_lancedb(uri: str, name: str, version: int) -> Table:
    """A table through LanceDB's own API, checked out at a version: it can be read, and refuses to be written."""
    import lancedb  # noqa: PLC0415  a second of CPU that only this call is worth

    table = lancedb.connect(uri, storage_options=storage_options(uri)).open_table(name)
    table.checkout(version)
    return table


def storage_options(uri: str) -> dict[str, str]:
    """What Lance needs, beyond the ``AWS_*`` of the environment that it reads itself, to reach an S3 endpoint."""
    if not uri.startswith("s3://"):
        return {}
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not endpoint:
        return {}
    return {"aws_endpoint": endpoint, "allow_http": str(endpoint.startswith("http://")).lower()}
