"""Recovery after a restored backup, a lost catalog or a moved table.

`rebuild` brings the catalog to the state of the table. `relocate` points a corpus to a table, source or model that
was moved or renamed. Imports `maintenance` and the packages below it. docs/backup_and_restore.md has the cases.
"""
