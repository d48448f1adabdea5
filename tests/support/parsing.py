"""Samples of every format, and their text."""

from pathlib import Path

from ingest_pipeline.cli.demo.sample_documents import (
    CHOCOLATE,
    COLUMN_FORMATS,
    METEORITES,
    OBJECT_STORES,
    ROW_LOCKS,
    SAGAS,
    TIDES,
    VECTOR_SEARCH,
)
from ingest_pipeline.parsing.built_in_parsers import ParserLimits, parse

LIMITS = ParserLimits()
SAMPLES: dict[str, list[str]] = {
    "chocolate.md": CHOCOLATE,
    "column-formats.epub": COLUMN_FORMATS,
    "meteorites.jsonl": [row["text"] for row in METEORITES],
    "object-stores.docx": OBJECT_STORES,
    "row-locks.html": ROW_LOCKS,
    "sagas.pdf": SAGAS,
    "tides.csv": [row["note"] for row in TIDES],
    "tides.xlsx": [row["note"] for row in TIDES],
    "vector-search.pptx": VECTOR_SEARCH,
}
PARSED = sorted(name for name in SAMPLES if Path(name).suffix in {".epub", ".docx", ".html", ".pdf", ".xlsx", ".pptx"})


def text_of(document: str, *blocks: bytes, limits: ParserLimits = LIMITS) -> str:
    return "".join(piece.text for piece in parse(document, blocks, limits))
