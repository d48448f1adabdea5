"""Stages the new positions of rows that edits only move: one small file for each fragment that has such rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import count

import numpy as np

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import ConflictError
from ingest_pipeline.failpoints import Boundary, boundary
from ingest_pipeline.lance.changes import Removal
from ingest_pipeline.lance.chunk_table import table_columns
from ingest_pipeline.lance.filters import one_of
from ingest_pipeline.lance.moves import FoundRows, FragmentMoves, MovedDocument, StagedMoves, stage_moves
from ingest_pipeline.postgres.catalog import chunk_ranges
from ingest_pipeline.postgres.catalog.chunk_ranges import DocumentPlace
from ingest_pipeline.postgres.ledger import sagas
from ingest_pipeline.preparation.batches import PreparedDocument
from ingest_pipeline.preparation.reading.edits import DocumentEdit
from ingest_pipeline.preparation.reading.preview import BIN_CHARACTERS
from ingest_pipeline.saga.lifecycle import Saga


def stage_all_moves(
    corpus: Corpus, saga: Saga, documents: Sequence[PreparedDocument], first_file: int, in_full: set[str]
) -> StagedMoves:
    """Stage the new positions of the rows of edited documents.

    Args:
        corpus: The corpus.
        saga: The saga.
        documents: Documents that were read as edits.
        first_file: Number in the name of the first file.
        in_full: Receives the keys of documents whose rows are not where the catalog says.

    Raises:
        ConflictError: There are such documents. They have to be ingested as a whole.
        FencedError: Another process has ended the saga.
        GenerationRetiredError: The columns of the table were changed meanwhile.
        TableDamagedError: A fragment cannot be read.
        UnavailableError: One of the stores failed.
    """
    staged = StagedMoves()
    edits = {document.plan.key: document.edit for document in documents if document.edit is not None}
    staged.documents = frozenset(edits)
    if not edits:
        return staged
    replaced = [(one.plan.key, one.plan.replaces) for one in documents if one.plan.replaces is not None]
    with corpus.database.transaction() as connection:
        head, places = chunk_ranges.places_of(connection, corpus.generation, replaced)
    moves = _moves(corpus, saga, documents, places)
    present = {state.number for state in corpus.table.fragments(head)}
    counts, removing = Counter[str](), set[int]()
    numbers = count(first_file)
    by_key = {document.plan.key: document for document in documents}
    for number in sorted(present & moves.keys()):
        saga.check_not_fenced()
        file, found = stage_moves(corpus.table, head, number, f"{saga.id}-{next(numbers)}.lance", moves[number])
        if file is not None:
            staged.files.append(file)
        for key, rows in found.items():
            counts[key] += rows.row_count
            _preview(by_key[key], rows)
            if len(rows.sizes):
                staged.fragments[key].append(number)
            if len(rows.sizes) < rows.row_count:
                removing.add(number)
    _check(corpus, edits, places, counts, in_full)
    with boundary(Boundary.FRAGMENT_RECORDED), corpus.database.transaction() as connection:
        for file in staged.files:
            sagas.record_fragment(connection, saga.id, name=file.name, row_count=file.row_count)
    ids = [str(number) for edit in edits.values() for number in edit.removed]
    if ids:
        removed = one_of("id", ids)
        staged.removed = Removal(removed, dict.fromkeys(removing, removed), len(ids))
    return staged


def _moves(
    corpus: Corpus, saga: Saga, documents: Sequence[PreparedDocument], places: Sequence[DocumentPlace]
) -> dict[int, FragmentMoves]:
    """The edited documents by the fragments that have rows of them."""
    is_other = any(one.plan.latest is not None and one.plan.latest.columns != one.columns for one in documents)
    columns = table_columns(corpus.table.schema).of_documents.columns if is_other else ()
    fragments = {place.key: place.fragments for place in places}
    found: defaultdict[int, dict[str, MovedDocument]] = defaultdict(dict)
    for document in documents:
        assert document.edit is not None  # noqa: S101  the caller chose these
        moved = MovedDocument(document.edit.moved, document.columns)
        for number in fragments.get(document.plan.key, ()):
            found[number][document.plan.key] = moved
    return {number: FragmentMoves(some, saga.id, columns, corpus.table.schema) for number, some in found.items()}


def _preview(document: PreparedDocument, rows: FoundRows) -> None:
    preview = document.preview
    preview.characters += int(rows.sizes.sum())
    bins, counts = np.unique(rows.sizes // BIN_CHARACTERS, return_counts=True)
    preview.bins.update(dict(zip(bins.tolist(), counts.tolist(), strict=True)))


def _check(
    corpus: Corpus,
    edits: dict[str, DocumentEdit],
    places: Sequence[DocumentPlace],
    counts: Counter[str],
    in_full: set[str],
) -> None:
    expected = {place.key: place.chunk_count for place in places}
    missing = sorted(key for key in edits if counts[key] != expected.get(key))
    if missing:
        in_full |= set(missing)
        raise ConflictError(
            f"Rows of {missing[0]!r} are not in the fragments that the catalog of corpus {corpus.name!r} names; the "
            "document is ingested as a whole"
        )
