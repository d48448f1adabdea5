"""The partitions of a corpus: one per document, added when its file is seen and dropped when its rows are gone."""

from __future__ import annotations

from dagster import DynamicPartitionsDefinition


def document_partitions(corpus: str) -> DynamicPartitionsDefinition:
    """The partitions definition that the three assets of a corpus share."""
    return DynamicPartitionsDefinition(name=f"{corpus}_documents")
