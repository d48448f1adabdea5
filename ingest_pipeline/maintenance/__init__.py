"""Maintenance, audit and repair of a corpus.

`maintain` runs compaction, indexing, retention and the sweep. `audit` compares the two stores, and `repair` publishes
the documents again for which the audit found violations. `drop` deletes a corpus. Imports `ingestion` and the packages
below it. Begin with `maintain`.
"""
