"""Whole operations on a corpus: ingest, estimate, move to another embedding model, batch jobs.

`context` opens a corpus by its settings, `ingest` makes plans true in groups of one saga each, `reembed` fills a
second generation, `bulk` uses the API's Batch endpoint, `estimate` says what a plan would cost. Imports `preparation`
and what lies below it; knows no Dagster. Begin with `ingest`.
"""
