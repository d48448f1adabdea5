"""The documents that a person names on the command line."""

from collections.abc import Sequence
from pathlib import Path

from ingest_pipeline.errors import UnknownDocumentError
from ingest_pipeline.planning.context import IngestContext
from ingest_pipeline.postgres import catalog
from ingest_pipeline.postgres.failures import read_failures


def check_keys(context: IngestContext, keys: Sequence[str]) -> None:
    """Refuse keys of documents that neither the source nor the corpus has, and keys of objects that are excluded.

    Raises:
        UnknownDocumentError: It names the first of them, and what may have been meant.
    """
    with context.corpus.database.transaction() as connection:
        latest = catalog.latest_documents(connection, context.corpus.generation, keys=keys)
        failed = read_failures(connection, context.corpus.generation)
    # What failed is known too: some names can be listed, and not looked at.
    missing = sorted(set(keys) - {document.key for document in latest} - {failure.key for failure in failed})
    found = {obj.key: obj for obj in context.source.stat_all(missing)}
    for key in missing:
        if key not in found:
            raise UnknownDocumentError(f"There is no document {key!r} in {context.source.url}", _hint(context, key))
        if reason := context.selection.exclusion_reason(found[key]):
            raise UnknownDocumentError(
                f"Document {key!r} is not ingested, by the settings: {reason}", "Change them, or leave it out."
            )


def nothing_found(context: IngestContext) -> str | None:
    """What to say of a source in which nothing differs, if the corpus is empty too: so looks a mistyped one."""
    with context.corpus.database.transaction() as connection:
        if catalog.count_documents(connection, context.corpus.generation):
            return None
    return (
        f"There is nothing to ingest in {context.source.url}, and the corpus holds no document. If there should be "
        "some, check INGEST_SOURCE, INGEST_INCLUDE, INGEST_EXCLUDE and INGEST_MAX_BYTES."
    )


def _hint(context: IngestContext, key: str) -> str:
    unchanged = "Nothing was changed."
    inside = _below(context.source.url, key)
    if inside is not None:
        return f"{unchanged} Keys are paths below the source: did you mean {inside!r}?"
    if key.strip("/") and next(context.source.list(folder=key.strip("/")), None) is not None:
        return f"{unchanged} It is a folder: name the documents in it, or no KEY at all, which ingests what differs."
    return f"{unchanged} Keys are paths below the source; `ingest-pipeline plan` lists the documents that differ."


def _below(source: str, key: str) -> str | None:
    """The key of a document that was named by its whole path or url."""
    root = source.rstrip("/") + "/" if "://" in source else f"{Path(source).absolute()}/"
    return key.removeprefix(root) if key.startswith(root) and key != root else None
