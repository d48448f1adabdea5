"""The catalog and the ledger: every statement that runs in Postgres.

Only this package imports `psycopg`. `database` opens connections and transactions and translates errors; the
statements are in `sql/queries.sql`, one name each; the other modules wrap them as functions that work in the
transaction of their caller. `ledger` has the sagas and the embeddings paid for, `catalog` corpora, documents and
chunks. `embedded/` runs a server for who has none. Imports `types` and `errors` only. Begin with `database`, then
`ledger`.
"""
