"""After a backup was restored, a catalog was lost, or a table was moved.

`rebuild` brings the catalog to what the table holds, `relocate` lets a corpus follow what was moved or renamed
outside. Imports `maintenance` and what lies below it. docs/backup_and_restore.md has the cases.
"""
