"""Keeping a corpus small, quick and checked.

`maintain` runs compaction, indexing, retention and the sweep; `audit` compares the two stores and `repair` publishes
again what it names; `drop` deletes a corpus. Imports `ingestion` and what lies below it.
"""
