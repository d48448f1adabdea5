"""Finishes erasures whose process died, and erases documents again that a restored backup brought back.

The ledger and the folder of each table both remember an erasure. If one of them lacks it, that one was restored
from an older backup, and the erasure is done again. The command `recover` compares all keys as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.erasure.erase import Erasing, Receipt, collect, finish, is_performed_here, note_of
from ingest_pipeline.erasure.fingerprints import Fingerprints
from ingest_pipeline.erasure.remains import Elsewhere
from ingest_pipeline.lance.erasing import keys_in, read_notes, write_note
from ingest_pipeline.postgres.ledger import erasures, sagas
from ingest_pipeline.postgres.ledger.erasures import ErasureRow, key_hash
from ingest_pipeline.processes import is_dead, this_process
from ingest_pipeline.saga.generations import other_generations
from ingest_pipeline.telemetry.logs import get_logger
from ingest_pipeline.types import counted

log = get_logger(__name__)

# A process is taken for dead after this time without a heartbeat.
_SILENCE = timedelta(minutes=30)


def continue_erasures(
    corpus: Corpus, elsewhere: Elsewhere | None = None, *, compare_keys: bool = False, silence: timedelta = _SILENCE
) -> list[Receipt]:
    """Finish the erasures of processes that died, and repeat those that one of the stores has forgotten.

    Args:
        corpus: The current generation of the corpus.
        elsewhere: What another program has of the documents.
        compare_keys: Also look for erased documents in the catalog and in all data files.
        silence: A process is taken for dead after this time without a heartbeat.

    Raises:
        ForeignWriteError, OtherDatabaseError: The user must first decide about the table.
        UnavailableError, ConflictError: Some are not finished; the next call continues.
    """
    with corpus.database.transaction() as connection:
        known = {row.id: row for row in erasures.read(connection, corpus.name)}
        now = sagas.clock(connection)
    generations = [corpus, *other_generations(corpus)]
    notes = [read_notes(generation.table) for generation in generations] if known or compare_keys else []
    notes = notes or [read_notes(corpus.table)]
    _learn(corpus, known, notes)
    with corpus.database.transaction() as connection:
        rows = erasures.read(connection, corpus.name)
    receipts: list[Receipt] = []
    present = _keys_in_files(generations) if compare_keys and rows else set[str]()
    for row in rows:
        if row.erased_at is None:
            if row.id in known and not _is_gone(row, now, silence):
                continue
        elif all(str(row.id) in noted for noted in notes) and not compare_keys:
            continue
        receipt = _repeat(corpus, generations, row, present, elsewhere)
        if receipt is not None:
            receipts.append(receipt)
    return receipts


def has_erasures(corpus: Corpus) -> bool:
    """Whether the ledger or the table remembers an erasure."""
    with corpus.database.transaction() as connection:
        recorded = erasures.read(connection, corpus.name)
    return bool(recorded) or bool(read_notes(corpus.table))


def _learn(corpus: Corpus, known: Mapping[UUID, ErasureRow], notes: Sequence[Mapping[str, Mapping[str, Any]]]) -> None:
    """Record the erasures that only a table remembers."""
    for note in {name: note for noted in notes for name, note in noted.items()}.values():
        erasure = UUID(str(note["erasure"]))
        if erasure in known or note["corpus"] != corpus.name:
            continue
        log.warning("corpus %s: the ledger lacks the erasure %s, which the table remembers", corpus.name, erasure)
        with corpus.database.transaction() as connection:
            erasures.copy(
                connection,
                erasure,
                corpus=corpus.name,
                reason=str(note["reason"]),
                salt=bytes.fromhex(note["salt"]),
                requested_at=datetime.fromisoformat(note["requested_at"]),
                key_hashes=[bytes.fromhex(one) for one in note["key_hashes"]],
            )


def _repeat(
    corpus: Corpus, generations: Sequence[Corpus], row: ErasureRow, present: set[str], elsewhere: Elsewhere | None
) -> Receipt | None:
    """Perform an erasure again, if anything of it is left."""
    hashes = set(row.key_hashes)
    with corpus.database.transaction() as connection:
        found = erasures.keys_by_hash(connection, corpus.name, row.salt, hashes)
    if row.erased_at is not None or row.keys is None:
        present = present or _keys_in_files(generations)
    back = {*(row.keys or ()), *found, *(key for key in present if key_hash(row.salt, key) in hashes)}
    if row.erased_at is None and row.keys is None and row.found is not None and not back:
        finish(corpus, row.id, None)  # the process died between its last two steps
        return None
    if not back:
        for generation in generations:
            write_note(generation.table, str(row.id), note_of(row))
        if row.erased_at is None:
            finish(corpus, row.id, None)
        return None
    keys = sorted(back)
    prints = Fingerprints.read(row.salt, row.fingerprints or b"")
    if row.fingerprints is None:
        prints = collect(generations, keys, row.salt)
    with corpus.database.transaction() as connection:
        erasures.take(connection, row.id, keys=keys, fingerprints=prints.recorded())
    log.warning("corpus %s: continuing the erasure %s of %s", corpus.name, row.id, counted(len(keys), "document"))
    return Erasing(corpus, row, keys, prints, elsewhere).run()


def _keys_in_files(generations: Sequence[Corpus]) -> set[str]:
    """The documents that have rows in any data file of any generation."""
    return {
        key
        for generation in generations
        for name in generation.table.all_files()
        for key in keys_in(generation.table, name)
    }


def _is_gone(row: ErasureRow, now: datetime, silence: timedelta) -> bool:
    """Whether nothing performs an erasure any more.

    A process may live on after its attempt has failed, as a code server does whose sensor had begun it.
    """
    if row.writer == this_process():
        return not is_performed_here(row.id)
    return is_dead(row.writer) or now - row.seen_at >= silence
