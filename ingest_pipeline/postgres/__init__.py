"""The catalog and the ledger: every statement that runs in Postgres.

Only this package imports `psycopg`. `database` opens connections and transactions and translates the
driver's errors. The named statements are in `sql/queries.sql`. The other modules wrap the statements as functions
that run in the caller's transaction: `ledger/` records sagas and what they staged and paid for, `catalog/` describes
corpora, documents and chunks to readers, and `gauges` has the figures for monitors. `embedded/` runs a server for users
who have none. Begin with `database`, then `ledger.sagas`.
"""
