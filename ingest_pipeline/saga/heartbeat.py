"""A writer's signs of life, by which recovery tells it from a dead one."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import contextmanager
from uuid import UUID

from ingest_pipeline.corpus.corpus import Corpus
from ingest_pipeline.errors import FencedError, UnavailableError
from ingest_pipeline.postgres import ledger

_SECONDS = 5.0


@contextmanager
def signs_of_life(corpus: Corpus, saga: UUID) -> Generator[None]:
    """Keep recovery from taking the saga's writer for dead, however long the block computes."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_SECONDS):
            try:
                with corpus.database.transaction() as connection:
                    ledger.touch(connection, saga)
            except FencedError:
                return  # publishing will say so
            except UnavailableError:
                continue

    thread = threading.Thread(target=beat, name=f"signs of life of saga {saga}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def give_up(corpus: Corpus, saga: UUID, error: BaseException) -> None:
    """End the saga; if even that fails, recovery will. The files it wrote are known by name and swept."""
    try:
        with corpus.database.transaction() as connection:
            ledger.mark_ended(connection, saga, "failed", f"{type(error).__name__}: {error}")
    except UnavailableError:
        error.add_note(f"Saga {saga} could not be ended in the ledger; recovery will settle it.")
