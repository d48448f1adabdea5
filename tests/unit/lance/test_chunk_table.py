"""Chunks as rows of the table: what memory they take and leave behind."""

from __future__ import annotations

import subprocess
import sys
from uuid import UUID

import numpy as np

from ingest_pipeline.lance.chunk_table import TableRow
from ingest_pipeline.types import ChunkRow

# Each table is made in another thread, as a pool of threads does, and freed in the next one.
_TABLES = """
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from ingest_pipeline.lance.chunk_table import chunk_table
from ingest_pipeline.processes import map_large_blocks
from tests.unit.lance.test_chunk_table import table_rows

def resident_bytes():
    return 1024 * int(Path("/proc/self/status").read_text().partition("RssAnon:")[2].split()[0])

map_large_blocks()
rows = table_rows(1000)

def make():
    table = chunk_table(rows)
    return table, table["vector"].combine_chunks()

threads = [ThreadPoolExecutor(1) for _ in range(9)]
tables = [threads[0].submit(make).result()]
tables.clear()
before = resident_bytes()
for making, freeing in zip(threads, threads[1:]):
    tables.append(making.submit(make).result())
    freeing.submit(tables.clear).result()
print(resident_bytes() - before)
"""


def table_rows(count: int) -> list[TableRow]:
    """Rows of one document, with vectors of 1,536 dimensions and 700 characters of text each."""
    vector = np.ones(1536, dtype=np.float32)
    chunks = [ChunkRow(UUID(int=n), "a.txt", n, 700 * n, 700 * n + 700, UUID(int=n), UUID(int=1)) for n in range(count)]
    return [TableRow(chunk, "a.txt", "x" * 700, vector) for chunk in chunks]


def test_tables_of_many_threads_leave_no_memory_behind() -> None:
    # In a process of its own, whose pools have no room left from other tests.
    done = subprocess.run([sys.executable, "-c", _TABLES], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 15_000_000
