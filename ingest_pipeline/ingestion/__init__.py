"""Whole operations on a corpus: ingest, estimate, re-embed, batch jobs.

`context` opens a corpus by its settings, `run` compares the source with head and `ingest` publishes what differs in
groups of one saga each; `summary` and `outcome` say what happened. `reembed` fills a second generation, and `estimate`
computes what a plan would cost. `batch/` uses the API's Batch endpoint, `columns/` changes columns without embedding,
and `workers/` prepares in several processes. Imports `preparation` and the layers below; does not import Dagster. Begin
with `run`.
"""
