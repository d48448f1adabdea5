"""The protocol: how vectors, catalog rows and head move together, or not at all.

`publish` is the short transaction under the lock, `reconcile` what the lock's holder does when table and catalog
differ, `recover` settles what dead writers left, `rollback` goes back to an earlier version, `generations` switches
tables, `transaction` offers all of it for a table of the user's. Imports `planning`, `corpus` and what lies below
them; knows no Dagster. Begin with `publish`.
"""
