"""Maintenance, audit and repair of a corpus.

`maintain` runs compaction, indexing, retention and the sweep; `audit` compares the two stores and `repair`
publishes again what the audit names; `drop` deletes a corpus. Imports `ingestion` and the packages below it.
"""
