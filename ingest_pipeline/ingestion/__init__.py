"""Whole operations on a corpus: ingest, estimate, re-embed, batch jobs.

`context` opens a corpus by its settings, `ingest` publishes plans in groups of one saga each, `reembed` fills a second
generation, `batch_jobs` uses the API's Batch endpoint, and `estimate` computes what a plan would cost. Imports
`preparation` and the layers below; does not import Dagster. Begin with `ingest`.
"""
