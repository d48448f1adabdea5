"""Jobs other than the ingest: rollback, re-embedding, batch jobs, erasure, and the decision about gates.

Each module has one job and its configuration for the Launchpad. `corpus_op` has what their ops share.
"""
