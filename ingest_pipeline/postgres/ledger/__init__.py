"""The ledger: what writers record in Postgres before they depend on it.

`sagas` has one row for each saga, and its staged files. `embedding_cache` and `extension_results` have the answers that
were paid for, `batch_jobs` the jobs at the API, `failures` the documents that failed, and `erasures` what was erased.
Imports the modules of `postgres`, and nothing of the catalog. Begin with `sagas`.
"""
