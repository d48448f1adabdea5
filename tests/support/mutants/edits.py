"""Edits of large documents, which write only what changes."""

from __future__ import annotations

from typing import Any

from ingest_pipeline.chunking import blocks, recut
from ingest_pipeline.lance import moves
from ingest_pipeline.postgres import sql
from ingest_pipeline.postgres.catalog import documents
from tests.support.mutants.mutant import Mutant, answering, plug

_EDITS = "tests/integration/preparation/test_large_edits.py::"


def moved_rows_keep_their_places() -> None:
    def sizes(places: Any, own: Any, _: object) -> Any:
        return places["end_offset"][own] - places["start_offset"][own]

    plug(moves, "_move", sizes)


def moved_fragments_are_not_compared() -> None:
    plug(moves.Edit, "fits", answering(value=True))


def shared_chunk_rows_are_forgotten() -> None:
    query = sql.query

    def without_sharing(name: str) -> Any:
        return query(name).replace("r.saga = old.saga", "false") if name == "forget_superseded" else query(name)

    plug(documents, "query", without_sharing)


def blocks_are_kept_whatever_follows() -> None:
    def known(cutting: Any, start: int, index: int) -> int:
        count = 0
        for block in cutting._old[index:]:
            if blocks.text_digest(cutting._text.get(start, start + block.length)) != block.digest:
                break
            count, start = count + 1, start + block.length
        return count

    plug(recut._Recutting, "_known", known)  # pyright: ignore[reportPrivateUsage]


MUTANTS = {
    "moved rows keep their places": Mutant(
        moved_rows_keep_their_places, f"{_EDITS}test_rows_after_edits_are_those_of_a_whole_ingest"
    ),
    "moved fragments are not compared": Mutant(
        moved_fragments_are_not_compared,
        "tests/faults/deaths/test_edits.py::test_rows_that_a_compaction_moves_under_an_edit_are_planned_again",
    ),
    "shared chunk rows are forgotten": Mutant(
        shared_chunk_rows_are_forgotten, f"{_EDITS}test_rows_that_a_later_edit_shares_stay_as_long_as_it_does"
    ),
    "blocks are kept whatever follows": Mutant(
        blocks_are_kept_whatever_follows,
        "tests/unit/chunking/test_recut.py::test_a_block_is_cut_again_if_what_follows_decides_where_it_ends",
    ),
}
