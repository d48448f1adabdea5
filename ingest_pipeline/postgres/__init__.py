"""The catalog and the ledger: every statement that runs in Postgres.

Only this package imports `psycopg`. `database` opens connections and transactions and translates the
driver's errors. The named statements are in `sql/queries.sql`. The other modules wrap the statements as functions
that run in the caller's transaction. The ledger is in `sagas`, `embedding_cache`, `batch_jobs` and `failures`; the
catalog is in `corpora`, `documents`, `history` and `reports`. `embedded/` runs a server for users who have none.
Begin with `database`, then `sagas`.
"""
