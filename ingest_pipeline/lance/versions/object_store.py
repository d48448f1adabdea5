"""Opens a table's folder in an object store with obstore, for the conditional writes that Lance does not offer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from obstore.store import from_url

if TYPE_CHECKING:
    from collections.abc import Mapping

    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Config

_ALLOW_HTTP = {
    "s3": "AWS_ALLOW_HTTP",
    "gs": "GOOGLE_ALLOW_HTTP",
    "az": "AZURE_ALLOW_HTTP",
    "abfss": "AZURE_ALLOW_HTTP",
}
"""The variables by which Lance allows plain HTTP. obstore ignores them as soon as it is given limits."""


def open_folder(uri: str, options: Mapping[str, str], limits: ClientConfig, retries: RetryConfig) -> ObjectStore:
    """Open a table's folder, with the endpoint of Lance and with plain HTTP wherever Lance has it.

    Args:
        uri: The table: ``s3://``, ``gs://``, ``az://`` with a container, or ``abfss://``. Its path is URL-encoded.
        options: What Lance needs to reach the store.
        limits: Timeouts of an attempt.
        retries: How often and how long a request is repeated.

    Raises:
        BaseError: The library does not know such a store, or a setting is missing.
    """
    is_allowed = options.get("allow_http") or os.environ.get(_ALLOW_HTTP.get(uri.partition("://")[0], ""), "")
    client: ClientConfig = {**limits, "allow_http": is_allowed.lower() == "true"}
    config: S3Config | None = {"endpoint": options["aws_endpoint"]} if "aws_endpoint" in options else None
    return from_url(uri, config=config, client_options=client, retry_config=retries)
