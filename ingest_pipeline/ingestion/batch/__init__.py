"""Batch jobs: texts embedded by the API's Batch endpoint, at a lower price and within a day.

`batch_jobs` plans, submits and collects the jobs of a corpus; `batch_client` does so for a command or a Dagster job.
Begin with `batch_jobs`.
"""
