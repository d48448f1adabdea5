"""The LanceDB table: every call that reads or writes one.

Only this package imports `lance` and `lancedb`. `table` is a table as a sequence of versions, `changes` what one
publication does to it, `indices` and `search` its indices, `chunk_table` the columns of a corpus. `version_mark` is
the record of saga and database in each version. Knows no catalog and no saga. Begin with
`table.LanceTable`.
"""
