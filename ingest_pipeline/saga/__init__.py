"""The protocol: how vectors, catalog rows and head move together, or not at all.

`lifecycle` has the class `Saga`, from begin to publication or failure. `publish` is the short transaction under the
lock. `reconcile` makes the table's latest version equal head again, `recover` ends the sagas of dead writers,
`rollback` brings back an earlier version, `generations` switches tables, and `transaction` offers a saga for a table of
the user's own. Imports `planning`, `corpus` and the layers below; knows no Dagster.
Begin with `lifecycle`, then `publish`.
"""
