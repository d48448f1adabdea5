"""The documents that a user names: whether they exist, and what the user may have meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ingest_pipeline.errors import UnknownDocumentError
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.postgres.catalog import documents
from ingest_pipeline.postgres.ledger.erasures import erased_keys
from ingest_pipeline.postgres.ledger.failures import read_failures


def check_keys(context: IngestContext, keys: Sequence[str]) -> None:
    """Refuse keys of documents that neither the source nor the corpus has, and keys of excluded objects.

    Raises:
        UnknownDocumentError: Names the first of them and what the user may have meant.
    """
    with context.corpus.database.transaction() as connection:
        latest = documents.latest_documents(connection, context.corpus.generation, keys=keys)
        failed = read_failures(connection, context.corpus.generation)
        erased = erased_keys(connection, context.corpus.name)
    for key in keys:
        if key in erased:
            raise UnknownDocumentError(
                f"Document {key!r} was erased, and is not ingested again",
                f"If it should be, run `ingest-pipeline retry {key}` first.",
            )
    # Failed documents are known too: some keys can be listed although their objects cannot be inspected.
    missing = sorted(set(keys) - {document.key for document in latest} - {failure.key for failure in failed})
    found = {obj.key: obj for obj in context.source.stat_all(missing)}
    for key in missing:
        if key not in found:
            raise UnknownDocumentError(f"There is no document {key!r} in {context.source.url}", _hint(context, key))
        if reason := context.selection.exclusion_reason(found[key]):
            raise UnknownDocumentError(
                f"Document {key!r} is excluded by the settings: {reason}", "Change the settings, or omit the document."
            )


def nothing_found(context: IngestContext) -> str | None:
    """A warning if both the source and the corpus are empty, which is what a mistyped source looks like."""
    with context.corpus.database.transaction() as connection:
        if documents.count_documents(connection, context.corpus.generation):
            return None
    return (
        f"There is nothing to ingest in {context.source.url}, and the corpus has no documents. If the source should "
        "have some, check INGEST_SOURCE, INGEST_INCLUDE, INGEST_EXCLUDE and INGEST_MAX_BYTES."
    )


def _hint(context: IngestContext, key: str) -> str:
    unchanged = "Nothing was changed."
    inside = _below(context.source.url, key)
    if inside is not None:
        return f"{unchanged} Keys are paths below the source: did you mean {inside!r}?"
    if key.strip("/") and next(context.source.list(folder=key.strip("/")), None) is not None:
        return f"{unchanged} It is a folder: name documents in it, or omit KEY to ingest everything that differs."
    return f"{unchanged} Keys are paths below the source; `ingest-pipeline plan` lists the documents that differ."


def _below(source: str, key: str) -> str | None:
    """The key of a document that was named by its path or url."""
    root = source.rstrip("/") + "/" if "://" in source else f"{Path(source).absolute()}/"
    return key.removeprefix(root) if key.startswith(root) and key != root else None
