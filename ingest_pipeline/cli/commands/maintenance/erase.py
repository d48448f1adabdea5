"""The command `erase`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from ingest_pipeline.cli import _session, _settings
from ingest_pipeline.cli._group import FAILED, KEY, as_json, command
from ingest_pipeline.cli._output import to_dict
from ingest_pipeline.cli._terminal import echo, print_json
from ingest_pipeline.erasure.erase import Receipt
from ingest_pipeline.erasure.erase import erase as erase_documents
from ingest_pipeline.ingestion.context import find_corpus
from ingest_pipeline.postgres.database import Database
from ingest_pipeline.types import counted


@command
@click.argument("keys", type=KEY, nargs=-1, required=True, metavar="KEY...")
@click.option("--reason", required=True, help="Why, for the ledger, which keeps it. Use a number, not a name.")
@as_json
def erase(keys: Sequence[str], reason: str, *, as_json: bool) -> None:
    """Erase documents from both stores, all versions and Dagster, and search for what is left.

    This cannot be undone. The files in the source are not touched and are not ingested again, until `retry KEY`.
    """
    from ingest_pipeline.cli import _dagster  # noqa: PLC0415  the other commands need no Dagster
    from ingest_pipeline.reporting.erasure import DagsterRecords  # noqa: PLC0415
    from ingest_pipeline.resources.names import DagsterNames  # noqa: PLC0415

    settings = _settings.settings()
    with _session.postgres(settings) as running, Database(running.database_url or "") as database:
        corpus = find_corpus(database, running)
        with _dagster.instance(running) as instance:
            records = DagsterRecords(instance, DagsterNames.of(running))
            receipt = erase_documents(corpus, keys, reason=reason, elsewhere=records)
    if as_json:
        print_json(to_dict(receipt))
    else:
        print_receipt(receipt)
    if receipt.found:
        sys.exit(FAILED)


def print_receipt(receipt: Receipt, *, err: bool = False) -> None:
    """Print the receipt of an erasure."""
    documents = counted(receipt.documents, "document")
    lines = [f"Erased {documents} of corpus {receipt.corpus}; erasure {receipt.erasure}"]
    lines += [f"  {name}: {number:,}" for name, number in receipt.removed.items()]
    if receipt.shared:
        shared = counted(receipt.shared, "fingerprint")
        lines.append(f"{shared} set aside: other documents have the same text: {', '.join(receipt.shared_with)}")
    lines.append(str(receipt))
    lines += [f"  found in {place}" for place in receipt.places]
    lines += [f"The server did not do everything: {reason}" for reason in receipt.skipped]
    lines.append("Not searched: the log of Postgres and backups of both stores. See docs/how-to/erase.md.")
    for line in lines:
        echo(line, err=err)
