"""What a server keeps when its power fails, and the level at which our transactions commit.

A server with ``fsync=off`` or ``full_page_writes=off`` can lose or damage what it confirmed, and with it the head of a
corpus. Both are settings of the server alone, so the program can only refuse such a server. How long COMMIT waits is a
setting of each transaction, so every transaction of this package sets it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, LiteralString

from ingest_pipeline.errors import ConfigurationError, NotDurableError
from ingest_pipeline.postgres.sql import query
from ingest_pipeline.postgres.url import place_of

if TYPE_CHECKING:
    from ingest_pipeline.postgres.database import Connection

REQUIRE_FSYNC = "INGEST_REQUIRE_FSYNC"
"""The variable that allows such a server. It is no option of a corpus, because a server has several."""
_BOOLEANS = {"": True, "true": True, "1": True, "false": False, "0": False}


def transaction_settings(connection: Connection, url: str) -> LiteralString:
    """Check that the server is durable, and return the statements that begin every transaction.

    COMMIT returns when the record of the commit is on disk, whatever the server or the role says. A server that waits
    until its standbys have applied the commit keeps doing so.

    Args:
        connection: A connection to the server. Its rows are dictionaries.
        url: The server's url, for the error.

    Raises:
        NotDurableError: The server does not flush what it confirms, and no setting allows that.
        ConfigurationError: The setting is neither true nor false.
    """
    row = connection.execute(query("server_durability")).fetchone()
    assert row is not None  # noqa: S101  the statement has one row
    off = [f"{name}=off" for name in ("fsync", "full_page_writes") if row[name] == "off"]
    if off and _is_required():
        raise NotDurableError(
            f"Postgres at {place_of(url)} runs with {' and '.join(off)}, so a power cut can lose or damage what it "
            "confirmed. Nothing was changed"
        )
    limits, on_disk = query("limit_waiting"), query("commit_on_disk")
    return limits if row["synchronous_commit"] == "remote_apply" else f"{limits};{on_disk}"


def _is_required() -> bool:
    value = os.environ.get(REQUIRE_FSYNC, "")
    if value.lower() not in _BOOLEANS:
        raise ConfigurationError(
            f"{REQUIRE_FSYNC} is {value!r}, which is neither true nor false", f"Correct {REQUIRE_FSYNC}."
        )
    return _BOOLEANS[value.lower()]
