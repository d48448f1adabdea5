"""What every parser gives: the pieces of a document's extracted text."""

from __future__ import annotations

from ingest_pipeline.types import TextPiece

__all__ = ["TextPiece"]
